"""One store for references of every scheme."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import BinaryIO

from overpaint_common.errors import InvalidReference
from overpaint_common.references import Reference
from overpaint_common.storage.interface import ObjectInfo, ObjectStore


class RoutedStore:
    """An `ObjectStore` that hands each call to the store of the reference's scheme.

    Raises InvalidReference for a scheme that has none.
    """

    def __init__(self, by_scheme: Mapping[str, ObjectStore]) -> None:
        self._by_scheme = dict(by_scheme)

    def head(self, reference: Reference) -> ObjectInfo:
        return self._store_of(reference).head(reference)

    def read(self, reference: Reference, *, limit: int) -> bytes:
        return self._store_of(reference).read(reference, limit=limit)

    def download(self, reference: Reference, target: BinaryIO, *, limit: int) -> ObjectInfo:
        return self._store_of(reference).download(reference, target, limit=limit)

    def put(
        self, reference: Reference, body: bytes | BinaryIO, *, content_type: str, if_absent: bool = False
    ) -> ObjectInfo:
        return self._store_of(reference).put(reference, body, content_type=content_type, if_absent=if_absent)

    def delete(self, reference: Reference) -> None:
        self._store_of(reference).delete(reference)

    def list(self, prefix: Reference) -> Iterator[ObjectInfo]:
        return self._store_of(prefix).list(prefix)

    def _store_of(self, reference: Reference) -> ObjectStore:
        try:
            return self._by_scheme[reference.scheme]
        except KeyError:
            known = ", ".join(self._by_scheme)
            raise InvalidReference(f"{reference}: no store serves {reference.scheme}://; use one of {known}") from None
