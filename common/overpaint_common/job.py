"""The job: one source picture, one or more passes, one or more variants, one output place."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from typing import Annotated, Literal, Self

from pydantic import AfterValidator, AwareDatetime, Field, HttpUrl, ValidationError, model_validator
from pydantic_core import ErrorDetails

from overpaint_common.errors import InvalidJob
from overpaint_common.frozen import Frozen
from overpaint_common.naming import MAX_TEMPLATE, check_published, check_template
from overpaint_common.passes import OPERATIONS, Img2Img, Inpaint, Pass, Seed
from overpaint_common.references import ObjectUri, PrefixUri, Reference
from overpaint_common.seeds import new_job_id, seed_of_job

MAX_PASSES = 16
MAX_VARIANTS = 16
MAX_PREFIX_BYTES = 900
"""Of an output's prefix; S3 takes keys of 1024 bytes, job ids and the names of pictures included."""
MAX_JOB_BYTES = 256 * 1024
"""A job's JSON beyond this is refused before it is parsed."""

JobId = Annotated[str, Field(pattern=r"^[a-z0-9][a-z0-9-]{7,63}$")]
ModelName = Annotated[str, Field(pattern=r"^[a-z0-9][a-z0-9._-]{0,63}$")]
Label = Annotated[str, Field(max_length=256)]
LabelName = Annotated[str, Field(pattern=r"^[a-zA-Z0-9][a-zA-Z0-9._/-]{0,62}$")]
Priority = Literal["interactive", "standard", "bulk"]
PictureFormat = Literal["png", "jpeg", "webp"]

PRIORITIES: tuple[Priority, ...] = ("interactive", "standard", "bulk")
"""From the most urgent to the least."""


Colour = Annotated[str, Field(pattern=r"^#[0-9a-f]{6}$")]


class Prepare(Frozen):
    """How the source is fitted to the model before the first pass."""

    fit: Literal["pad", "crop", "stretch", "bucket", "keep"] = "pad"
    """pad: the whole source, padding undone afterwards; crop: the middle; stretch: aspect ratio lost;
    bucket: the native area in the source's aspect ratio; keep: the source's own size."""
    size: Annotated[int, Field(ge=8, le=8192)] | None = None
    """Side in pixels to fit to; None is the model's native size."""
    fill: Literal["edge", "reflect"] | Colour = "edge"
    """What lies beside a padded picture: its border pixels going on, its mirror image, or a colour such as #000000."""


def _roomy(prefix: str) -> str:
    size = len(Reference.parse(prefix).key.encode())
    if size > MAX_PREFIX_BYTES:
        raise ValueError(f"{size} bytes long; keep it to {MAX_PREFIX_BYTES}, so that the pictures' names fit behind it")
    return prefix


class Output(Frozen):
    """Where the pictures go and in which format."""

    prefix: Annotated[PrefixUri, AfterValidator(_roomy)]
    """Pictures are written to `<prefix><job id>/<variant>-<attempt>.<format>`."""
    format: PictureFormat = "png"
    quality: Annotated[int, Field(ge=1, le=100)] = 90
    """For jpeg and webp."""
    name: Annotated[str, Field(min_length=1, max_length=MAX_TEMPLATE)] | None = None
    """Publish a copy of each picture, once the job has succeeded, under a name below the prefix made of this template:
    `{stem}-{variant}.png`. Its fields are `{stem}` (the source's name without extension), `{variant}`, `{seed}`,
    `{id}`, `{model}`, `{format}` and `{label:NAME}`; slashes make folders. Of two jobs that publish under one name the
    one that finishes later replaces the other's copy, which `{id}` in the name avoids."""
    size: Literal["model", "source"] = "model"
    """model: as painted, in the source's aspect ratio; source: scaled to the source's exact size (after crop, to that
    of the part that was kept), where what no pass touched is the source's own pixels."""
    intermediates: bool = False
    """Store the picture after each pass but the last one too."""
    previews: bool = False
    """While the job is painted, keep a small picture of where its first variant has got to; it is gone at the end."""

    @model_validator(mode="after")
    def _named_as_its_format(self) -> Self:
        if self.name is not None:
            check_template(self.name, self.format)
        return self


