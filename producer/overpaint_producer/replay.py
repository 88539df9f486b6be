"""Repeating a chain from its record, and saying whether it gave the same pictures."""

from __future__ import annotations

import hashlib
import io
from collections.abc import Iterator
from typing import Literal

from PIL import Image, ImageChops, ImageStat
from pydantic import ValidationError

from overpaint_common.errors import InvalidJob, InvalidReference, StorageUnavailable
from overpaint_common.frozen import Frozen
from overpaint_common.job import MAX_JOB_BYTES, Job, JobId, explain
from overpaint_common.references import Reference
from overpaint_common.result import PassRun, Result, StoredObject
from overpaint_common.seeds import new_job_id
from overpaint_common.storage import ObjectStore

TOLERANCE = 4
"""Largest difference of an 8-bit value that counts as the same picture, where other software or another device made it.

Half precision, other kernels and other batches change the last bits of a float; in PNG that is a level or two.
"""

LOSSY_TOLERANCE = 24
"""The same for JPEG and WebP, whose coding makes a difference of one level in the painting several."""

MAX_LABELS = 32
_EIGHT_BITS = ("L", "LA", "RGB", "RGBA", "CMYK")
MAX_RECORD_BYTES = 16 * MAX_JOB_BYTES

Verdict = Literal["identical", "close", "different", "failed"]


class Compared(Frozen):
    """One picture of the record beside the same picture of the replay."""

    variant: int
    after_pass: int | None
    """The pass that made it, for an intermediate; None for the last picture."""
    before: str
    after: str
    """References of both."""
    same_file: bool
    """Equal sha256. Files name their jobs in their metadata, so those of two jobs differ where a model painted."""
    identical: bool
    """Equal size and channels, and the pixels byte for byte."""
    max_difference: int | None
    """Largest absolute difference of an 8-bit value; None where sizes or channels differ, or have other depths."""
    mean_difference: float | None
    """Mean absolute difference over pixels and channels, 0 to 255."""


class Replay(Frozen):
    """What a replay found."""

    job_id: JobId
    """The job that was replayed."""
    replay_id: JobId
    """The job that repeated it."""
    verdict: Verdict
    """identical: every pixel; close: within the tolerance; different: beyond it, or the chain itself was another;
    failed: the replay made no pictures."""
    promised: bool
    """The record says reproducible, and software and device are the same: then nothing but identical will do."""
    tolerance: int
    chain: tuple[str, ...] = ()
    """Where the two records disagree on what ran: seeds, steps, models, the source."""
    surroundings: tuple[str, ...] = ()
    """Where software and device differ; they may explain a difference."""
    pictures: tuple[Compared, ...] = ()

    @property
    def held(self) -> bool:
        """Whether the record held what it says."""
        if self.promised:
            return self.verdict == "identical"
        return self.verdict in ("identical", "close")


def read_record(body: bytes, where: str) -> Result:
    """A record from its JSON; raises InvalidJob for one that is none."""
    try:
        return Result.model_validate_json(body)
    except ValidationError as error:
        raise InvalidJob(f"{where} is no record of a job: {explain(error)}") from None


def repeated(record: Result, *, output: str | None = None) -> Job:
    """The job of a record under a new id, with every seed as recorded; `output` is another prefix for its pictures.

    Its deadline, which has passed, its webhook, which has been told, and its published names, under which the job's own
    pictures are, are left out. The label `replay-of` names the job, where there is room for one more label. Raises
    InvalidJob where there is nothing to repeat, and InvalidReference for an output that is none.
    """
    job = record.job
    if record.status != "succeeded":
        raise InvalidJob(
            f"job {record.job_id} {record.status}: it made no pictures that a replay could be held against"
        )
    labels = job.labels if len(job.labels) >= MAX_LABELS else {**job.labels, "replay-of": record.job_id}
    place = {"name": None} if output is None else {"name": None, "prefix": _prefix(output)}
    return job.model_copy(
        update={
            "id": new_job_id(),
            "deadline": None,
            "webhook": None,
            "labels": labels,
            "output": job.output.model_copy(update=place),
        }
    )


def check_pictures(store: ObjectStore, record: Result) -> None:
    """See that the pictures are there and are those that the record describes, before it is repeated in vain.

    Raises ObjectNotFound for one that is gone, StorageUnavailable for one whose hash is not the record's.
    """
    for stored in record.stored:
        _read(store, stored)


def compare(store: ObjectStore, before: Result, after: Result, tolerance: int | None = None) -> Replay:
    """Hold a replay's record and pictures against those of the record.

    Pictures are compared by their pixels, exactly: the files hold the job's id in their metadata. `tolerance` is the
    largest difference of an 8-bit value that counts as close; None is TOLERANCE, or LOSSY_TOLERANCE for JPEG and WebP.
    Raises ObjectNotFound for a picture that is gone, StorageUnavailable for one that its record does not describe.
    """
    if tolerance is None:
        tolerance = TOLERANCE if before.job.output.format == "png" else LOSSY_TOLERANCE
    surroundings = tuple(_surroundings(before, after))
    chain = tuple(_chain(before, after))
    pictures = tuple(_pictures(store, before, after))
    differences = [compared.max_difference for compared in pictures]
    verdict: Verdict
    if after.status != "succeeded":
        verdict = "failed"
    elif chain or any(difference is None or difference > tolerance for difference in differences):
        verdict = "different"
    else:
        verdict = "identical" if all(compared.identical for compared in pictures) else "close"
    return Replay(
        job_id=before.job_id,
        replay_id=after.job_id,
        verdict=verdict,
        promised=before.reproducible and not surroundings,
        tolerance=tolerance,
        chain=chain,
        surroundings=surroundings,
        pictures=pictures,
    )


