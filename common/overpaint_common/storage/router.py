"""One store for references of every scheme."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import BinaryIO

from overpaint_common.errors import InvalidReference, OverpaintError
from overpaint_common.references import Reference
from overpaint_common.storage.interface import NewObject, ObjectInfo, ObjectStore


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

    def put_many(self, objects: Sequence[NewObject]) -> list[ObjectInfo | OverpaintError]:
        """See `ObjectStore.put_many`. Where a scheme has no store, InvalidReference is raised and none is written."""
        stores = [self._store_of(each.reference) for each in objects]
        outcomes: list[ObjectInfo | OverpaintError | None] = [None] * len(objects)
        for store in dict.fromkeys(stores):
            places = [place for place, found in enumerate(stores) if found is store]
            written = store.put_many([objects[place] for place in places])
            for place, outcome in zip(places, written, strict=True):
                outcomes[place] = outcome
        return [outcome for outcome in outcomes if outcome is not None]

    def copy(self, source: Reference, target: Reference) -> ObjectInfo:
        store = self._store_of(source)
        if store is not self._store_of(target):
            raise InvalidReference(
                f"{source} cannot be copied to {target}, which is in another kind of store; name a target in "
                f"{source.scheme}://"
            )
        return store.copy(source, target)

    def presign(self, reference: Reference, *, expires: int) -> str:
        return self._store_of(reference).presign(reference, expires=expires)

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