class Job(Frozen):
    """A unit of work, of cancelling and of retrying. Everything left `None` is settled at submission."""

    schema_version: Literal[1] = 1
    id: JobId = Field(default_factory=new_job_id)
    source: ObjectUri
    model: ModelName
    """A name of the worker's registry, never a repository."""
    passes: Annotated[tuple[Pass, ...], Field(min_length=1, max_length=MAX_PASSES)]
    """Run in order; each takes the picture that the one before it made."""
    prepare: Prepare = Prepare()
    seed: Seed | None = None
    """Base seed; None derives one from the job's id, so that a retry repaints the same picture."""
    variants: Annotated[int, Field(ge=1, le=MAX_VARIANTS)] = 1
    """Variant i runs all passes with i added to every seed."""
    output: Output
    priority: Priority = "standard"
    deadline: AwareDatetime | None = None
    """Waiting and running together must end by then."""
    max_attempts: Annotated[int, Field(ge=1, le=10)] = 3
    webhook: HttpUrl | None = None
    labels: Annotated[dict[LabelName, Label], Field(max_length=32)] = Field(default_factory=dict)
    reproducible: bool = False
    """Paint so that the same software on the same device repeats the pictures byte for byte, which may be slower."""

    @model_validator(mode="after")
    def _published_apart(self) -> Self:
        check_published(self)
        return self

    @classmethod
    def parse(cls, body: bytes | str) -> Self:
        """Read a job from JSON; raises InvalidJob naming every field that is wrong."""
        if isinstance(body, str):
            try:
                body = body.encode()
            except UnicodeEncodeError as error:
                raise InvalidJob(f"the job holds half a character at position {error.start}; remove it") from None
        _check_size(len(body))
        try:
            return cls.model_validate_json(body)
        except ValidationError as error:
            raise InvalidJob(explain(error)) from None

    def check_size(self) -> None:
        """Raises InvalidJob for a job whose JSON is too large to be passed around."""
        _check_size(len(self.model_dump_json().encode()))

    def digest(self) -> str:
        """Hex sha256 of the body as the caller gave it, the id left out.

        Fields at their defaults are left out too, so that a field added later changes no digest.
        """
        body = self.model_dump(mode="json", exclude={"id"}, exclude_defaults=True)
        body["passes"] = [{**given, "op": p.op} for given, p in zip(body["passes"], self.passes, strict=True)]
        return hashlib.sha256(json.dumps(body, sort_keys=True, ensure_ascii=False).encode()).hexdigest()

    @property
    def pictures(self) -> dict[str, ObjectUri]:
        """Everything that the job reads, by the field that names it: the source, masks and control pictures."""
        found = {"source": self.source}
        for index, p in enumerate(self.passes):
            if isinstance(p, Inpaint):
                found[f"passes.{index}.mask"] = p.mask
            if isinstance(p, Img2Img):
                given = {f"passes.{index}.controls.{i}.image": control.image for i, control in enumerate(p.controls)}
                found |= {field: uri for field, uri in given.items() if uri is not None}
        return found

    @property
    def base_seed(self) -> int:
        return seed_of_job(self.id) if self.seed is None else self.seed


def _check_size(size: int) -> None:
    if size > MAX_JOB_BYTES:
        raise InvalidJob(f"the job is {size} bytes of JSON; the limit is {MAX_JOB_BYTES}: shorten its prompts")


SECRET_FIELDS = frozenset({"webhook", "redis_url", "submit_secret", "webhook_secret"})
"""Fields whose values are never repeated in a message: they may hold passwords and tokens."""

Location = tuple[int | str, ...]
"""Where a field is: names, and places in lists."""


def _dotted(where: Location) -> str:
    return ".".join(map(str, where)) or "job"


def explain(error: ValidationError, name: Callable[[Location], str] = _dotted) -> str:
    """What is wrong with each field, on one line: where, what is wanted, what was given. `name` spells the where."""
    details = error.errors(include_url=False)
    return "; ".join(f"{name(detail['loc'])}: {_wrong(detail)}" for detail in details if not _echo(detail, details))


def _wrong(detail: ErrorDetails) -> str:
    match detail["type"]:
        case "missing":
            return "required"
        case "extra_forbidden":
            return "unknown field; remove it or check its spelling"
        case "union_tag_not_found":
            return f"names no op; give one of {', '.join(OPERATIONS)}"
        case "union_tag_invalid":
            return f"op {_shortened(detail['ctx']['tag'])} is none of {', '.join(OPERATIONS)}"
        case "value_error":
            return detail["msg"].removeprefix("Value error, ")
    secret = SECRET_FIELDS & set(detail["loc"])
    return detail["msg"] if secret else f"{detail['msg']} (given: {_shortened(detail['input'])})"


def _echo(detail: ErrorDetails, details: list[ErrorDetails]) -> bool:
    """Whether a list is called too short only because pydantic leaves its wrong items out."""
    where = detail["loc"]
    inside = (other for other in details if other["loc"][: len(where)] == where != other["loc"])
    return detail["type"] == "too_short" and any(inside)


def _shortened(given: object) -> str:
    text = repr(given)
    return text if len(text) <= 80 else f"{text[:60]}... ({len(text)} characters)"
