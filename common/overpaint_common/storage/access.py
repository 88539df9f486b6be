"""Which places jobs may read and write: the operator's allowlist, and the ledger that no job ever touches."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

from overpaint_common.errors import ForbiddenReference, OverpaintError, SettingsError
from overpaint_common.references import Reference
from overpaint_common.storage.interface import NewObject, ObjectInfo, ObjectStore


@dataclass(frozen=True, slots=True)
class Access:
    """The prefixes that jobs may read and write; no prefix means nothing is allowed.

    Writing a place gives no right to read it. `file` references are compared by where their symbolic links lead as
    well as by how they are spelled. Raises SettingsError where a prefix and the ledger overlap.
    """

    read: tuple[Reference, ...]
    write: tuple[Reference, ...]
    ledger: Reference

    def __post_init__(self) -> None:
        for setting, prefixes in (("OVERPAINT_READ", self.read), ("OVERPAINT_WRITE", self.write)):
            for prefix in prefixes:
                if _overlap(prefix, self.ledger):
                    raise SettingsError(
                        f"{setting} names {prefix} and OVERPAINT_LEDGER names {self.ledger}, which overlap; "
                        "move one of them, since no job may touch the ledger"
                    )

    def check_read(self, reference: Reference) -> None:
        """Raises ForbiddenReference unless jobs may read `reference`."""
        self._check(reference, "read", self.read, "OVERPAINT_READ")

    def check_write(self, reference: Reference) -> None:
        """Raises ForbiddenReference unless jobs may write or delete `reference`."""
        self._check(reference, "write", self.write, "OVERPAINT_WRITE")

    def check_list(self, prefix: Reference) -> None:
        """Raises ForbiddenReference unless jobs may read or write below `prefix`.

        Either is enough: a listing shows names, and whoever tidies an output place must know what lies in it.
        """
        self._check(prefix, "list", self.read + self.write, "OVERPAINT_READ or OVERPAINT_WRITE")

    def _check(self, reference: Reference, action: str, allowed: tuple[Reference, ...], setting: str) -> None:
        if _within(reference, self.ledger) or _resolved(reference).within(_resolved(self.ledger)):
            raise ForbiddenReference(
                f"jobs may not {action} {reference}: it lies in the ledger {self.ledger}; choose another place"
            )
        if not any(_within(reference, prefix) for prefix in allowed):
            places = ", ".join(map(str, allowed)) or "nothing"
            raise ForbiddenReference(
                f"jobs may not {action} {reference}: allowed is {places}; choose a place there or add one to {setting}"
            )


class GuardedStore:
    """An `ObjectStore` that asks `access` before every call on `store`; each method adds ForbiddenReference.

    A symbolic link planted between the check and the call is not noticed: whoever can write to a local folder by
    other means than this store is trusted.
    """

    def __init__(self, store: ObjectStore, access: Access) -> None:
        self._store = store
        self._access = access

    def head(self, reference: Reference) -> ObjectInfo:
        self._access.check_read(reference)
        return self._store.head(reference)

    def read(self, reference: Reference, *, limit: int) -> bytes:
        self._access.check_read(reference)
        return self._store.read(reference, limit=limit)

    def download(self, reference: Reference, target: BinaryIO, *, limit: int) -> ObjectInfo:
        self._access.check_read(reference)
        return self._store.download(reference, target, limit=limit)

    def put(
        self, reference: Reference, body: bytes | BinaryIO, *, content_type: str, if_absent: bool = False
    ) -> ObjectInfo:
        self._access.check_write(reference)
        return self._store.put(reference, body, content_type=content_type, if_absent=if_absent)

    def put_many(self, objects: Sequence[NewObject]) -> list[ObjectInfo | OverpaintError]:
        """See `ObjectStore.put_many`. Where one is refused, none is written."""
        for each in objects:
            self._access.check_write(each.reference)
        return self._store.put_many(objects)

    def copy(self, source: Reference, target: Reference) -> ObjectInfo:
        """Needs the right to write both: what jobs have written may be copied to where they may write."""
        self._access.check_write(source)
        self._access.check_write(target)
        return self._store.copy(source, target)

    def presign(self, reference: Reference, *, expires: int) -> str:
        self._access.check_read(reference)
        return self._store.presign(reference, expires=expires)

    def delete(self, reference: Reference) -> None:
        self._access.check_write(reference)
        self._store.delete(reference)

    def list(self, prefix: Reference) -> Iterator[ObjectInfo]:
        """Needs the right to read or to write below `prefix`; refused at the call, not at the first step."""
        self._access.check_list(prefix)
        return self._store.list(prefix)


def _within(reference: Reference, prefix: Reference) -> bool:
    return reference.within(prefix) and _resolved(reference).within(_resolved(prefix))


def _overlap(one: Reference, other: Reference) -> bool:
    pairs = ((one, other), (_resolved(one), _resolved(other)))
    return any(a.within(b) or b.within(a) for a, b in pairs)


def _resolved(reference: Reference) -> Reference:
    """Where a `file` reference leads once its links are followed; any other reference unchanged."""
    if reference.scheme != "file":
        return reference
    return Reference.from_path(Path(os.path.realpath(reference.path)))
