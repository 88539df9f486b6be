"""Making jobs of what callers give: pictures as references or paths, passes as objects or plain fields."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ValidationError

from overpaint_common.errors import InvalidJob
from overpaint_common.job import Job, Output, explain
from overpaint_common.passes import Edit, Img2Img, Inpaint, MatchColor, Upscale
from overpaint_common.references import Reference

Place = str | Path
"""A reference, or a path for workers that share this machine's disk."""

PassLike = Img2Img | Inpaint | Upscale | Edit | MatchColor | Mapping[str, Any]
"""A pass, or its fields with `op` among them; pictures may be paths there."""

_OUTPUT_FIELDS = frozenset(Output.model_fields) - {"prefix"}


def reference(place: Place) -> str:
    """A path as a reference; what is a reference already stays."""
    return str(Reference.from_path(place)) if isinstance(place, Path) else place


def compose(
    source: Place, passes: Sequence[PassLike], *, model: str, output: Place | Output, fields: Mapping[str, Any]
) -> Job:
    """One job; `fields` are those of Job and of Output, told apart by their names.

    Raises InvalidJob naming every field that is wrong.
    """
    own = {name: value for name, value in fields.items() if name not in _OUTPUT_FIELDS}
    given = {name: fields[name] for name in _OUTPUT_FIELDS & fields.keys()}
    place = output.model_dump() if isinstance(output, Output) else {"prefix": reference(output)}
    try:
        return Job.model_validate(
            {
                "source": reference(source),
                "model": model,
                "passes": [_spelled(p) for p in passes],
                "output": {**place, **given},
                **own,
            }
        )
    except ValidationError as error:
        raise InvalidJob(explain(error)) from None


def operation(p: PassLike) -> str:
    """The `op` of a pass; `img2img` where its fields name none, which `compose` then refuses."""
    return str(p.get("op", "img2img")) if isinstance(p, Mapping) else p.op


def model_of(p: PassLike) -> str | None:
    """The model that a pass names itself."""
    return p.get("model") if isinstance(p, Mapping) else getattr(p, "model", None)


def on_model(p: PassLike, model: str) -> PassLike:
    """The same pass on a model that it names."""
    return {**p, "model": model} if isinstance(p, Mapping) else p.model_copy(update={"model": model})


def split(kind: type[BaseModel], fields: Mapping[str, Any]) -> tuple[dict[str, Any], dict[str, Any]]:
    """The fields that passes of `kind` have, and the others, which are the job's.

    What both have, `model` and `seed`, is the job's.
    """
    names = kind.model_fields.keys() - {"op", "model", "seed"}
    return (
        {name: value for name, value in fields.items() if name in names},
        {name: value for name, value in fields.items() if name not in names},
    )


def styled(prompt: str, style: str) -> str:
    """What to show and how, in one prompt."""
    return f"{prompt}, {style}" if prompt else style


def refinement(strengths: Sequence[float], prompt: str | Sequence[str], shared: Mapping[str, Any]) -> list[PassLike]:
    """One pass for each strength, with the fields of `shared` and one prompt for all of them, or one for each.

    Raises InvalidJob where there are neither one prompt nor as many as strengths, or no strength at all.
    """
    prompts = [prompt] * len(strengths) if isinstance(prompt, str) else list(prompt)
    if not strengths or len(prompts) != len(strengths):
        raise InvalidJob(
            f"{len(strengths)} strengths and {len(prompts)} prompts; give a strength for each pass, and one prompt for "
            "all of them or one for each"
        )
    return [{**shared, "prompt": text, "strength": each} for text, each in zip(prompts, strengths, strict=True)]


def _spelled(value: Any) -> Any:
    match value:
        case Path():
            return reference(value)
        case Mapping():
            return {name: _spelled(each) for name, each in value.items()}
        case list() | tuple():
            return [_spelled(each) for each in value]
        case _:
            return value
