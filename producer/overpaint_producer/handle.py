"""Following one job: waiting, progress, the record, the pictures, cancelling."""

from __future__ import annotations

import io
import logging
import time
from collections.abc import Iterator
from contextlib import suppress
from datetime import UTC, datetime

from PIL import Image

from overpaint_common.errors import (
    BrokerUnavailable,
    NotFinished,
    ObjectNotFound,
    StorageDenied,
    StorageUnavailable,
    WaitTimeout,
)
from overpaint_common.job import Job, JobId
from overpaint_common.ledger import Ledger
from overpaint_common.live import Live, Progress, last_moment
from overpaint_common.patience import insist
from overpaint_common.references import Reference
from overpaint_common.result import Result, StoredObject
from overpaint_common.seeds import new_attempt_id
from overpaint_common.storage import ObjectStore

log = logging.getLogger(__name__)

MAX_PICTURE_BYTES = 1 << 30
PATIENCE = 60.0
"""Seconds that the record of a job that has ended is asked for while storage does not answer."""

URL_SECONDS = 3600
"""How long a URL is good for, unless told otherwise."""

LEDGER_EVERY = 2.0
"""Seconds between two looks at the ledger while waiting: the events of Redis are quicker, but may be lost."""


class JobHandle:
    """One accepted job. Needs only the job's id; the ledger and Redis answer everything else."""

    def __init__(
        self,
        job_id: str,
        ledger: Ledger,
        live: Live,
        store: ObjectStore,
        *,
        not_queued: BrokerUnavailable | None = None,
    ) -> None:
        self.id = job_id
        self.not_queued = not_queued
        """Why the submission that gave this handle could not queue the job; None where it did.

        The job is accepted all the same: the keeper queues it, or submitting it again does.
        """
        self._ledger = ledger
        self._live = live
        self._store = store

    def __repr__(self) -> str:
        return f"JobHandle({self.id!r})"

    def status(self) -> Progress:
        """Where the job is now. While Redis is down or knows nothing, the ledger answers.

        Raises ObjectNotFound if no such job was accepted.
        """
        record = self._ledger.record(self.id)
        if record is not None:
            return last_moment(record)
        try:
            moment = self._live.progress(self.id)
        except BrokerUnavailable:
            moment = None
        if moment is None:
            job = self._ledger.request(self.id).job
            if self._has_ticket(job):
                return Progress(state="queued", detail=self._queued_detail())
            return Progress(
                state="accepted", detail="in the ledger; Redis knows of no ticket, the keeper will queue it"
            )
        match moment.state:
            case "queued":
                return moment.model_copy(update={"detail": self._queued_detail()})
            case "running":
                return moment.model_copy(update={"detail": self._running_detail(moment)})
            case _:
                return moment

    def preview(self) -> bytes | None:
        """A small WebP, at most 64 pixels a side and 8 kB, of where the job's first variant has got to.

        One is there while the job is painted, from a few steps on, where it asked for them with `Output.previews`; the
        earlier, the noisier. None otherwise, and while Redis does not answer.
        """
        try:
            return self._live.preview(self.id)
        except BrokerUnavailable:
            return None

    def progress(self, timeout: float | None = None) -> Iterator[Progress]:
        """Yield every moment of the job as it happens, ending with the final one.

        Steps come within a second of being done, in order; those before the call come first. Raises WaitTimeout after
        `timeout` seconds, but not before it has looked once. While Redis is down the steps are missing, but the end
        still comes, from the ledger; while both are down it goes on asking.
        """
        deadline = float("inf") if timeout is None else time.monotonic() + timeout
        after, looked = "0", float("-inf")
        while True:
            asked = looked > float("-inf")
            if asked and time.monotonic() > deadline:
                raise timed_out(self.id, timeout)
            ended = False
            try:
                after, moments = self._live.events(self.id, after, block=min(1.0, _left(deadline)))
            except BrokerUnavailable:
                moments = []
                time.sleep(min(0.5, _left(deadline)))
            for moment in moments:
                if moment.finished:
                    ended = True
                else:
                    yield moment
            now = time.monotonic()
            late = now >= deadline and not asked
            if ended or late or (not moments and now - looked >= LEDGER_EVERY):
                looked = now
                record = record_if_any(self._ledger, self.id)
                if record is not None:
                    yield last_moment(record)
                    return

    def wait(self, timeout: float | None = None) -> Result:
        """The record, as soon as there is one, whatever the end; raises WaitTimeout as `progress` does."""
        for _ in self.progress(timeout):
            pass
        return insist(self.result, on=StorageUnavailable, seconds=PATIENCE)

    def result(self) -> Result:
        """The record; raises NotFinished while there is none, ObjectNotFound if no such job was accepted."""
        record = self._ledger.record(self.id)
        if record is None:
            self._ledger.request(self.id)
            raise NotFinished(f"job {self.id} is not finished; wait for it, or ask for its status")
        return record

    def pictures(self) -> list[Image.Image]:
        """All pictures, variant by variant; raises JobFailed, JobCancelled or JobExpired where there are none."""
        return [self._open(output) for output in self._succeeded().outputs]

    def intermediates(self) -> list[list[Image.Image]]:
        """For each variant the pictures that its passes made, in their order, without the last one.

        They are there where the job asked for them with `Output.intermediates`; the lists are empty otherwise. Raises
        what `pictures` raises.
        """
        return [
            [self._open(run.output) for run in variant.passes if run.output is not None]
            for variant in self._succeeded().variants
        ]

    def urls(self, expires: int = URL_SECONDS) -> list[str]:
        """A URL for each picture, variant by variant, by which whoever has it can download it without credentials.

        `expires` is in seconds, from 1 to 604800, which is seven days; a URL never outlives the credentials that signed
        it, and those of an instance's or a pod's role are replaced every few hours. It leads to the published copy once
        that is there, else to the picture itself, and names the S3 endpoint as the settings here do. For a local store
        it is a file:// URL, of use on this machine alone.

        Raises what `pictures` raises, StorageError for an `expires` out of range, SettingsError without credentials.
        """
        outputs = self._succeeded().outputs
        return [self._store.presign(self._shown(output), expires=expires) for output in outputs]

    def cancel(self) -> Result:
        """End the job as cancelled, queued or running, and return its record.

        A job that has finished meanwhile stays as it is, and its own record comes back.
        """
        request = self._ledger.request(self.id)
        record = self._ledger.commit(
            Result(
                job_id=self.id,
                status="cancelled",
                attempt=new_attempt_id(),
                attempts=0,
                job=request.job,
                accepted_at=request.accepted_at,
                finished_at=datetime.now(UTC),
            )
        )
        if record.status == "cancelled":
            # The record is the end: whoever takes the ticket finds it, or the keeper where Redis does not know the job.
            with suppress(BrokerUnavailable):
                self._live.end(record)
        return record

    def _has_ticket(self, job: Job) -> bool:
        try:
            return self._live.has_ticket(job.model, job.id)
        except BrokerUnavailable:
            return False

    def _succeeded(self) -> Result:
        return self.result().raise_for_status()

    def _shown(self, stored: StoredObject) -> Reference:
        """The published copy where it is there, which may be a moment after the record or, refused, never."""
        if stored.published is not None:
            name = Reference.parse(stored.published)
            # Without the right to list, S3 says "forbidden" of what is not there.
            with suppress(ObjectNotFound, StorageDenied):
                if self._store.head(name).size == stored.size:
                    return name
        return Reference.parse(stored.uri)

    def _open(self, stored: StoredObject) -> Image.Image:
        picture = Image.open(io.BytesIO(self._store.read(Reference.parse(stored.uri), limit=MAX_PICTURE_BYTES)))
        picture.load()
        return picture

    def _queued_detail(self) -> str:
        try:
            job = self._ledger.request(self.id).job
            served = any(job.model in worker.models for worker in self._live.workers())
        except (BrokerUnavailable, ObjectNotFound):
            return ""
        return "" if served else f"no worker serves model {job.model!r} at the moment"

    def _running_detail(self, moment: Progress) -> str:
        try:
            gone = moment.worker not in {worker.name for worker in self._live.workers()}
        except BrokerUnavailable:
            gone = False
        return f"worker {moment.worker} is silent; another one takes over" if moment.worker and gone else moment.detail


def record_if_any(ledger: Ledger, job_id: JobId) -> Result | None:
    """The record, or None while there is none and while storage does not answer."""
    try:
        return ledger.record(job_id)
    except StorageUnavailable as error:
        log.warning("waiting goes on without the ledger: %s", error)
        return None


def timed_out(job_id: JobId, timeout: float | None) -> WaitTimeout:
    """The error of a caller whose own limit on waiting has passed."""
    return WaitTimeout(f"job {job_id} did not finish within {timeout} s; it goes on: wait again, or cancel it")


def _left(deadline: float) -> float:
    return max(0.0, deadline - time.monotonic())
