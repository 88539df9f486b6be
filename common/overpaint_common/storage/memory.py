"""Objects in this process's memory, with the same promises as S3: for tests of whoever uses Overpaint."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from threading import Lock
from typing import BinaryIO
from urllib.parse import quote

from overpaint_common.errors import InvalidReference, ObjectExists, ObjectNotFound, OverpaintError
from overpaint_common.references import Reference
from overpaint_common.storage.checks import check_expires, check_size, require_object, require_two, rewound
from overpaint_common.storage.interface import NewObject, ObjectInfo
from overpaint_common.storage.many import put_each

HOST = "in-memory.invalid"
"""In the URLs that this store signs; RFC 2606 keeps the last part from ever being a real name."""


@dataclass(frozen=True, slots=True)
class _Held:
    info: ObjectInfo
    body: bytes


class MemoryStore:
    """An `ObjectStore` that keeps references of every scheme in memory; safe to share between threads.

    Buckets need not be made. Content types are not kept. Nothing is ever unavailable, denied or full.
    """

    def __init__(self) -> None:
        self._objects: dict[Reference, _Held] = {}
        self._writes = itertools.count(1)
        self._lock = Lock()

    def head(self, reference: Reference) -> ObjectInfo:
        return self._held(reference).info

    def read(self, reference: Reference, *, limit: int) -> bytes:
        held = self._held(reference)
        check_size(reference, held.info.size, limit)
        return held.body

    def download(self, reference: Reference, target: BinaryIO, *, limit: int) -> ObjectInfo:
        """See `ObjectStore.download`. What `target.write` raises passes through unchanged."""
        held = self._held(reference)
        check_size(reference, held.info.size, limit)
        target.write(held.body)
        return held.info

    def put(
        self,
        reference: Reference,
        body: bytes | BinaryIO,
        *,
        content_type: str,  # noqa: ARG002 - there is no place for it
        if_absent: bool = False,
    ) -> ObjectInfo:
        require_object(reference)
        size = rewound(body)
        content = body if isinstance(body, bytes) else body.read()
        with self._lock:
            if if_absent and reference in self._objects:
                raise ObjectExists(f"an object is already at {reference}; read it to learn whose it is")
            held = _Held(ObjectInfo(reference, size, f"{next(self._writes):x}-{size:x}"), content)
            self._objects[reference] = held
        return held.info

    def put_many(self, objects: Sequence[NewObject]) -> list[ObjectInfo | OverpaintError]:
        return put_each(self, objects, threads=1)

    def copy(self, source: Reference, target: Reference) -> ObjectInfo:
        require_two(source, target)
        if source.scheme != target.scheme:
            raise InvalidReference(f"{source} cannot be copied to {target}; name a target in {source.scheme}://")
        return self.put(target, self._held(source).body, content_type="")

    def presign(self, reference: Reference, *, expires: int) -> str:
        """See `ObjectStore.presign`. A URL of the usual form, by which nothing can be read: its host does not exist."""
        require_object(reference)
        check_expires(expires)
        return f"https://{HOST}/{reference.bucket}/{quote(reference.key)}?expires={expires}"

    def delete(self, reference: Reference) -> None:
        require_object(reference)
        with self._lock:
            self._objects.pop(reference, None)

    def list(self, prefix: Reference) -> Iterator[ObjectInfo]:
        """See `ObjectStore.list`. What is listed is what there was at the first step."""
        below = prefix.as_prefix()
        with self._lock:
            found = [held.info for reference, held in self._objects.items() if _lies_below(reference, below)]
        yield from sorted(found, key=lambda info: info.reference.key.encode())

    def _held(self, reference: Reference) -> _Held:
        require_object(reference)
        with self._lock:
            held = self._objects.get(reference)
        if held is None:
            raise ObjectNotFound(f"there is no object at {reference}; put one there, or check the bucket and the key")
        return held


def _lies_below(reference: Reference, prefix: Reference) -> bool:
    place = (prefix.scheme, prefix.bucket)
    return (reference.scheme, reference.bucket) == place and reference.key.startswith(prefix.key)
