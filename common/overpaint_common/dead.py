"""Dead letters: what could not be done, kept in the ledger for a person to look at, to replay or to drop."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Literal, Self, get_args

from pydantic import AwareDatetime, Field, ValidationError

from overpaint_common.errors import InternalError, InvalidReference, ObjectNotFound
from overpaint_common.frozen import Frozen
from overpaint_common.job import Job, JobId
from overpaint_common.keys import LedgerKeys
from overpaint_common.ledger import JSON, Request
from overpaint_common.raw import RawMessage
from overpaint_common.receivers import redacted
from overpaint_common.references import Reference
from overpaint_common.result import Result
from overpaint_common.storage import ObjectInfo, ObjectStore
from overpaint_common.webhooks import DeadWebhook

Kind = Literal["jobs", "submissions", "raw", "webhooks"]
KINDS: tuple[Kind, ...] = get_args(Kind)

MAX_LISTED_BYTES = 4 * 1024 * 1024
"""A letter beyond this is listed by its name and size alone."""

MAX_LETTER_BYTES = 1 << 30
"""Of a letter that is looked at by itself: a message may have been of any size."""

READERS = 16
"""Letters that a listing reads side by side."""


class DeadLetter(Frozen):
    """A job that was given up, after crashes or after all its attempts. Its record says `failed` and stays."""

    schema_version: Literal[1] = 1
    job_id: JobId
    code: str
    """Of the error that ended it."""
    message: str
    attempts: int
    """Tries that were started, as far as Redis remembers."""
    crashes: int = 0
    """Tries that ended with the death of a worker, as far as Redis remembers."""
    worker: str | None = None
    """The last one that had it."""
    died_at: AwareDatetime
    job: Job = Field(repr=False)
    """As settled, its webhook in full: so not to be shown before `redacted`."""

    @classmethod
    def of(cls, request: Request, record: Result, *, crashes: int = 0, worker: str | None = None) -> Self:
        """The letter of a job whose `record` says that it failed; `worker` where the record names none."""
        if record.failure is None:
            raise InternalError(f"job {record.job_id} ended as {record.status}, which is no death; bury failed jobs")
        return cls(
            job_id=record.job_id,
            code=record.failure.code,
            message=record.failure.message,
            attempts=record.attempts,
            crashes=crashes,
            worker=record.worker or worker,
            died_at=record.finished_at,
            job=request.job,
        )


class DeadSubmission(Frozen):
    """An `overpaint.submit` message whose job was refused."""

    id: str
    """Of the message."""
    code: str
    error: str
    body: Any
    """Its only argument, or the list of all of them."""
    received_at: AwareDatetime | None = None


Document = DeadLetter | DeadSubmission | RawMessage | DeadWebhook
_MODELS: Mapping[Kind, type[Document]] = {
    "jobs": DeadLetter,
    "submissions": DeadSubmission,
    "raw": RawMessage,
    "webhooks": DeadWebhook,
}


@dataclass(frozen=True, slots=True)
class Letter:
    """A dead letter as it was read."""

    kind: Kind
    key: str
    """Its name within its kind."""
    document: Document | None
    """None where it is not understood."""
    body: bytes
    """What the ledger holds; empty in a listing where it is too large for one."""
    note: str = ""
    """Why there is no document."""

    @property
    def name(self) -> str:
        """What it is called on the command line."""
        return f"{self.kind}/{self.key}"

    @property
    def when(self) -> datetime | None:
        """When it died, where the letter says so."""
        match self.document:
            case DeadLetter(died_at=when) | DeadWebhook(buried_at=when):
                return when
            case DeadSubmission(received_at=when) | RawMessage(received_at=when):
                return when
            case None:
                return None

    @property
    def code(self) -> str:
        """The reason in a word."""
        match self.document:
            case DeadLetter(code=code) | DeadSubmission(code=code):
                return code
            case RawMessage():
                return "invalid_message"
            case DeadWebhook():
                return "undelivered"
            case None:
                return "unreadable"

    @property
    def summary(self) -> str:
        """The reason in a line; nothing of it is secret."""
        match self.document:
            case DeadLetter(message=message):
                return message
            case DeadSubmission(error=error):
                return error
            case RawMessage(queue=queue, reason=reason, data=data):
                return f"{len(data)} bytes in {queue}: {reason}"
            case DeadWebhook(receiver=receiver, event=event, tries=tries, error=error):
                return f"{event.type} to {receiver}, {tries} tries: {error}"
            case None:
                return self.note

    def shown(self) -> dict[str, Any]:
        """The document for people and programs. Of a job's webhook only the receiver; messages as they came."""
        match self.document:
            case DeadLetter(job=job) as letter:
                document = letter.model_dump(mode="json", exclude={"job"}, exclude_none=True)
                return {**document, "job": redacted(job).model_dump(mode="json", exclude_none=True)}
            case DeadWebhook() as letter:
                return letter.model_dump(mode="json", exclude={"webhook"}, exclude_none=True)
            case RawMessage(data=data) as letter:
                return {**letter.model_dump(mode="json", exclude={"data"}), "bytes": len(data), **_preview(data)}
            case DeadSubmission() as letter:
                return letter.model_dump(mode="json", exclude_none=True)
            case None:
                # What a newer version wrote may hold a webhook's URL anywhere.
                start = _preview(self.body) if self.kind in ("submissions", "raw") else {}
                return {"unreadable": self.note, "bytes": len(self.body), **start}


