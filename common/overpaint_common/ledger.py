"""The durable truth in object storage: accepted jobs, open markers, records."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Literal, TypeVar

from pydantic import AwareDatetime, ValidationError

from overpaint_common import failpoints
from overpaint_common.errors import (
    ForbiddenReference,
    ForbiddenWebhook,
    IdempotencyConflict,
    InvalidReference,
    LedgerUnreadable,
    ObjectExists,
    ObjectNotFound,
    OverpaintError,
    StorageError,
    StorageFull,
    StorageUnavailable,
)
from overpaint_common.frozen import Frozen
from overpaint_common.job import PRIORITIES, Job, JobId, Priority, explain
from overpaint_common.keys import LedgerKeys, job_prefix, result_copy
from overpaint_common.naming import is_picture
from overpaint_common.receivers import redacted
from overpaint_common.references import Reference
from overpaint_common.result import Result
from overpaint_common.storage import NewObject, ObjectInfo, ObjectStore
from overpaint_common.webhooks import PendingWebhook, WebhookEvent

log = logging.getLogger(__name__)

MAX_LEDGER_BYTES = 4 * 1024 * 1024
JSON = "application/json"
_Document = TypeVar("_Document", bound=Frozen)


class Request(Frozen):
    """What `request.json` holds."""

    schema_version: Literal[1] = 1
    job: Job
    """As settled."""
    digest: str
    """Of the body as the caller gave it."""
    accepted_at: AwareDatetime


@dataclass(frozen=True, slots=True)
class Marker:
    """What the key of an open marker says."""

    priority: Priority
    model: str
    job_id: str


@dataclass(frozen=True, slots=True)
class Held:
    """What the ledger holds after one `accept`."""

    request: Request
    created: bool
    """Whether this call was the first to bring the job."""
    record: Result | None
    """There when an earlier submission of the same job has finished already."""


class Ledger:
    """Reads and writes the ledger below `root`. All methods raise StorageUnavailable when the store does not answer."""

    def __init__(self, store: ObjectStore, root: Reference) -> None:
        self._store = store
        self.keys = LedgerKeys(root.as_prefix())

    def accept(self, job: Job, digest: str, now: datetime) -> Held:
        """Write the request, then the marker: from then on the job is accepted.

        The first writer of a request wins and later ones are given what it wrote, so that a submission repeated after
        any failure goes on where the first one stopped. Raises IdempotencyConflict when the stored body differs.
        """
        (outcome,) = self.accept_all([(job, digest)], now)
        if isinstance(outcome, OverpaintError):
            raise outcome
        return outcome

    def accept_all(self, jobs: Sequence[tuple[Job, str]], now: datetime) -> list[Held | OverpaintError]:
        """What `accept` would return or raise for each job and its digest, in their order; written several at once."""
        given = [Request(job=job, digest=digest, accepted_at=now) for job, digest in jobs]
        requests = [NewObject(self.keys.request(each.job.id), _json(each), JSON, if_absent=True) for each in given]
        outcomes = [
            self._held(request, written) for request, written in zip(given, self._store.put_many(requests), strict=True)
        ]
        waiting = [held for held in outcomes if isinstance(held, Held) and held.record is None]
        jobs_of = [held.request.job for held in waiting]
        markers = [NewObject(self.keys.marker(job.priority, job.model, job.id), b"", "text/plain") for job in jobs_of]
        failed = {
            id(held): error
            for held, error in zip(waiting, self._store.put_many(markers), strict=True)
            if isinstance(error, OverpaintError)
        }
        return [failed.get(id(outcome), outcome) for outcome in outcomes]

    def _held(self, given: Request, written: ObjectInfo | OverpaintError) -> Held | OverpaintError:
        """What the ledger holds after the put of a request came to this."""
        if isinstance(written, ObjectInfo):
            return Held(given, created=True, record=None)
        if not isinstance(written, ObjectExists):
            return written
        try:
            request = self.request(given.job.id)
            if request.digest == given.digest:
                return Held(request, created=False, record=self.record(given.job.id))
        except OverpaintError as error:
            return error
        return IdempotencyConflict(
            f"job {given.job.id} was already submitted with another body; use a new idempotency key for a new job, "
            "or submit the very same body again"
        )

    def open_jobs(self) -> Iterator[Marker]:
        """Every job that is not finished, or not tidied up yet."""
        for info in self._store.list(self.keys.open()):
            marker = _marker(info.reference.key.removeprefix(self.keys.open().key))
            if marker is None:
                log.warning("no marker of ours, left alone: %s", info.reference)
            else:
                yield marker

    def holds(self, job_id: JobId, digest: str) -> bool:
        """Whether this very body was accepted before under this id."""
        try:
            return self.request(job_id).digest == digest
        except ObjectNotFound:
            return False

    def request(self, job_id: JobId) -> Request:
        """The accepted job; raises ObjectNotFound if there is none of that id."""
        try:
            return self._read(self.keys.request(job_id), Request)
        except ObjectNotFound:
            raise ObjectNotFound(f"no job {job_id} in the ledger; check the id, and that it has not expired") from None

    def record(self, job_id: JobId) -> Result | None:
        """The record, or None while the job is not finished. Fields that a newer version added are left out."""
        try:
            return self._read(self.keys.record(job_id), Result, newer=True)
        except ObjectNotFound:
            return None

    def commit(self, result: Result) -> Result:
        """Put the record where none exists and return the one that counts: this one, or whoever came first.

        Compare `attempt` to learn which. An answer that was lost, and the 412 that a repeated put earns from its own
        first try, are both resolved by reading the record back. Of a webhook the record names only the receiver.
        """
        result = result.model_copy(update={"job": redacted(result.job)})
        key = self.keys.record(result.job_id)
        try:
            self._put_once(key, result)
            return result
        except ObjectExists:
            return self._read(key, Result, newer=True)
        except StorageUnavailable:
            written = self.record(result.job_id)
            if written is None:
                raise
            return written

    def finish(self, request: Request, record: Result, outputs: ObjectStore) -> None:
        """What follows a commit, in an order that can be repeated from the start after any interruption.

        Publish the pictures of a job that gave them names, copy the record, delete the pictures that it does not name,
        hand over the webhook, delete the marker. The caller then tells the keeper of a webhook (`schedule_webhook`) and
        acknowledges its ticket. An output place that refuses is skipped: the job has ended, and only its owner's copies
        are missing.
        """
        job, copied = request.job, False
        self._publish(job, record, outputs)
        try:
            outputs.put(result_copy(job), _json(record), content_type=JSON)
            copied = True
            self._sweep(job, record, outputs)
            failpoints.hit("copied")
        except StorageUnavailable:
            raise
        except (ForbiddenReference, StorageError) as error:
            log.warning("output place refused job=%s: %s", job.id, error)
        self._hand_over(job, record, str(result_copy(job)) if copied else None)
        failpoints.hit("handed_over")
        self._store.delete(self.keys.marker(job.priority, job.model, job.id))
        failpoints.hit("unmarked")

    def _publish(self, job: Job, record: Result, outputs: ObjectStore) -> None:
        # A ticket may come again after the end, when another job has published under the same names.
        if record.status != "succeeded" or not record.published or not self.is_open(job):
            return
        for output in record.outputs:
            if output.published is not None:
                try:
                    outputs.copy(Reference.parse(output.uri), Reference.parse(output.published))
                except (StorageUnavailable, StorageFull):
                    raise  # The marker stays, and the keeper tries again.
                except (ForbiddenReference, InvalidReference, StorageError) as error:
                    log.warning("picture not published job=%s: %s", job.id, error)
                failpoints.hit("published")

    def is_open(self, job: Job) -> bool:
        """Whether the job's marker is there: it is not finished, or not tidied up yet."""
        try:
            self._store.head(self.keys.marker(job.priority, job.model, job.id))
        except ObjectNotFound:
            return False
        return True

    def _hand_over(self, job: Job, record: Result, copy: str | None) -> None:
        if job.webhook is None or (record.failure and record.failure.code == ForbiddenWebhook.code):
            return
        event = WebhookEvent.of(record, copy)
        with suppress(ObjectExists):  # An earlier, interrupted call was here.
            self._put_once(
                self.keys.webhook(job.id),
                PendingWebhook(webhook=job.webhook, event=event, handed_over_at=datetime.now(UTC)),
            )

    def webhooks(self) -> Iterator[JobId]:
        """Every job whose webhook is handed over and neither delivered nor given up."""
        return (info.reference.name for info in self._store.list(self.keys.root.join("webhooks")))

    def webhook(self, job_id: JobId) -> PendingWebhook | None:
        """The webhook of a job, or None once it is delivered or given up."""
        try:
            return self._read(self.keys.webhook(job_id), PendingWebhook)
        except ObjectNotFound:
            return None

    def keep_webhook(self, pending: PendingWebhook) -> None:
        """Write a webhook that is still to be delivered, in place of what was known of it."""
        self._store.put(self.keys.webhook(pending.event.job_id), _json(pending), content_type=JSON)

    def drop_webhook(self, job_id: JobId) -> None:
        """Forget a webhook that is delivered or given up."""
        self._store.delete(self.keys.webhook(job_id))

    def _sweep(self, job: Job, record: Result, outputs: ObjectStore) -> None:
        prefix = job_prefix(job)
        named = {*(stored.uri for stored in record.stored), *record.published}
        for info in list(outputs.list(prefix)):
            if str(info.reference) not in named and is_picture(info.reference.key.removeprefix(prefix.key)):
                outputs.delete(info.reference)

    def bury(self, kind: str, name: str, body: bytes) -> None:
        """Keep something that could not be accepted."""
        self._store.put(self.keys.dead(kind, name), body, content_type="application/octet-stream")

    def _put_once(self, key: Reference, document: Frozen) -> None:
        self._store.put(key, _json(document), content_type=JSON, if_absent=True)

    def _read(self, key: Reference, kind: type[_Document], *, newer: bool = False) -> _Document:
        data = self._store.read(key, limit=MAX_LEDGER_BYTES)
        try:
            return kind.model_validate_json(data, extra="ignore" if newer else "forbid")
        except ValidationError as error:
            raise LedgerUnreadable(
                f"{key} is not understood: {explain(error)}; a newer version may have written it: upgrade this one"
            ) from None


def _marker(name: str) -> Marker | None:
    parts = name.split("/")
    priority = next((priority for priority in PRIORITIES if priority == parts[0]), None)
    return Marker(priority, parts[1], parts[2]) if priority and len(parts) == 3 else None


def _json(document: Frozen) -> bytes:
    return document.model_dump_json(indent=2, exclude_none=True).encode()
