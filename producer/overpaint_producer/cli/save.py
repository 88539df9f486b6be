"""Copying a job's pictures into a local folder."""

from __future__ import annotations

import hashlib
import secrets
from pathlib import Path

from overpaint_common.errors import StorageUnavailable
from overpaint_common.references import Reference
from overpaint_common.result import Result, StoredObject
from overpaint_common.storage import ObjectStore


def save_result(store: ObjectStore, record: Result, folder: Path) -> list[Path]:
    """Write `<job id>-<name>` for each picture, intermediates included, and `<job id>.json`, and return the paths.

    A file appears whole or not at all. Raises ObjectNotFound for a picture that is gone, StorageUnavailable for one
    whose content is not what the record says.
    """
    folder.mkdir(parents=True, exist_ok=True)
    files = []
    for output in record.stored:
        files.append(folder / f"{record.job_id}-{Reference.parse(output.uri).name}")
        save_picture(store, output, files[-1])
    files.append(folder / f"{record.job_id}.json")
    files[-1].write_text(record.model_dump_json(indent=2, exclude_none=True) + "\n")
    return files


def save_picture(store: ObjectStore, output: StoredObject, file: Path) -> None:
    """Download one picture and compare its hash with the record's; raises what `save_result` raises."""
    partial = file.with_name(f".{file.name}.{secrets.token_hex(4)}.part")
    try:
        with partial.open("x+b") as target:
            store.download(Reference.parse(output.uri), target, limit=output.size)
            target.seek(0)
            digest = hashlib.file_digest(target, "sha256").hexdigest()
        if digest != output.sha256:
            raise StorageUnavailable(
                f"{output.uri} has sha256 {digest}, its record says {output.sha256}; somebody replaced or damaged it"
            )
        partial.replace(file)
    finally:
        partial.unlink(missing_ok=True)
