"""How long the ledger is kept, and whether what jobs may touch can be touched, found by doing it."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import suppress
from typing import TYPE_CHECKING

from botocore.exceptions import ClientError

from overpaint_common.errors import (
    InvalidReference,
    ObjectNotFound,
    ObjectTooLarge,
    OverpaintError,
    SettingsError,
    StorageDenied,
)
from overpaint_common.findings import Finding, fail, from_error, ok, warn
from overpaint_common.references import Reference
from overpaint_common.seeds import new_attempt_id
from overpaint_common.settings import AccessSettings
from overpaint_common.storage import ObjectStore
from overpaint_common.storage.s3 import S3Options, connect
from overpaint_producer.cli.checks.ledger import check_ledger
from overpaint_producer.cli.checks.s3 import S3_ERRORS, expirations

if TYPE_CHECKING:
    from mypy_boto3_s3 import S3Client

PROBE = "overpaint-doctor-"
"""What a probe's name begins with, where it lies among other people's objects."""

_NOTE = b"`overpaint doctor` tried whether it may write here. Nobody needs this: delete it.\n"

KEPT = ("jobs/", "dead/")
"""Below the ledger's root: what a lifecycle rule may expire."""

NEEDED = ("open/", "webhooks/")
"""What it must not: jobs and deliveries would be forgotten."""


def check_storage(settings: AccessSettings) -> Iterator[Finding]:
    """The ledger, how long it is kept, and each prefix that jobs may read or write."""
    store = settings.open_store()
    yield from check_ledger(store, settings.ledger_root)
    if settings.ledger_root.scheme == "s3":
        with suppress(SettingsError, *S3_ERRORS):  # Said of storage already.
            yield from check_expiry(connect(S3Options.of(settings)), settings.ledger_root)
    read = [Reference.parse(prefix) for prefix in settings.read]
    write = [Reference.parse(prefix) for prefix in settings.write]
    for prefix in read:
        yield check_readable(store, prefix)
    for prefix in write:
        yield from check_writable(store, prefix)
    yield from _nested("OVERPAINT_READ", read)
    yield from _nested("OVERPAINT_WRITE", write)


def check_expiry(client: S3Client, ledger: Reference) -> Iterator[Finding]:
    """How long the bucket keeps requests and records; nothing where S3 lets nobody ask."""
    check, root = "ledger expiry", ledger.as_prefix()
    try:
        found = list(expirations(client, root))
    except ClientError as error:
        if error.response.get("Error", {}).get("Code") != "NoSuchLifecycleConfiguration":
            return
        found = []
    except S3_ERRORS:
        return  # Said of storage already.

    def hit(names: tuple[str, ...]) -> list[str]:
        places = [root.key + name for name in names]
        overlapping = [
            span for prefix, span in found for place in places if place.startswith(prefix) or prefix.startswith(place)
        ]
        return sorted(set(overlapping))

    if doomed := hit(NEEDED):
        remedy = f"let the rule cover {root.join('jobs').as_prefix()} alone: open/ and webhooks/ are needed"
        yield warn(check, f"a lifecycle rule deletes the marks of open jobs after {', '.join(doomed)}", remedy)
    elif spans := hit(KEPT):
        yield ok(check, f"a lifecycle rule deletes requests or records after {', '.join(spans)}")
    else:
        where = root.join("jobs").as_prefix()
        yield ok(check, f"none: requests and records are kept for ever; a lifecycle rule for {where} would end that")


def check_readable(store: ObjectStore, prefix: Reference) -> Finding:
    """List a prefix that jobs may read, and open its first object."""
    check = "read"
    if (missing := _missing_folder(prefix)) is not None:
        return warn(check, missing, "create it, or correct OVERPAINT_READ")
    try:
        first = next(iter(store.list(prefix)), None)
    except StorageDenied as error:
        remedy = "allow s3:ListBucket there, or try s3:GetObject yourself: a source is read without listing"
        return warn(check, f"{prefix} may not be listed, so nothing there could be tried ({_cause(error)})", remedy)
    except OverpaintError as error:
        return from_error(check, error)
    if first is None:
        return ok(check, f"{prefix} may be listed; it is empty, so nothing could be read")
    try:
        # The store is asked for the object and says its size; none of a larger content is fetched.
        store.read(first.reference, limit=0)
    except ObjectTooLarge:
        pass
    except ObjectNotFound:
        return ok(check, f"{prefix} may be listed; what was found is gone already, so nothing was read")
    except OverpaintError as error:
        return from_error(check, error)
    return ok(check, f"{prefix} may be listed and read")


def check_writable(store: ObjectStore, prefix: Reference) -> Iterator[Finding]:
    """Write, list, copy and delete a small object in a prefix that jobs may write; nothing of it stays."""
    check = "write"
    if (missing := _missing_folder(prefix)) is not None:
        yield warn(check, missing, "create it, or correct OVERPAINT_WRITE: jobs would make it")
        return
    probe = prefix.join(f"{PROBE}{new_attempt_id()}.txt")
    twin = prefix.join(f"{PROBE}{new_attempt_id()}.txt")
    try:
        store.put(probe, _NOTE, content_type="text/plain")
    except OverpaintError as error:
        yield from_error(check, error)
        return
    refused: list[Finding] = []

    def tried(action: Callable[[], object], needed_for: str, state_of: Callable[[str, str, str], Finding]) -> None:
        try:
            action()
        except OverpaintError as error:
            message, _, remedy = str(error).rpartition("; ")
            refused.append(state_of(check, f"{message or remedy}; {needed_for}", remedy))

    tried(lambda: next(iter(store.list(prefix)), None), "the pictures of failed attempts are found by it", fail)
    tried(lambda: store.copy(probe, twin), "pictures cannot be published under names of their own", warn)
    tried(lambda: _delete(store, probe, twin), "the pictures of failed attempts would stay", fail)
    yield from refused
    if not refused:
        yield ok(check, f"{prefix} may be written, listed and deleted from")


def _delete(store: ObjectStore, *references: Reference) -> None:
    for reference in references:
        store.delete(reference)


def _nested(setting: str, prefixes: list[Reference]) -> Iterator[Finding]:
    for index, prefix in enumerate(prefixes):
        outer = next((o for i, o in enumerate(prefixes) if i != index and prefix.within(o) and prefix != o), None)
        if outer is not None:
            yield warn("allowlists", f"{setting}: {prefix} lies within {outer} already", "leave the inner one out")


def _missing_folder(prefix: Reference) -> str | None:
    """What to say of a local folder that is not there: a store of files would make it at the first write."""
    try:
        return None if prefix.scheme != "file" or prefix.path.exists() else f"{prefix.path} does not exist"
    except (InvalidReference, OSError):
        return None


def _cause(error: OverpaintError) -> str:
    return str(error).partition(": ")[2].partition("; ")[0]
