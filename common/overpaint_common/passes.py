"""The passes of a job: one transformation each, told apart by `op`."""

from __future__ import annotations

from typing import Annotated, Literal, get_args

from pydantic import Field

from overpaint_common.frozen import Frozen
from overpaint_common.references import ObjectUri

MAX_SEED = 2**53 - 16
"""Seeds stay exact in JSON readers that hold numbers as doubles, also after the last variant's number is added."""

MAX_PROMPT_CHARACTERS = 10_000
"""Far beyond the 77 tokens that CLIP reads; a longer prompt is a mistake, not a prompt."""

Prompt = Annotated[str, Field(max_length=MAX_PROMPT_CHARACTERS)]
Seed = Annotated[int, Field(ge=0, le=MAX_SEED)]
Strength = Annotated[float, Field(ge=0, le=1)]
Steps = Annotated[int, Field(ge=1, le=1000)]
GuidanceScale = Annotated[float, Field(ge=0, le=100)]


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


class Img2Img(Diffusion):
    """Repaint the whole picture towards a prompt."""

    op: Literal["img2img"] = "img2img"
    strength: Strength = 0.5
    """0 keeps the source, 1 is nearly text-to-image."""


class Inpaint(Diffusion):
    """Repaint where the mask is white."""

    op: Literal["inpaint"] = "inpaint"
    mask: ObjectUri
    strength: Strength = 0.8


class Upscale(Diffusion):
    """Enlarge with a model that adds detail."""

    op: Literal["upscale"] = "upscale"


class Edit(Diffusion):
    """Follow an instruction about the picture."""

    op: Literal["edit"] = "edit"


class MatchColor(Frozen):
    """Give the picture the palette of the job's source back."""

    op: Literal["match_color"] = "match_color"
    method: Literal["lab", "histogram", "wavelet"] = "lab"


Pass = Annotated[Img2Img | Inpaint | Upscale | Edit | MatchColor, Field(discriminator="op")]

OPERATIONS: tuple[str, ...] = tuple(kind.model_fields["op"].default for kind in get_args(get_args(Pass)[0]))
"""What a pass may name as its `op`."""
