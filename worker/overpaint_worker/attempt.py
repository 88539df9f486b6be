"""One attempt at one job: fetch, prepare, paint, encode, upload."""

from __future__ import annotations

import hashlib
import logging
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, BinaryIO, cast

from overpaint_common import failpoints, keys
from overpaint_common.errors import (
    InternalError,
    JobCancelled,
    JobExpired,
    LeaseLost,
    ObjectTooLarge,
    OverpaintError,
    SourceTooLarge,
    StorageUnavailable,
    UnknownModel,
)
from overpaint_common.fleet import ModelCard, settle, total_steps
from overpaint_common.job import Job
from overpaint_common.ledger import Request
from overpaint_common.live import Progress
from overpaint_common.patience import insist
from overpaint_common.references import Reference
from overpaint_common.result import Failure, Result, ResultStatus, SourceInfo, StoredObject, VariantResult, WarningNote
from overpaint_common.storage import ObjectInfo
from overpaint_worker.finishing import EncodedVariant, encode_variants, passthrough_variants
from overpaint_worker.holding import Hold
from overpaint_worker.imaging.decode import Source, decode
from overpaint_worker.imaging.fit import Fitted, fit
from overpaint_worker.operations.passes import Outcome, is_passthrough, run_passes
from overpaint_worker.operations.tracker import Tracker
from overpaint_worker.retry import Decision, decide
from overpaint_worker.runtime import Runtime
from overpaint_worker.stopwatch import Stopwatch

log = logging.getLogger(__name__)

FAR_FROM_NATIVE = 2.5
"""Pixel counts beyond this factor of the model's native one, either way, are warned of."""

UPLOAD_PATIENCE = 60.0
"""Seconds to go on trying to store a painted picture before the job is painted again."""

TELL_PATIENCE = 1.0
"""Seconds to wait for Redis to know where a job is, where what happens next depends on it."""

SPOOL_BYTES = 16 * 1024 * 1024
"""A source larger than this waits on disk while it is downloaded."""


@dataclass(frozen=True, slots=True)
class Fetched:
    data: bytes
    info: ObjectInfo
    source: Source

    def describe(self) -> SourceInfo:
        return SourceInfo(
            uri=str(self.info.reference),
            etag=self.info.etag,
            sha256=hashlib.sha256(self.data).hexdigest(),
            size=len(self.data),
            width=self.source.width,
            height=self.source.height,
            format=self.source.format,
            mode=self.source.mode,
        )


