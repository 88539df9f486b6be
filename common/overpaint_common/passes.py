"""The passes of a job: one transformation each, told apart by `op`."""

from __future__ import annotations

from typing import Annotated, Literal, Self, assert_never, get_args

from pydantic import Field, model_validator

from overpaint_common.frozen import Frozen
from overpaint_common.references import ObjectUri
from overpaint_common.schedulers import SchedulerName

MAX_SEED = 2**53 - 16
"""Seeds stay exact in JSON readers that hold numbers as doubles, also after the last variant's number is added."""

MAX_PROMPT_CHARACTERS = 10_000
"""Far beyond the 77 tokens that CLIP reads; a longer prompt is a mistake, not a prompt."""

Prompt = Annotated[str, Field(max_length=MAX_PROMPT_CHARACTERS)]
Seed = Annotated[int, Field(ge=0, le=MAX_SEED)]
Strength = Annotated[float, Field(ge=0, le=1)]
Steps = Annotated[int, Field(ge=1, le=1000)]
GuidanceScale = Annotated[float, Field(ge=0, le=100)]
RegistryName = Annotated[str, Field(pattern=r"^[a-z0-9][a-z0-9._-]{0,63}$")]
"""The name that the operator's registry gives to a model or to something beside it."""

MAX_LORAS = 8
MAX_CONTROLS = 4
MAX_MASK_PIXELS = 1024
"""Of a mask's feather and of the padding around what it edits."""


class Lora(Frozen):
    """A low-rank adaptation of the pass's model."""

    name: RegistryName
    scale: Annotated[float, Field(ge=-4, le=4)] = 1.0
    """How much of it; 0 is none, below 0 the opposite."""


class Control(Frozen):
    """A control network that holds the structure while a prompt repaints."""

    name: RegistryName
    image: ObjectUri | None = None
    """The control picture, such as drawn edges, laid over the source; None computes it from the picture that the pass
    takes, which the registry says how to do."""
    scale: Annotated[float, Field(ge=0, le=2)] = 1.0
    start: Annotated[float, Field(ge=0, le=1)] = 0.0
    """Share of the steps that run, after which it sets in."""
    end: Annotated[float, Field(ge=0, le=1)] = 1.0
    """Share of the steps that run, after which it lets go."""
    low: Annotated[float, Field(gt=0, lt=1)] = 0.1
    """For edges: gradients above `high` begin an edge, those above `low` continue it (Canny 1986)."""
    high: Annotated[float, Field(gt=0, lt=1)] = 0.2

    @model_validator(mode="after")
    def _ordered(self) -> Self:
        if self.start >= self.end:
            raise ValueError(f"start {self.start} must be below end {self.end}")
        if self.low > self.high:
            raise ValueError(f"low {self.low} must not be above high {self.high}")
        return self


class Diffusion(Frozen):
    """What every pass that denoises shares. `None` means: the model's default, filled in at submission."""

    prompt: Prompt = ""
    negative_prompt: Prompt = ""
    steps: Steps | None = None
    """Denoising steps of the whole trajectory; strength decides how many of them run."""
    guidance_scale: GuidanceScale | None = None
    """How strongly the prompt pulls; 1 and below run without guidance."""
    seed: Seed | None = None
    """This pass's own base seed; without one it is derived from the job's seed and the pass's place."""
    model: RegistryName | None = None
    """Another model than the job's; its workers need both."""
    scheduler: SchedulerName | None = None
    """None is the model's own."""
    loras: Annotated[tuple[Lora, ...], Field(max_length=MAX_LORAS)] = ()


class Img2Img(Diffusion):
    """Repaint the whole picture towards a prompt."""

    op: Literal["img2img"] = "img2img"
    strength: Strength = 0.5
    """0 keeps the source, 1 is nearly text-to-image."""
    enlarge: Annotated[float, Field(ge=1, le=4)] = 1.0
    """Scale the picture by this much first, so that repainting it adds the detail of the larger size."""
    controls: Annotated[tuple[Control, ...], Field(max_length=MAX_CONTROLS)] = ()


class Inpaint(Diffusion):
    """Repaint where the mask is white; everywhere else the picture stays as it is, to the bit."""

    op: Literal["inpaint"] = "inpaint"
    mask: ObjectUri
    """A picture laid over the source, whose size it is scaled to; white is repainted, black stays."""
    strength: Strength = 0.8
    invert: bool = False
    """Repaint where the mask is black."""
    threshold: Annotated[float, Field(gt=0, le=1)] | None = None
    """Grey from this share of white on counts as white and the rest as black; None blends by the greys."""
    feather: Annotated[float, Field(ge=0, le=MAX_MASK_PIXELS)] = 0.0
    """Pixels of the picture over which the edge fades: the standard deviation of a Gaussian."""
    only_masked: bool = False
    """Paint the masked region alone, brought to the model's native size, and lay it back in its place."""
    padding: Annotated[int, Field(ge=0, le=MAX_MASK_PIXELS)] = 32
    """With `only_masked`: pixels around the region that the model sees as well."""


class Upscale(Diffusion):
    """Enlarge four times with a model that adds detail, in tiles: device memory does not grow with the picture."""

    op: Literal["upscale"] = "upscale"
    noise_level: Annotated[int, Field(ge=0, le=1000)] = 20
    """Noise put on the picture first, in training steps: more lets the model invent more."""


class Edit(Diffusion):
    """Follow an instruction about the picture, such as "make it winter"."""

    op: Literal["edit"] = "edit"
    image_guidance_scale: Annotated[float, Field(ge=1, le=100)] | None = None
    """How strongly the picture holds, in models that are guided by it (InstructPix2Pix); None is 1.5."""


class MatchColor(Frozen):
    """Give the picture the palette of the job's source back."""

    op: Literal["match_color"] = "match_color"
    method: Literal["lab", "histogram", "wavelet"] = "lab"
    """lab: mean and spread of each channel of CIE L*a*b*; histogram: the whole distribution of each channel of RGB;
    wavelet: the source's coarse colours under the picture's own detail."""
    amount: Annotated[float, Field(ge=0, le=1)] = 1.0
    """0 leaves the picture as it is."""


Painting = Img2Img | Inpaint | Upscale | Edit
"""The passes that a model runs."""

Pass = Annotated[Img2Img | Inpaint | Upscale | Edit | MatchColor, Field(discriminator="op")]

OPERATIONS: tuple[str, ...] = tuple(kind.model_fields["op"].default for kind in get_args(get_args(Pass)[0]))
"""What a pass may name as its `op`."""


def changes_nothing(p: Pass) -> bool:
    """Whether the pass gives back the very picture that it takes, so that no model has to run."""
    match p:
        case Img2Img():
            return p.strength == 0 and p.enlarge == 1
        case Inpaint():
            return p.strength == 0
        case MatchColor():
            return p.amount == 0
        case Upscale() | Edit():
            return False
    assert_never(p)
