"""One attempt at one job: fetch, prepare, paint, encode, upload."""

from __future__ import annotations

import hashlib
import logging
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import partial
from typing import Any, BinaryIO, cast

from PIL import Image

from overpaint_common import failpoints, keys
from overpaint_common.errors import (
    InternalError,
    JobCancelled,
    JobExpired,
    LeaseLost,
    ObjectTooLarge,
    OverpaintError,
    SourceError,
    SourceTooLarge,
    StorageUnavailable,
    UnknownModel,
)
from overpaint_common.fleet import ModelCard, models_of, settle, total_steps
from overpaint_common.job import Job
from overpaint_common.ledger import Request
from overpaint_common.live import Progress
from overpaint_common.naming import published
from overpaint_common.patience import insist
from overpaint_common.references import Reference
from overpaint_common.result import Failure, Result, ResultStatus, SourceInfo, StoredObject, VariantResult, WarningNote
from overpaint_common.storage import ObjectInfo
from overpaint_worker.finishing import EncodedPicture, EncodedVariant, encode_variants, passthrough_variants
from overpaint_worker.holding import Hold
from overpaint_worker.imaging import previews
from overpaint_worker.imaging.alpha import over_background
from overpaint_worker.imaging.decode import Source, decode, decode_straight
from overpaint_worker.imaging.fit import Fitted, fill_named, fit
from overpaint_worker.imaging.placement import Placement
from overpaint_worker.operations.pace import Pace
from overpaint_worker.operations.passes import Outcome, is_passthrough, run_passes
from overpaint_worker.operations.tracker import Tracker
from overpaint_worker.operations.work import Inputs
from overpaint_worker.retry import Decision, decide
from overpaint_worker.runtime import Runtime
from overpaint_worker.stopwatch import Stopwatch

