"""Whether a store decides conditional writes itself: every promise of the ledger rests on that."""

from __future__ import annotations

import logging

from overpaint_common.errors import ObjectExists, SettingsError, StorageError
from overpaint_common.references import Reference
from overpaint_common.seeds import new_attempt_id
from overpaint_common.storage.interface import ObjectStore
from overpaint_common.storage.weak import WeakStore

log = logging.getLogger(__name__)

_FIRST, _SECOND = b"first", b"second"

REMEDY = (
    "use a store that honours If-None-Match: * on PUT (AWS S3, a current MinIO), or set OVERPAINT_WEAK_COMMITS=true "
    "wherever OVERPAINT_LEDGER is set, and accept that two workers which end one job at the same moment may both "
    "record it, the later record replacing the first"
)


def require_conditional_puts(store: ObjectStore, root: Reference) -> None:
    """Raises SettingsError unless `store` lets only the first of two conditional puts of one key through.

    Writes one small object below `<root>/probe/`, tries to write it again, reads it and deletes it: four requests.
    Raises what the store does as well: ObjectNotFound where the bucket does not exist, StorageDenied,
    StorageUnavailable. In the weaker mode the same is asked of the `WeakStore`, and a warning logged.
    """
    probe = root.join("probe", new_attempt_id())
    try:
        flaw = _flaw(store, probe)
    finally:
        store.delete(probe)
    if flaw:
        raise SettingsError(f"OVERPAINT_LEDGER: the store of {root} {flaw}; {REMEDY}")
    if isinstance(store, WeakStore):
        log.warning(
            "OVERPAINT_WEAK_COMMITS is set: two workers that end one job at the same moment may both record it; "
            "`overpaint doctor` says whether the store of %s needs that",
            root,
        )


def _flaw(store: ObjectStore, probe: Reference) -> str:
    """What is wrong with the store's conditional puts, or nothing; `probe` is there afterwards."""
    refusal = _refusal(store, probe)
    if refusal is not None:
        return f"takes no conditional writes ({refusal})"
    try:
        store.put(probe, _SECOND, content_type="text/plain", if_absent=True)
    except ObjectExists:
        pass
    else:
        return "ignores the condition of a conditional write, and a second one replaced the first"
    if store.read(probe, limit=len(_SECOND)) != _FIRST:
        return "does not give back what was written first, although it refused to write again"
    return ""


def _refusal(store: ObjectStore, probe: Reference) -> StorageError | None:
    """The error for a conditional put of a new key where a plain one succeeds; None where both do."""
    try:
        store.put(probe, _FIRST, content_type="text/plain", if_absent=True)
    except ObjectExists:
        return None  # A put whose answer was lost is retried below, and the key is random: this is our own object.
    except StorageError as error:
        # What has no kind of its own is the answer to a request that the store does not understand.
        if type(error) is not StorageError:
            raise
        try:
            store.put(probe, _FIRST, content_type="text/plain")
        except StorageError:
            raise error from None
        return error
    return None
