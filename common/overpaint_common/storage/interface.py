"""What Overpaint asks of an object store. `s3.py`, `local.py` and `memory.py` implement it, held to it by the contract
tests."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import BinaryIO, Protocol

from overpaint_common.errors import OverpaintError
from overpaint_common.references import Reference

MAX_EXPIRES = 7 * 24 * 60 * 60
"""Seconds, seven days: the longest that S3's signature version 4 lets a URL be good for."""


@dataclass(frozen=True, slots=True)
class ObjectInfo:
    """What a store says of one object."""

    reference: Reference
    size: int
    """Bytes."""
    etag: str
    """Changes whenever the content does; without quotes."""


@dataclass(frozen=True, slots=True)
class NewObject:
    """A small object to be written with others: what `ObjectStore.put` takes."""

    reference: Reference
    body: bytes
    content_type: str
    if_absent: bool = False


class ObjectStore(Protocol):
    """Objects by reference. Every write is atomic: a reader sees the old object, the new one, or none.

    All methods raise StorageUnavailable when the store is down, too slow or its answer was lost after the store's own
    retries, StorageDenied when it refuses the credentials, and ObjectNotFound where the object or its bucket is
    missing. After StorageUnavailable from a write, whether the write happened is unknown. Methods on one object raise
    InvalidReference for a reference that names a prefix.
    """

    def head(self, reference: Reference) -> ObjectInfo:
        """Size and etag without the content."""

    def read(self, reference: Reference, *, limit: int) -> bytes:
        """The whole content of a small object; raises ObjectTooLarge beyond `limit` bytes."""

    def download(self, reference: Reference, target: BinaryIO, *, limit: int) -> ObjectInfo:
        """Stream the content into `target`; raises ObjectTooLarge beyond `limit` bytes, before reading the rest.

        What arrives is complete and undamaged, or StorageUnavailable is raised; after any error the target may hold
        part of the content.
        """

    def put(
        self, reference: Reference, body: bytes | BinaryIO, *, content_type: str, if_absent: bool = False
    ) -> ObjectInfo:
        """Write one object. A `BinaryIO` must be seekable and is streamed from its start.

        With `if_absent` the write happens only where no object exists, decided by the store: ObjectExists otherwise.
        A put whose first answer was lost may be retried below and then meet its own object, so ObjectExists says only
        that *some* object is there: read it to learn whose. Raises StorageFull when no space is left.
        """

    def put_many(self, objects: Sequence[NewObject]) -> list[ObjectInfo | OverpaintError]:
        """Write each of them as `put` does, several at once; what `put` would return or raise for each, in their order.

        Between two objects for one reference it is open which comes first.
        """

    def copy(self, source: Reference, target: Reference) -> ObjectInfo:
        """Write the content of one object to another, in place of what is there; returns what the target then is.

        The content does not pass through this process where the store can help it. Content types are kept where the
        store has any. Raises InvalidReference where both are the same object or lie in two kinds of store, StorageFull
        when no space is left.
        """

    def presign(self, reference: Reference, *, expires: int) -> str:
        """A URL by which whoever has it may read one object, without credentials, for `expires` seconds.

        From 1 to MAX_EXPIRES; raises StorageError for any other. It is signed here: whether the object is there, and
        whether the credentials that signed may read it, shows when the URL is used.
        """

    def delete(self, reference: Reference) -> None:
        """Remove one object; a missing one is no error."""

    def list(self, prefix: Reference) -> Iterator[ObjectInfo]:
        """All objects below `prefix`, by whole segments, in the order of their keys' UTF-8 bytes."""