log = logging.getLogger(__name__)

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
    others: Mapping[str, Image.Image]
    """Masks and control pictures by reference."""

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
        self._pace = Pace()

    def run(self) -> Result | Decision:
        """The result to commit, or when to try the job again; raises LeaseLost where another worker holds it."""
        job = self._request.job
        log.info("attempt started job=%s attempt=%s number=%d", job.id, self._id, self._attempts.started)
        self._runtime.reporter.watch(job.id, self._hold.stopped)
        try:
            with errors_named():
                return self._run(Tracker(self._report, self._hold.stopped, pace=self._pace, show=self._show))
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
        job, cards = self._settle()
        self._runtime.access.check_write(keys.job_prefix(job))
        fetched = self._fetch(job)
        if is_passthrough(job):
            with self._watch.phase("encode"):
                encoded, notes = passthrough_variants(job, fetched.data, fetched.source)
            stored = self._upload(job, encoded)
            return self._result(
                job, "succeeded", passthrough=True, variants=stored, source=fetched.describe(), warnings=notes
            )
        card = cards[job.model]
        fitted = self._prepare(job, fetched.source, card.native_size)
        failpoints.hit("decoded")
        self._enter("wait")
        with self._watch.phase("paint"):
            inputs = Inputs(fitted.picture, fitted.placement, fetched.others)
            outcome = run_passes(job, inputs, cards, self._runtime.engine, tracker)
        self._watch.add("engine", outcome.engine_seconds)
        self._enter("encode", self._steps)
        with self._watch.phase("encode"):
            encoded = encode_variants(job, outcome, fetched.source, inputs, self._runtime.software)
        failpoints.hit("encoded")
        stored = self._upload(job, encoded)
        return self._result(
            job,
            "succeeded",
            variants=stored,
            source=fetched.describe(),
            outcome=outcome,
            warnings=(*_notes(fetched.source), *outcome.warnings),
        )

    def _settle(self) -> tuple[Job, Mapping[str, ModelCard]]:
        # A job submitted while no worker was announced arrives with its defaults open.
        cards = self._runtime.cards
        for model in models_of(self._request.job):
            if model not in cards:
                known = ", ".join(cards)
                raise UnknownModel(f"model {model!r} is not in this worker's registry, which has {known}")
        job = settle(self._request.job, cards)
        self._steps = total_steps(job, cards)
        self._enter("fetch")
        return job, cards

    def _fetch(self, job: Job) -> Fetched:
        with self._watch.phase("fetch"):
            data, info = self._download(job.source)
            # A mask may serve several passes.
            wanted = dict.fromkeys(uri for field, uri in job.pictures.items() if field != "source")
            others = {uri: self._download(uri)[0] for uri in wanted}
        failpoints.hit("downloading")
        self._enter("prepare")
        # Should a picture kill the worker, it is to blame.
        self._runtime.reporter.flush(job.id, TELL_PATIENCE)
        with self._watch.phase("decode"):
            limit = self._runtime.settings.max_source_pixels
            return Fetched(
                data,
                info,
                decode(data, max_pixels=limit),
                {uri: _decode_other(uri, other, limit) for uri, other in others.items()},
            )

    def _download(self, uri: str) -> tuple[bytes, ObjectInfo]:
        limit = self._runtime.settings.max_source_bytes
        with tempfile.SpooledTemporaryFile(max_size=SPOOL_BYTES) as file:
            try:
                info = self._runtime.objects.download(Reference.parse(uri), cast(BinaryIO, file), limit=limit)
            except ObjectTooLarge as error:
                raise SourceTooLarge(
                    f"{error}; store a smaller file, or have the operator raise OVERPAINT_MAX_SOURCE_BYTES"
                ) from None
            file.seek(0)
            return file.read(), info

    def _prepare(self, job: Job, source: Source, native_size: int) -> Fitted:
        prepare = job.prepare
        with self._watch.phase("prepare"):
            return fit(
                source.picture, size=prepare.size or native_size, method=prepare.fit, fill=fill_named(prepare.fill)
            )

    def _upload(self, job: Job, encoded: list[EncodedVariant]) -> tuple[VariantResult, ...]:
        self._enter("upload", self._steps)
        with self._watch.phase("upload"):
            stored = tuple(self._store(job, variant) for variant in encoded)
        failpoints.hit("uploaded")
        return stored

    def _store(self, job: Job, variant: EncodedVariant) -> VariantResult:
        runs = list(variant.runs)
        for number, between in enumerate(variant.between):
            stored = self._store_picture(job, keys.picture(job, variant.index, self._id, after_pass=number), between)
            runs[number] = runs[number].model_copy(update={"output": stored})
        output = self._store_picture(job, keys.picture(job, variant.index, self._id), variant.picture)
        name = published(job, variant.index)
        if name is not None:
            output = output.model_copy(update={"published": str(name)})
        failpoints.hit("uploading")
        return VariantResult(
            index=variant.index, seed=job.base_seed + variant.index, outputs=(output,), passes=tuple(runs)
        )

    def _store_picture(self, job: Job, reference: Reference, picture: EncodedPicture) -> StoredObject:
        content_type = f"image/{job.output.format}"
        insist(
            lambda: self._runtime.objects.put(reference, picture.data, content_type=content_type),
            on=StorageUnavailable,
            seconds=UPLOAD_PATIENCE,
            leaving=self._runtime.draining,
        )
        return StoredObject(
            uri=str(reference),
            sha256=hashlib.sha256(picture.data).hexdigest(),
            size=len(picture.data),
            width=picture.width,
            height=picture.height,
            content_type=content_type,
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
        moment = Progress(
            state="running",
            phase=phase,
            step=step,
            steps=self._steps,
            worker=self._runtime.worker.name,
            seconds_left=self._pace.seconds_left(self._steps - step) if phase == "denoise" else None,
        )
        self._runtime.reporter.post(self._request.job.id, moment)

    def _show(self, preview: Image.Image, placement: Placement) -> None:
        self._runtime.reporter.show(self._request.job.id, partial(previews.encoded, preview, placement))

    def _result(self, job: Job, status: ResultStatus, *, outcome: Outcome | None = None, **fields: Any) -> Result:
        queued = (self._started_at - self._request.accepted_at).total_seconds()
        return Result(
            job_id=job.id,
            status=status,
            attempt=self._id,
            attempts=self._attempts.started,
            job=job,
            model=next(iter(outcome.models), None) if outcome else None,
            models=outcome.models if outcome else (),
            reproducible=job.reproducible and outcome is not None,
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


def _decode_other(uri: str, data: bytes, max_pixels: int) -> Image.Image:
    """A mask or control picture over black, so that what is transparent says nothing; raises the SourceError of what is
    wrong with it, naming it."""
    try:
        source, colours = decode_straight(data, max_pixels=max_pixels)
    except SourceError as error:
        raise type(error)(f"{uri}: {error}") from None
    return over_background(colours, source.alpha, (0, 0, 0))


def _notes(source: Source) -> tuple[WarningNote, ...]:
    return tuple(WarningNote(code="source", message=note) for note in source.notes)
