"""Published names: what a template such as `{stem}-{variant}.png` may hold, and the names that come of it."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import PurePosixPath
from string import Formatter
from typing import TYPE_CHECKING

from overpaint_common.references import Reference

if TYPE_CHECKING:
    from overpaint_common.job import Job

MAX_TEMPLATE = 512
"""Characters."""

ENDINGS: Mapping[str, tuple[str, ...]] = {
    "png": (".png", ".{format}"),
    "jpeg": (".jpg", ".jpeg", ".{format}"),
    "webp": (".webp", ".{format}"),
}
"""How a template may end, by the format of the pictures."""

FIELDS: Mapping[str, Callable[[Job, int], str]] = {
    "stem": lambda job, _: PurePosixPath(Reference.parse(job.source).name).stem,
    "variant": lambda _, variant: str(variant),
    "id": lambda job, _: job.id,
    "seed": lambda job, variant: str(job.base_seed + variant),
    "model": lambda job, _: job.model,
    "format": lambda job, _: job.output.format,
}
"""What may stand between braces besides `{label:NAME}`, of a job and the number of a variant.

`stem` is the source's name without its last extension, `seed` the variant's own.
"""

_LABEL = "label"
_LABEL_NAME = re.compile(r"[a-zA-Z0-9][a-zA-Z0-9._/-]{0,62}")
_KNOWN = ", ".join(f"{{{name}}}" for name in (*FIELDS, f"{_LABEL}:NAME"))
_PICTURE = re.compile(r"\d+(-pass\d+)?-[0-9a-f]{12}\.(png|jpeg|webp)")


@dataclass(frozen=True, slots=True)
class _Field:
    name: str
    label: str = ""


def is_picture(name: str) -> bool:
    """Whether `name`, relative to a job's prefix, is one that `keys.picture` gives; its owner may keep others there."""
    return _PICTURE.fullmatch(name) is not None


def check_template(template: str, format: str) -> str:
    """Itself; raises ValueError where no names can be made of it, or only names of another format's pictures."""
    for _ in _parts(template):
        pass
    if not template.lower().endswith(ENDINGS[format]):
        endings = " or ".join(ENDINGS[format])
        raise ValueError(f"name {_shown(template)} does not end as a {format} picture does; end it in {endings}")
    return template


def check_published(job: Job) -> None:
    """Raises ValueError unless each picture of a job that publishes gets a name of its own, and one to be had.

    A name may replace neither what the job reads nor a picture that some job has stored under its own attempt.
    """
    if job.output.name is None:
        return
    names = [published(job, variant) for variant in range(job.variants)]
    if len(set(names)) < job.variants:
        raise ValueError(
            f"name {_shown(job.output.name)} is the same for all {job.variants} variants; put {{variant}} into it"
        )
    read = {Reference.parse(uri): field for field, uri in job.pictures.items()}
    for name in names:
        if name in read:
            raise ValueError(f"name {_shown(job.output.name)}: {name} is the job's {read[name]}; choose another name")
        if name is not None and is_picture(name.name):
            raise ValueError(
                f"name {_shown(job.output.name)}: {name} looks like a picture as workers store it; choose another name"
            )


def published(job: Job, variant: int) -> Reference | None:
    """Where a variant's picture is published; None where the job names no place.

    Raises ValueError for a label that the job lacks, InvalidReference for what makes no key: empty and `..` segments,
    control characters, more than 1024 bytes.
    """
    template = job.output.name
    if template is None:
        return None
    name = "".join(part if isinstance(part, str) else _value(part, job, variant) for part in _parts(template))
    return Reference.parse(job.output.prefix).join(name)


def _value(field: _Field, job: Job, variant: int) -> str:
    if field.name != _LABEL:
        return FIELDS[field.name](job, variant)
    if field.label not in job.labels:
        raise ValueError(f"name {_shown(job.output.name or '')}: the job has no label {field.label!r}; give it one")
    return job.labels[field.label]


def _parts(template: str) -> Iterator[str | _Field]:
    """Text and fields in their order. Nothing in a template is evaluated: it comes from whoever sends jobs."""
    try:
        parsed = list(Formatter().parse(template))
    except ValueError as error:
        raise ValueError(f"name {_shown(template)}: {error}; write {{stem}}, and a brace itself twice") from None
    for text, name, spec, conversion in parsed:
        if text:
            yield text
        if name is not None:
            yield _field(template, name, spec or "", conversion)


def _field(template: str, name: str, spec: str, conversion: str | None) -> _Field:
    if conversion is None and name == _LABEL and _LABEL_NAME.fullmatch(spec):
        return _Field(name, spec)
    if conversion is None and name in FIELDS and not spec:
        return _Field(name)
    written = name + (f"!{conversion}" if conversion else "") + (f":{spec}" if spec else "")
    shown = repr(written[:60])[1:-1]  # Without what steers a terminal; braces are its quotes.
    raise ValueError(f"name {_shown(template)}: {{{shown}}} is no field; there are {_KNOWN}")


def _shown(text: str) -> str:
    return repr(text) if len(text) <= 80 else f"{text[:60]!r}... ({len(text)} characters)"
