"""Whether the ledger can be kept in its store, found by doing it."""

from __future__ import annotations

import time
from collections.abc import Iterator
from typing import cast

from overpaint_common.errors import OverpaintError, SettingsError, StorageDenied
from overpaint_common.findings import Finding, fail, from_error, ok, warn
from overpaint_common.references import Reference
from overpaint_common.seeds import new_attempt_id
from overpaint_common.storage import ObjectInfo, ObjectStore, WeakStore, require_conditional_puts

SLOW = 1.0
"""Seconds for one small object beyond which storage is worth a look."""


def check_ledger(store: ObjectStore, root: Reference) -> Iterator[Finding]:
    """Write, read, list and delete one object, and whether the store decides conditional puts.

    What is written is deleted again whatever happens, or named in a finding where it cannot be.
    """
    weak = isinstance(store, WeakStore)
    tidy = _Tidy(store.inner if isinstance(store, WeakStore) else store)
    try:
        found = list(_tried(tidy, root, weak=weak))
    finally:
        tidy.clean()
    yield from found
    yield from _left(tidy.left)


class _Tidy:
    """A store that knows what was put by it; what may not be deleted is remembered, and no error."""

    def __init__(self, store: ObjectStore) -> None:
        self._store = store
        self._written: set[Reference] = set()
        self.left: dict[Reference, OverpaintError] = {}
        """What stays, and why."""

    def __getattr__(self, name: str) -> object:
        return getattr(self._store, name)

    def put(self, reference: Reference, body: bytes, *, content_type: str, if_absent: bool = False) -> ObjectInfo:
        info = self._store.put(reference, body, content_type=content_type, if_absent=if_absent)
        self._written.add(reference)
        return info

    def delete(self, reference: Reference) -> None:
        self._written.discard(reference)
        try:
            self._store.delete(reference)
        except OverpaintError as error:
            self.left[reference] = error

    def clean(self) -> None:
        for reference in list(self._written):
            self.delete(reference)


def _tried(tidy: _Tidy, root: Reference, *, weak: bool) -> Iterator[Finding]:
    store = cast("ObjectStore", tidy)
    probe = root.join("doctor", new_attempt_id())
    try:
        began = time.monotonic()
        store.put(probe, b"content", content_type="text/plain")
    except OverpaintError as error:
        yield from_error("storage", error)
        return  # A conditional put would fare no better.
    try:
        whole = store.read(probe, limit=100) == b"content"
        seconds = (time.monotonic() - began) / 2
        listed = any(info.reference == probe for info in store.list(root.join("doctor")))
    except OverpaintError as error:
        yield from_error("storage", error)
    else:
        store.delete(probe)
        does = "reads, writes and lists" if tidy.left else "reads, writes, lists and deletes"
        yield _kept(whole, listed, seconds, does)
    yield _conditional_put(store, root, weak=weak)


def _kept(whole: bool, listed: bool, seconds: float, does: str) -> Finding:
    if not whole or not listed:
        missing = "what was written cannot be read back" if not whole else "an object just written is not listed"
        return fail("storage", missing, "use a store with strong consistency")
    message = f"{does}; {seconds * 1000:.3g} ms for a small object"
    slow = "move the bucket, or this program, into the same region"
    return ok("storage", message) if seconds < SLOW else warn("storage", message, slow)


def _conditional_put(store: ObjectStore, root: Reference, *, weak: bool) -> Finding:
    check = "conditional put"
    try:
        require_conditional_puts(store, root)
    except SettingsError as error:
        if not weak:
            return from_error(check, error)
        remedy = "use a store that honours If-None-Match: * on PUT, and unset OVERPAINT_WEAK_COMMITS"
        message = "the store decides none; two workers that end one job at the same moment may both record it"
        return warn(check, message, remedy)
    except OverpaintError as error:
        return from_error(check, error)
    if weak:
        remedy = "unset OVERPAINT_WEAK_COMMITS everywhere: it gives up promises that this store can keep"
        return warn(check, "the store decides them, unasked", remedy)
    return ok(check, "a second one for the same key is refused")


def _left(left: dict[Reference, OverpaintError]) -> Iterator[Finding]:
    """What is to be said of objects that stay."""
    if not left:
        return
    check, places = "ledger deletes", " and ".join(map(str, left))
    error = next(iter(left.values()))
    if not isinstance(error, StorageDenied):
        told = from_error(check, error)
        yield told.model_copy(update={"message": f"{told.message}; {places} stayed"})
        return
    remedy = (
        "a producer needs no such right: have them deleted by who has it; workers, keepers and who replays or drops "
        "dead letters need s3:DeleteObject on the ledger"
    )
    yield warn(check, f"nothing may be deleted there, so what this look wrote stays: {places}", remedy)
