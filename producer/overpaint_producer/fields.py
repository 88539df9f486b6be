"""The keyword arguments of `Producer`'s methods that go into a job, for editors and type checkers.

Each class repeats the names of the fields of a model of the contract, which checks the values and documents them in
full. What a model holds as a tuple may be given as any sequence, what it holds as an object also as a mapping.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any, Literal, TypedDict

from pydantic import HttpUrl

from overpaint_common.job import PictureFormat, Prepare, Priority
from overpaint_common.passes import Control, Lora
from overpaint_common.schedulers import SchedulerName


class OutputFields(TypedDict, total=False):
    """Fields of `Output`."""

    format: PictureFormat
    """"png" unless told otherwise."""
    quality: int
    """1 to 100, for jpeg and webp."""
    name: str | None
    """Publish a copy of each picture under a name made of this template: "{stem}-{variant}.png"."""
    size: Literal["model", "source"]
    """model: as painted, in the source's aspect ratio; source: scaled to the source's exact size."""
    intermediates: bool
    """Store the picture after each pass but the last one too."""
    previews: bool
    """Keep a small picture of the work while the job is painted."""


class JobFields(OutputFields, total=False):
    """Fields of `Job`, and those of `Output`."""

    id: str
    """8 to 64 lower-case letters, digits and dashes; random unless told otherwise."""
    prepare: Prepare | Mapping[str, Any]
    """How the source is fitted to the model."""
    seed: int | None
    """Base seed; None derives one from the job's id."""
    variants: int
    """1 to 16; variant i runs all passes with i added to every seed."""
    priority: Priority
    """"standard" unless told otherwise."""
    deadline: datetime | None
    """With a time zone. Waiting and running together must end by then."""
    max_attempts: int
    """1 to 10."""
    webhook: str | HttpUrl | None
    """A URL that is told of the end."""
    labels: Mapping[str, str]
    """At most 32 of the caller's own; they come back in the record, in listings and in webhooks."""
    reproducible: bool
    """Paint so that the same software on the same device repeats the pictures byte for byte."""


class PaintingFields(JobFields, total=False):
    """Fields that every pass with a model has, and those of the job."""

    negative_prompt: str
    """What the picture should not show."""
    steps: int | None
    """Denoising steps of the whole trajectory; strength decides how many of them run."""
    guidance_scale: float | None
    """How strongly the prompt pulls; 1 and below run without guidance."""
    scheduler: SchedulerName | None
    """None is the model's own."""
    loras: Sequence[Lora | Mapping[str, Any]]


class Img2ImgFields(PaintingFields, total=False):
    """Fields of `Img2Img`, and those of the job."""

    enlarge: float
    """1 to 4: scale the picture by this much first."""
    controls: Sequence[Control | Mapping[str, Any]]


class InpaintFields(PaintingFields, total=False):
    """Fields of `Inpaint`, and those of the job."""

    invert: bool
    """Repaint where the mask is black."""
    threshold: float | None
    """Grey from this share of white on counts as white; None blends by the greys."""
    feather: float
    """Pixels over which the mask's edge fades."""
    only_masked: bool
    """Paint the masked region alone, brought to the model's native size, and lay it back in its place."""
    padding: int
    """With `only_masked`: pixels around the region that the model sees as well."""
