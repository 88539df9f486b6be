"""Room on disk, and for open files."""

from __future__ import annotations

import os
import resource
import tempfile
from collections.abc import Iterator
from pathlib import Path

from overpaint_common.findings import Finding, ok, warn
from overpaint_common.references import Reference
from overpaint_common.room import check_room, existing

TEMPORARY = 2 * 2**30
"""Bytes: a worker spools there the sources of all its slots that are too large for memory, 16 of 100 MiB by default."""

LEDGER = 2**30
"""Bytes: a local store holds sources and pictures besides, and a full one takes no job."""

FILES_BESIDE = 256
"""Open files of a worker besides its connections to storage: Redis, models, sources, pictures, logs."""


def check_disk(places: list[Reference], connections: int) -> Iterator[Finding]:
    """Room in the temporary folder and below local places, and for `connections` to storage."""
    yield check_room("temporary files", Path(tempfile.gettempdir()), TEMPORARY, "point TMPDIR to a larger disk")
    seen: set[int] = set()
    for place in places:
        folder = existing(place.path) if place.scheme == "file" else None
        if folder is None or os.statvfs(folder).f_flag & os.ST_RDONLY:
            continue  # What cannot be written cannot fill up.
        if (device := folder.stat().st_dev) not in seen:
            seen.add(device)
            yield check_room("the local store", folder, LEDGER, "keep it on a larger disk, or use S3")
    yield check_files(connections)


def check_files(connections: int) -> Finding:
    """Whether this process's limit of open files leaves room for as many connections."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft == resource.RLIM_INFINITY:
        return ok("open files", "no limit")
    wanted = connections + FILES_BESIDE
    if soft >= wanted:
        return ok("open files", f"at most {soft}")
    how = f"ulimit -n {wanted}" if hard == resource.RLIM_INFINITY or hard >= wanted else "raise the hard limit first"
    message = f"at most {soft}, for up to {connections} connections to storage and {FILES_BESIDE} others"
    return warn("open files", message, f"raise the limit: {how}")
