"""The record: the one object whose existence means that a job is finished."""

from __future__ import annotations

from typing import Literal

from pydantic import AwareDatetime, Field

from overpaint_common.errors import JobCancelled, JobExpired, JobFailed, OverpaintError
from overpaint_common.frozen import Frozen
from overpaint_common.job import Job, JobId
from overpaint_common.references import ObjectUri

ResultStatus = Literal["succeeded", "failed", "cancelled", "expired"]


class StoredObject(Frozen):
    """A picture that this job wrote."""

    uri: ObjectUri
    sha256: str
    size: int
    """Bytes."""
    width: int
    height: int
    content_type: str
    published: ObjectUri | None = None
    """Where a copy appears right after the record, where the job gave its pictures names; one that the store refuses is
    missing there, and another job that publishes under the same name replaces it."""


class PassRun(Frozen):
    """One pass of one variant as it ran."""

    op: str
    steps: int
    """Of the whole trajectory, as asked."""
    effective_steps: int
    """Denoising steps that ran."""
    start_step: int
    """Index of the first of them within the trajectory."""
    seed: int | None = None
    """None for a pass that draws no noise."""
    model: str | None = None
    """By its name in the registry; None for a pass that needs none."""
    scheduler: str | None = None
    """Its class."""
    passthrough: bool = False
    """Strength 0: the picture went through untouched and no model ran."""
    started_at: AwareDatetime | None = None
    """When the engine took it up."""
    seconds: float = 0
    """On the engine."""
    output: StoredObject | None = None
    """The picture as this pass left it, where the job asked for intermediates."""


class VariantResult(Frozen):
    index: int
    seed: int
    """The job's base seed plus the index."""
    outputs: tuple[StoredObject, ...]
    passes: tuple[PassRun, ...]


class SourceInfo(Frozen):
    """The source as the worker read it."""

    uri: ObjectUri
    etag: str
    sha256: str
    size: int
    """Bytes."""
    width: int
    height: int
    format: str
    mode: str


class ModelInfo(Frozen):
    """What the weights were."""

    name: str
    revision: str
    digest: str
    """sha256 over the names and contents of all weight files."""
    pipeline: str
    scheduler: str
    dtype: str


class WarningNote(Frozen):
    """Something the caller should know although the job went on."""

    code: str
    message: str


class Failure(Frozen):
    """Why a job failed: a code of the one error tree."""

    code: str
    message: str
    retryable: bool
    """Whether the same job could succeed when submitted again later."""

    @classmethod
    def of(cls, error: OverpaintError) -> Failure:
        return cls(code=error.code, message=str(error)[:2000], retryable=error.retryable)


class Result(Frozen):
    """How a job ended and how its pictures were made. Written once, by whoever decided the end."""

    schema_version: Literal[1] = 1
    job_id: JobId
    status: ResultStatus
    attempt: str
    """Random id of the attempt that wrote this; it is part of the keys of what that attempt wrote."""
    attempts: int
    """How many attempts had been started, as far as Redis remembers."""
    job: Job
    """The job as settled."""
    passthrough: bool = False
    """No model touched the pictures."""
    variants: tuple[VariantResult, ...] = ()
    source: SourceInfo | None = None
    model: ModelInfo | None = None
    """The first one that ran; None where none did."""
    models: tuple[ModelInfo, ...] = ()
    """All that ran, in the order of their first pass."""
    reproducible: bool = False
    """The same software on the same device repeats the pictures byte for byte."""
    device: str | None = None
    batch_rows: int | None = None
    """Rows of the largest forward that this job took part in."""
    software: dict[str, str] = Field(default_factory=dict)
    """Library versions."""
    worker: str | None = None
    timings: dict[str, float] = Field(default_factory=dict)
    """Seconds by phase of the attempt that finished: `queued` since acceptance, `fetch`, `decode`, `prepare`, `paint`
    (waiting for the device included; `engine` is the part on it), `encode`, `upload`."""
    warnings: tuple[WarningNote, ...] = ()
    failure: Failure | None = None
    accepted_at: AwareDatetime
    started_at: AwareDatetime | None = None
    finished_at: AwareDatetime

    @property
    def stored(self) -> tuple[StoredObject, ...]:
        """All pictures and intermediates."""
        between = (run.output for variant in self.variants for run in variant.passes if run.output is not None)
        return (*self.outputs, *between)

    @property
    def outputs(self) -> tuple[StoredObject, ...]:
        """All pictures, variant by variant."""
        return tuple(output for variant in self.variants for output in variant.outputs)

    @property
    def published(self) -> tuple[str, ...]:
        """Where the copies of the pictures appear, variant by variant; empty where the job gave them no names."""
        return tuple(output.published for output in self.outputs if output.published is not None)

    def raise_for_status(self) -> Result:
        """Itself if the job succeeded; else raises JobCancelled, JobExpired, or JobFailed with the recorded reason."""
        if self.status == "succeeded":
            return self
        if self.status == "cancelled":
            raise JobCancelled(f"job {self.job_id} was cancelled")
        if self.status == "expired":
            raise JobExpired(f"job {self.job_id} was not done before its deadline {self.job.deadline}")
        reason = f"{self.failure.code}: {self.failure.message}" if self.failure else self.status
        raise JobFailed(f"job {self.job_id} {self.status}: {reason}")
