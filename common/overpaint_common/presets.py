"""Named settings for what people usually want of a picture: passes, how the source is prepared, how many variants.

A preset only fills in fields; the job and its record hold the passes that it gave, so nothing else knows of presets.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any, get_args

from pydantic import TypeAdapter, ValidationError

from overpaint_common.errors import InvalidJob
from overpaint_common.frozen import Frozen
from overpaint_common.job import Prepare, explain
from overpaint_common.passes import Diffusion, Pass

_PASS: TypeAdapter[Pass] = TypeAdapter(Pass)
_KINDS: dict[str, type[Frozen]] = {kind.model_fields["op"].default: kind for kind in get_args(get_args(Pass)[0])}
_ONE_FOR_EACH_PASS = ("strength", "seed")
"""What several passes must not share: falling strengths are the point of them, and equal seeds repeat their noise."""

Fields = Mapping[str, Any]


def _step(op: str, **fields: Any) -> Fields:
    return MappingProxyType({"op": op, **fields})


@dataclass(frozen=True, slots=True)
class Preset:
    """What one name stands for."""

    name: str
    use: str
    """What it is for, in a line."""
    steps: tuple[Fields, ...]
    """The fields that each pass is given, `op` first; the others are at their defaults."""
    advice: str
    """What goes well with it."""
    prepare: Prepare = field(default_factory=Prepare)
    variants: int = 1
    """How many to make where the caller does not say."""

    @property
    def needs(self) -> tuple[str, ...]:
        """Fields that have no default and that only the caller can give, such as an inpainting mask."""
        required = (
            name for step in self.steps for name, f in _KINDS[step["op"]].model_fields.items() if f.is_required()
        )
        return tuple(name for name in dict.fromkeys(required) if not any(name in step for step in self.steps))

    @property
    def settings(self) -> str:
        """All that it sets, in words: `img2img strength 0.4, then match_color`."""
        parts: list[str] = []
        for before, step in zip((_step(""), *self.steps), self.steps, strict=False):
            again = list(before) == list(step) == ["op", "strength"]
            parts.append(_shown(step["strength"]) if again else _spelt(step))
        text = ", then ".join(parts)
        prepare = self.prepare.model_dump(exclude_defaults=True)
        extras = [f"{name} {_shown(value)}" for name, value in prepare.items()]
        if self.variants > 1:
            extras.append(f"{self.variants} variants")
        return "; ".join((text, *extras))

    def as_json(self) -> dict[str, Any]:
        """For programs: everything above in JSON's types."""
        return {
            "name": self.name,
            "use": self.use,
            "passes": [dict(step) for step in self.steps],
            "needs": list(self.needs),
            "prepare": self.prepare.model_dump(exclude_defaults=True),
            "variants": self.variants,
            "advice": self.advice,
        }


def _spelt(step: Fields) -> str:
    fields = [f"{name} {_shown(value)}" for name, value in step.items() if name not in ("op", "negative_prompt")]
    if "negative_prompt" in step:
        fields.append("a negative prompt")
    return f"{step['op']} {', '.join(fields)}".rstrip()


def _shown(value: object) -> str:
    return f"{value:g}" if isinstance(value, float) else str(value)


_ALL = (
    Preset(
        "light",
        "Refresh colours and textures; everything stays in place.",
        (_step("img2img", strength=0.3),),
        "Where to start when the source must stay recognisable in every detail.",
    ),
    Preset(
        "balanced",
        "Change the look and keep what is shown.",
        (_step("img2img", strength=0.5),),
        "Where to start when unsure; go up or down by 0.1 from here.",
    ),
    Preset(
        "heavy",
        "Repaint thoroughly; the composition may change as well.",
        (_step("img2img", strength=0.8),),
        "Colours go too: name those that must stay, or use keep-colors with this strength.",
    ),
    Preset(
        "style-transfer",
        "Another medium or an artist's manner, same layout.",
        (_step("img2img", strength=0.6, guidance_scale=7.5),),
        "Describe the style, brush and medium rather than the things in the picture.",
    ),
    Preset(
        "object-change",
        "Another colour or kind of one object, the rest held.",
        (_step("img2img", strength=0.4, guidance_scale=10.0, negative_prompt="distorted, blurry"),),
        "Name the old look in the negative prompt; local-edit keeps the rest to the bit.",
    ),
    Preset(
        "variations",
        "Several takes on the same picture.",
        (_step("img2img", strength=0.35),),
        "Each variant has its own seed, which the record keeps.",
        variants=4,
    ),
    Preset(
        "keep-composition",
        "New content within the old layout.",
        (_step("img2img", strength=0.5, negative_prompt="cluttered, warped, wrong perspective"),),
        "Say what is where: behind, in the middle, in front. A control network on edges or depth holds it firmly.",
    ),
    Preset(
        "keep-colors",
        "Another style in the palette of the source.",
        (
            _step("img2img", strength=0.4, negative_prompt="desaturated, monochrome, colour cast"),
            _step("match_color"),
        ),
        "Name the colours in the prompt too. The last pass holds them at higher strengths as well.",
    ),
    Preset(
        "progressive",
        "A large change in three passes, each gentler than the last.",
        (_step("img2img", strength=0.6), _step("img2img", strength=0.4), _step("img2img", strength=0.2)),
        "One prompt for all passes; the later ones settle what the first one set up.",
    ),
    Preset(
        "staged",
        "Style first, then light, then finish: a prompt for each.",
        (_step("img2img", strength=0.5), _step("img2img", strength=0.3), _step("img2img", strength=0.2)),
        "Three prompts, one for each stage; ask for intermediates to see where a chain went wrong.",
    ),
    Preset(
        "finish",
        "A last touch of detail on a picture that is right.",
        (_step("img2img", strength=0.2),),
        "Few steps run at this strength: give steps=50 or more where the model has few by default.",
    ),
    Preset(
        "local-edit",
        "Repaint only where the mask is white.",
        (_step("inpaint", strength=0.8),),
        "The prompt describes what the masked place should show; feather softens the seam, only_masked adds detail.",
    ),
    Preset(
        "upscale",
        "Four times larger, with detail that a resize cannot add.",
        (_step("upscale", steps=20),),
        "Wants a model that serves upscale. The prompt describes the picture and its quality.",
        prepare=Prepare(fit="keep"),
    ),
    Preset(
        "enlarge",
        "Twice as large on an img2img model, repainted lightly.",
        (_step("img2img", strength=0.3, enlarge=2.0),),
        "For fleets without an upscaler; at higher strengths details begin to repeat.",
    ),
)