def _prefix(output: str) -> str:
    reference = Reference.parse(output)
    if not reference.key:
        raise InvalidReference(f"{output!r} names no folder; write s3://bucket/folder/ or a path")
    return str(reference.as_prefix())


def _surroundings(before: Result, after: Result) -> Iterator[str]:
    if before.device != after.device:
        yield f"device: {before.device} then, {after.device} now"
    for name in sorted(before.software.keys() | after.software.keys()):
        then, now = before.software.get(name, "none"), after.software.get(name, "none")
        if then != now:
            yield f"{name}: {then} then, {now} now"


def _chain(before: Result, after: Result) -> Iterator[str]:
    if after.status != "succeeded":
        reason = f"{after.failure.code}: {after.failure.message}" if after.failure else "no reason recorded"
        yield f"the replay {after.status}: {reason}"
        return
    if before.source is not None and after.source is not None and before.source.sha256 != after.source.sha256:
        yield f"source: sha256 {before.source.sha256} then, {after.source.sha256} now; somebody replaced it"
    digests = {model.name: model for model in after.models}
    for model in before.models:
        now = digests.get(model.name)
        for name in ("digest", "revision", "pipeline", "scheduler", "dtype"):
            was, became = getattr(model, name), getattr(now, name, "none")
            if was != became:
                yield f"model {model.name}: {name} {was} then, {became} now"
    if len(before.variants) != len(after.variants):
        yield f"variants: {len(before.variants)} then, {len(after.variants)} now"
    for one, other in zip(before.variants, after.variants, strict=False):
        if one.seed != other.seed:
            yield f"variant {one.index}: seed {one.seed} then, {other.seed} now"
        if len(one.passes) != len(other.passes):
            yield f"variant {one.index}: {len(one.passes)} passes then, {len(other.passes)} now"
        for index, (was_run, run) in enumerate(zip(one.passes, other.passes, strict=False)):
            yield from _run(f"variant {one.index}, pass {index}", was_run, run)


def _run(where: str, before: PassRun, after: PassRun) -> Iterator[str]:
    for name in ("op", "model", "scheduler", "seed", "steps", "effective_steps", "start_step", "passthrough"):
        was, became = getattr(before, name), getattr(after, name)
        if was != became:
            yield f"{where}: {name.replace('_', ' ')} {was} then, {became} now"


def _pictures(store: ObjectStore, before: Result, after: Result) -> Iterator[Compared]:
    for one, other in zip(before.variants, after.variants, strict=False):
        for index, (was, run) in enumerate(zip(one.passes, other.passes, strict=False)):
            if was.output is not None and run.output is not None:
                yield _compared(store, one.index, index, was.output, run.output)
        for last, its in zip(one.outputs, other.outputs, strict=False):
            yield _compared(store, one.index, None, last, its)


def _compared(
    store: ObjectStore, variant: int, after_pass: int | None, before: StoredObject, after: StoredObject
) -> Compared:
    one, other = _open(store, before), _open(store, after)
    alike = one.size == other.size and one.mode == other.mode
    identical = alike and one.tobytes() == other.tobytes()
    largest, mean = _difference(one, other) if alike and one.mode in _EIGHT_BITS else (None, None)
    return Compared(
        variant=variant,
        after_pass=after_pass,
        before=before.uri,
        after=after.uri,
        same_file=before.sha256 == after.sha256,
        identical=identical,
        max_difference=0 if identical else largest,
        mean_difference=0.0 if identical else mean,
    )


def _difference(one: Image.Image, other: Image.Image) -> tuple[int, float]:
    """The largest and the mean absolute difference over pixels and channels, 0 to 255."""
    stat = ImageStat.Stat(ImageChops.difference(one, other))
    return int(max(high for _, high in stat.extrema)), sum(stat.mean) / len(stat.mean)


def _open(store: ObjectStore, stored: StoredObject) -> Image.Image:
    """The picture; one with a palette, which a source that went through untouched may have, in its colours."""
    picture = Image.open(io.BytesIO(_read(store, stored)))
    picture.load()
    return picture.convert("RGBA") if picture.mode == "P" else picture


def _read(store: ObjectStore, stored: StoredObject) -> bytes:
    body = store.read(Reference.parse(stored.uri), limit=stored.size)
    digest = hashlib.sha256(body).hexdigest()
    if digest != stored.sha256:
        raise StorageUnavailable(
            f"{stored.uri} has sha256 {digest}, its record says {stored.sha256}; somebody replaced or damaged it"
        )
    return body