class Attempt:
    """One try at one job, under the random id of its lease, which names everything it writes."""

    def __init__(self, runtime: Runtime, request: Request, hold: Hold) -> None:
        self._runtime = runtime
        self._request = request
        self._hold = hold
        self._id = hold.claim.attempt
        self._attempts = hold.claim.attempts
        self._started_at = datetime.now(UTC)
        self._watch = Stopwatch()
        self._steps = 0

    def run(self) -> Result | Decision:
        """The result to commit, or when to try the job again; raises LeaseLost where another worker holds it."""
        job = self._request.job
        log.info("attempt started job=%s attempt=%s number=%d", job.id, self._id, self._attempts.started)
        self._runtime.reporter.watch(job.id, self._hold.stopped)
        try:
            with errors_named():
                return self._run(Tracker(self._report, self._hold.stopped))
        except OverpaintError as error:
            return self._ended_by(self._hold.reason if isinstance(error, JobCancelled) else error)
        finally:
            self._runtime.reporter.forget(job.id)

    def expired(self) -> Result:
        """The end of a job whose deadline had passed before it was begun."""
        return self._result(self._request.job, "expired")

    def _ended_by(self, error: OverpaintError) -> Result | Decision:
        job = self._request.job
        match error:
            case JobCancelled():
                return self._result(job, "cancelled")
            case JobExpired():
                return self._result(job, "expired")
            case LeaseLost():
                raise error
        log.warning("attempt failed job=%s attempt=%s code=%s: %s", job.id, self._id, error.code, error)
        decision = decide(error, self._attempts, job.max_attempts, begun=self._hold.begun)
        return self._result(job, "failed", failure=Failure.of(error)) if decision.give_up else decision

    def _run(self, tracker: Tracker) -> Result:
        job, card = self._settle()
        self._runtime.access.check_write(keys.job_prefix(job))
        fetched = self._fetch(job)
        if is_passthrough(job):
            with self._watch.phase("encode"):
                encoded, notes = passthrough_variants(job, fetched.data, fetched.source)
            stored = self._upload(job, encoded)
            return self._result(
                job, "succeeded", passthrough=True, variants=stored, source=fetched.describe(), warnings=notes
            )
        fitted = self._prepare(job, fetched.source, card.native_size)
        failpoints.hit("decoded")
        self._enter("wait")
        with self._watch.phase("paint"):
            outcome = run_passes(job, fitted.picture, card.steps_rule, self._runtime.engine, tracker)
        self._watch.add("engine", outcome.engine_seconds)
        self._enter("encode", self._steps)
        with self._watch.phase("encode"):
            encoded = encode_variants(job, outcome, fetched.source, fitted.placement, self._runtime.software)
        failpoints.hit("encoded")
        stored = self._upload(job, encoded)
        return self._result(
            job,
            "succeeded",
            variants=stored,
            source=fetched.describe(),
            outcome=outcome,
            warnings=(*_notes(fetched.source), *_far_from_native(fitted, card), *outcome.warnings),
        )

    def _settle(self) -> tuple[Job, ModelCard]:
        # A job submitted while no worker was announced arrives with its defaults open.
        card = self._runtime.cards.get(self._request.job.model)
        if card is None:
            known = ", ".join(self._runtime.cards)
            raise UnknownModel(f"model {self._request.job.model!r} is not in this worker's registry, which has {known}")
        job = settle(self._request.job, card)
        self._steps = total_steps(job, card)
        self._enter("fetch")
        return job, card

    def _fetch(self, job: Job) -> Fetched:
        settings, reference = self._runtime.settings, Reference.parse(job.source)
        with self._watch.phase("fetch"), tempfile.SpooledTemporaryFile(max_size=SPOOL_BYTES) as file:
            try:
                info = self._runtime.objects.download(reference, cast(BinaryIO, file), limit=settings.max_source_bytes)
            except ObjectTooLarge as error:
                raise SourceTooLarge(
                    f"{error}; store a smaller file, or have the operator raise OVERPAINT_MAX_SOURCE_BYTES"
                ) from None
            file.seek(0)
            data = file.read()
        failpoints.hit("downloading")
        self._enter("prepare")
        # Should the source kill the worker, it is to blame.
        self._runtime.reporter.flush(job.id, TELL_PATIENCE)
        with self._watch.phase("decode"):
            return Fetched(data, info, decode(data, max_pixels=settings.max_source_pixels))

    def _prepare(self, job: Job, source: Source, native_size: int) -> Fitted:
        with self._watch.phase("prepare"):
            return fit(source.picture, size=job.prepare.size or native_size, method=job.prepare.fit)

    def _upload(self, job: Job, encoded: list[EncodedVariant]) -> tuple[VariantResult, ...]:
        self._enter("upload", self._steps)
        with self._watch.phase("upload"):
            stored = tuple(self._store(job, variant) for variant in encoded)
        failpoints.hit("uploaded")
        return stored

    def _store(self, job: Job, variant: EncodedVariant) -> VariantResult:
        reference = keys.picture(job, variant.index, self._id)
        content_type = f"image/{job.output.format}"
        insist(
            lambda: self._runtime.objects.put(reference, variant.data, content_type=content_type),
            on=StorageUnavailable,
            seconds=UPLOAD_PATIENCE,
            leaving=self._runtime.draining,
        )
        failpoints.hit("uploading")
        output = StoredObject(
            uri=str(reference),
            sha256=hashlib.sha256(variant.data).hexdigest(),
            size=len(variant.data),
            width=variant.width,
            height=variant.height,
            content_type=content_type,
        )
        return VariantResult(
            index=variant.index, seed=job.base_seed + variant.index, outputs=(output,), passes=variant.runs
        )

    def _enter(self, phase: str, step: int = 0) -> None:
        """Report a new phase, but go no further where the job has to stop."""
        self._hold.check()
        self._report(phase, step)

    def _report(self, phase: str, step: int) -> None:
        if phase == "denoise":
            self._hold.begun = True
            if step:
                failpoints.hit("denoising")
        moment = Progress(state="running", phase=phase, step=step, steps=self._steps, worker=self._runtime.worker.name)
        self._runtime.reporter.post(self._request.job.id, moment)

    def _result(self, job: Job, status: ResultStatus, *, outcome: Outcome | None = None, **fields: Any) -> Result:
        queued = (self._started_at - self._request.accepted_at).total_seconds()
        return Result(
            job_id=job.id,
            status=status,
            attempt=self._id,
            attempts=self._attempts.started,
            job=job,
            model=outcome.model if outcome else None,
            device=self._runtime.worker.device,
            batch_rows=outcome.rows if outcome else None,
            software=self._runtime.software,
            worker=self._runtime.worker.name,
            timings={"queued": queued, **self._watch.seconds()},
            accepted_at=self._request.accepted_at,
            started_at=self._started_at,
            finished_at=datetime.now(UTC),
            **fields,
        )


def _far_from_native(fitted: Fitted, card: ModelCard) -> tuple[WarningNote, ...]:
    width, height = fitted.picture.size
    ratio = width * height / card.native_size**2
    if 1 / FAR_FROM_NATIVE <= ratio <= FAR_FROM_NATIVE:
        return ()
    message = (
        f"the model worked at {width} x {height} pixels and was trained on {card.native_size} x {card.native_size}; "
        "expect worse pictures, or leave prepare.size out"
    )
    return (WarningNote(code="size_far_from_native", message=message),)


@contextmanager
def errors_named() -> Iterator[None]:
    """Turn what nobody foresaw into an InternalError, so that it costs the job attempts and ends in a record."""
    try:
        yield
    except OverpaintError:
        raise
    except Exception as error:
        log.exception("unforeseen error")
        raise InternalError(f"{type(error).__name__}: {error}; this is a bug in Overpaint, please report it") from error


def _notes(source: Source) -> tuple[WarningNote, ...]:
    return tuple(WarningNote(code="source", message=note) for note in source.notes)
