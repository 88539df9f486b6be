"""`if_absent` on top of a store that has no conditional writes: weaker, and only where the operator accepts it."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import BinaryIO

from overpaint_common.errors import ObjectExists, ObjectNotFound, OverpaintError
from overpaint_common.references import Reference
from overpaint_common.storage.interface import NewObject, ObjectInfo, ObjectStore
from overpaint_common.storage.many import put_each

WRITERS = 16
"""Objects of `put_many` that are written at once."""


class WeakStore:
    """An `ObjectStore` that looks before it writes, where `ObjectStore.put` has the store itself decide.

    A put with `if_absent` looks for the object, writes it without any condition, and looks again: it raises
    ObjectExists where an object was there before, or another one is there afterwards. So writers that come one after
    the other see exactly what a conditional put would tell them. Two that write at the very same moment mostly agree on
    the one whose write came last; but where one of them is held up between its look and its write for as long as the
    other needs for all of its own, both believe that they were first, and the later write stays.

    What that does to the ledger: a job may end twice. The later record replaces the earlier one, of which somebody may
    have been told already, and may name pictures that the earlier end has tidied away; such a job is submitted again
    under a new id. Two bodies submitted at once under one idempotency key may both be accepted, and the later one is
    painted. The store must show a write to every reader as soon as it has answered.

    A conditional put costs two more requests here.
    """

    def __init__(self, store: ObjectStore) -> None:
        self.inner = store

    def head(self, reference: Reference) -> ObjectInfo:
        return self.inner.head(reference)

    def read(self, reference: Reference, *, limit: int) -> bytes:
        return self.inner.read(reference, limit=limit)

    def download(self, reference: Reference, target: BinaryIO, *, limit: int) -> ObjectInfo:
        return self.inner.download(reference, target, limit=limit)

    def put(
        self, reference: Reference, body: bytes | BinaryIO, *, content_type: str, if_absent: bool = False
    ) -> ObjectInfo:
        """See `ObjectStore.put`, and above for what `if_absent` is worth here."""
        if if_absent and self._found(reference) is not None:
            raise ObjectExists(f"an object is already at {reference}; read it to learn whose it is")
        written = self.inner.put(reference, body, content_type=content_type)
        if if_absent and self._found(reference) != written:
            raise ObjectExists(f"another object was written to {reference} meanwhile; read it to learn whose it is")
        return written

    def put_many(self, objects: Sequence[NewObject]) -> list[ObjectInfo | OverpaintError]:
        """See `ObjectStore.put_many`, and `put` for what `if_absent` is worth here."""
        return put_each(self, objects, threads=WRITERS)

    def copy(self, source: Reference, target: Reference) -> ObjectInfo:
        return self.inner.copy(source, target)

    def presign(self, reference: Reference, *, expires: int) -> str:
        return self.inner.presign(reference, expires=expires)

    def delete(self, reference: Reference) -> None:
        self.inner.delete(reference)

    def list(self, prefix: Reference) -> Iterator[ObjectInfo]:
        return self.inner.list(prefix)

    def _found(self, reference: Reference) -> ObjectInfo | None:
        try:
            return self.inner.head(reference)
        except ObjectNotFound:
            return None