@dataclass(frozen=True, slots=True)
class Listing:
    """Letters to choose from."""

    letters: tuple[Letter, ...]
    """The newest first; those that tell no time last."""
    left_out: int
    """How many more there are."""


class DeadLetters:
    """Keeps dead letters below `<root>/dead/`. All methods raise StorageUnavailable when the store does not answer."""

    def __init__(self, store: ObjectStore, root: Reference) -> None:
        self._store = store
        self._keys = LedgerKeys(root.as_prefix())

    def bury_job(self, letter: DeadLetter) -> None:
        """Keep a job that was given up; burying it again changes nothing but its letter."""
        self.put("jobs", letter.job_id, letter)

    def put(self, kind: Kind, key: str, document: Document) -> None:
        """Write one letter, in place of an older one of that name."""
        body = document.model_dump_json(indent=2, exclude_none=True).encode()
        self._store.put(self._keys.dead(kind, key), body, content_type=JSON)

    def names(self, kind: Kind | None = None) -> list[str]:
        """All there are, `<kind>/<key>`, kind by kind in the order of their keys."""
        return [f"{found}/{info.reference.name}" for found in _kinds(kind) for info in self._infos(found)]

    def list(self, kind: Kind | None = None, *, limit: int = 1000) -> Listing:
        """The first `limit` letters of each kind in the order of their keys, sorted by time."""
        infos = {one: list(self._infos(one)) for one in _kinds(kind)}
        with ThreadPoolExecutor(READERS) as pool:
            read = [
                pool.submit(self._listed, one, info.reference, info.size)
                for one, found in infos.items()
                for info in found[:limit]
            ]
            letters = [letter for future in read if (letter := future.result()) is not None]
        letters.sort(key=lambda letter: letter.when or datetime.min.replace(tzinfo=UTC), reverse=True)
        return Listing(tuple(letters), sum(max(len(found) - limit, 0) for found in infos.values()))

    def read(self, name: str) -> Letter:
        """One letter; raises InvalidReference for what is no name of one, and ObjectNotFound."""
        kind, key = parted(name)
        try:
            body = self._store.read(self._keys.dead(kind, key), limit=MAX_LETTER_BYTES)
        except ObjectNotFound:
            raise _unknown(name) from None
        return _understood(kind, key, body)

    def check(self, names: Iterable[str]) -> None:
        """Raises InvalidReference or ObjectNotFound for the first of `names` that is no letter's."""
        for name in names:
            try:
                self._store.head(self._keys.dead(*parted(name)))
            except ObjectNotFound:
                raise _unknown(name) from None

    def drop(self, name: str) -> None:
        """Delete one letter; a missing one is no error. Raises InvalidReference for what is no name of one."""
        self._store.delete(self._keys.dead(*parted(name)))

    def _infos(self, kind: Kind) -> Iterator[ObjectInfo]:
        return self._store.list(self._keys.root.join("dead", kind))

    def _listed(self, kind: Kind, reference: Reference, size: int) -> Letter | None:
        if size > MAX_LISTED_BYTES:
            return Letter(kind, reference.name, None, b"", f"{size} bytes, too large for a list; look at it by itself")
        try:
            return _understood(kind, reference.name, self._store.read(reference, limit=MAX_LISTED_BYTES))
        except ObjectNotFound:
            return None  # Dropped meanwhile.


def parted(name: str) -> tuple[Kind, str]:
    """Kind and key of a letter's name; raises InvalidReference."""
    kind, _, key = name.partition("/")
    for known in KINDS:
        if kind == known and key and "/" not in key:
            return known, key
    raise InvalidReference(
        f"{name[:200]!r} names no dead letter; write KIND/NAME as `overpaint dead list` does, KIND one of "
        f"{', '.join(KINDS)}"
    )


def _kinds(kind: Kind | None) -> tuple[Kind, ...]:
    return KINDS if kind is None else (kind,)


def _unknown(name: str) -> ObjectNotFound:
    return ObjectNotFound(f"there is no dead letter {name}; `overpaint dead list` names those there are")


def _understood(kind: Kind, key: str, body: bytes) -> Letter:
    try:
        return Letter(kind, key, _MODELS[kind].model_validate_json(body, extra="ignore"), body)
    except ValidationError as error:
        details = error.errors(include_url=False, include_input=False, include_context=False)
        wrong = ", ".join(f"{'.'.join(map(str, detail['loc'])) or 'letter'}: {detail['msg']}" for detail in details)
        return Letter(kind, key, None, body, f"not understood: {wrong}")


def _preview(data: bytes) -> dict[str, Any]:
    """The start of some bytes: as JSON or text where they are that, else in hex."""
    try:
        text = data.decode()
    except UnicodeDecodeError:
        return {"hex": data[:512].hex(" ", -4)}
    try:
        return {"json": json.loads(text)}
    except (ValueError, RecursionError):
        return {"text": text[:4096]}
