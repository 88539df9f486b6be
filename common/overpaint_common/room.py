"""Room on a disk, as `overpaint doctor` judges it."""

from __future__ import annotations

import shutil
from pathlib import Path

from overpaint_common.findings import Finding, amount, fail, ok, warn

NEARLY_NONE = 100 * 2**20
"""Bytes below which the next few pictures may not fit."""


def check_room(what: str, folder: Path, enough: int, more: str) -> Finding:
    """Free bytes on the disk of a folder, which must be there; `more` says how there would be more than `enough`."""
    free = shutil.disk_usage(folder).free
    message = f"{amount(free)} free for {what} in {folder}"
    if free >= enough:
        return ok("disk", message)
    state = fail if free < min(NEARLY_NONE, enough) else warn
    return state("disk", message, f"free some, or {more}; {amount(enough)} are comfortable")


def existing(path: Path) -> Path | None:
    """The folder, or the nearest one above it that is there."""
    return next((folder for folder in (path, *path.parents) if folder.is_dir()), None)