PRESETS: Mapping[str, Preset] = MappingProxyType({preset.name: preset for preset in _ALL})
"""By name, the general ones first."""


def preset(name: str) -> Preset:
    """The preset of that name; raises InvalidJob naming those there are."""
    try:
        return PRESETS[name]
    except KeyError:
        raise InvalidJob(f"there is no preset {name!r}; there are {', '.join(PRESETS)}") from None


def passes(
    name: str, prompt: str | Sequence[str], *, negative_prompt: str | None = None, **overrides: Any
) -> tuple[Pass, ...]:
    """The passes of a preset with a prompt.

    `prompt` is one for all passes that paint, or a list with one for each. `negative_prompt` takes the place of the
    preset's own; None keeps that. `overrides` are fields of the passes, such as `strength=0.5`, `steps=30`,
    `mask="s3://..."` or `guidance_scale=None` for the model's default; each goes to every pass that has such a field.
    Raises InvalidJob for an unknown preset or field, a wrong value, a needed field that is missing, prompts that are
    not one for each painting pass, or one strength or seed for several of them.
    """
    chosen = preset(name)
    painting = [step for step in chosen.steps if issubclass(_KINDS[step["op"]], Diffusion)]
    _check(chosen, len(painting), overrides)
    prompts = iter(_prompts(chosen, prompt, len(painting)))
    made = []
    for index, step in enumerate(chosen.steps):
        kind = _KINDS[step["op"]]
        fields = {**step, **{name: value for name, value in overrides.items() if name in kind.model_fields}}
        if issubclass(kind, Diffusion):
            fields["prompt"] = next(prompts)
            if negative_prompt is not None:
                fields["negative_prompt"] = negative_prompt
        made.append(_pass(chosen, index, fields))
    return tuple(made)


def _check(chosen: Preset, painting: int, overrides: Fields) -> None:
    known = {name for step in chosen.steps for name in _KINDS[step["op"]].model_fields} - {"op"}
    unknown = [name for name in overrides if name not in known]
    if unknown:
        raise InvalidJob(f"preset {chosen.name!r} has no field {unknown[0]!r}; it has {', '.join(sorted(known))}")
    missing = [name for name in chosen.needs if name not in overrides]
    if missing:
        raise InvalidJob(f"preset {chosen.name!r} needs {', '.join(missing)}; give it beside the prompt")
    shared = [name for name in _ONE_FOR_EACH_PASS if name in overrides]
    if shared and painting > 1:
        raise InvalidJob(
            f"preset {chosen.name!r} has {painting} painting passes, which cannot share one {shared[0]}; leave it out, "
            "or write the passes yourself (a seed for the whole job goes into the job)"
        )


def _prompts(chosen: Preset, prompt: str | Sequence[str], painting: int) -> Sequence[str]:
    if isinstance(prompt, str):
        return [prompt] * painting
    if len(prompt) != painting:
        raise InvalidJob(
            f"preset {chosen.name!r} paints {painting} times and was given {len(prompt)} prompts; give one for all, or "
            f"{painting}"
        )
    return prompt


def _pass(chosen: Preset, index: int, fields: Fields) -> Pass:
    try:
        return _PASS.validate_python(fields)
    except ValidationError as error:
        # The first part of a place is the operation, which the union was told apart by.
        raise InvalidJob(
            f"preset {chosen.name!r}, pass {index}: {explain(error, lambda where: '.'.join(map(str, where[1:])))}"
        ) from None
