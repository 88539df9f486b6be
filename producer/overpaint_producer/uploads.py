"""Putting local pictures where workers may read them."""

from __future__ import annotations

import hashlib
import io
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO, cast

from overpaint_common.errors import ObjectNotFound, SourceEmpty, SourceNotAPicture, StorageDenied
from overpaint_common.formats import EXTENSIONS, HEAD, sniff
from overpaint_common.references import Reference
from overpaint_common.storage import ObjectStore

SPOOL_BYTES = 16 * 1024 * 1024
"""What cannot be rewound waits on disk beyond this."""

_CHUNK = 1024 * 1024

Picture = Path | bytes | BinaryIO
"""An encoded picture: a file's path, its content, or a binary file that is open for reading."""


def upload(store: ObjectStore, content: Picture, prefix: Reference, name: str | None = None) -> Reference:
    """Put a picture below `prefix` and return where it is.

    Without a name it is `<hash>/<file's name>` for a path and `<hash>.<extension>` otherwise, where `<hash>` is the
    first half of the content's SHA-256 in hexadecimal: the same picture always has the same reference, and one that is
    there already is not sent again. A `name`, with slashes for folders, replaces what is there. Large files are
    streamed, and read twice.

    Raises SourceEmpty, or SourceNotAPicture where the first bytes are of no format that workers read; InvalidReference
    for a name that no key can have, OSError for a file that cannot be read, and what `ObjectStore.put` does.
    """
    with _opened(content) as file:
        format = _format(file, content)
        if name is not None:
            reference = prefix.join(name)
        else:
            digest, size = _measured(file)
            names = (digest, content.name) if isinstance(content, Path) else (f"{digest}.{EXTENSIONS[format]}",)
            reference = prefix.join(*names)
            if _holds(store, reference, size):
                return reference
        store.put(reference, file, content_type=f"image/{format}")
    return reference


@contextmanager
def _opened(content: Picture) -> Iterator[BinaryIO]:
    """The content as a file that can be rewound."""
    if isinstance(content, Path):
        with content.open("rb") as file:
            yield file
    elif isinstance(content, bytes):
        yield io.BytesIO(content)
    elif content.seekable():
        yield content
    else:
        with tempfile.SpooledTemporaryFile(max_size=SPOOL_BYTES) as spooled:
            shutil.copyfileobj(content, spooled)
            yield cast(BinaryIO, spooled)


def _measured(file: BinaryIO) -> tuple[str, int]:
    """The first 32 hexadecimal digits of the content's SHA-256, and its bytes."""
    digest, size = hashlib.sha256(), 0
    file.seek(0)
    while chunk := file.read(_CHUNK):
        digest.update(chunk)
        size += len(chunk)
    return digest.hexdigest()[:32], size


def _format(file: BinaryIO, content: Picture) -> str:
    file.seek(0)
    head = file.read(HEAD)
    what = str(content) if isinstance(content, Path) else "the picture to upload"
    if not head:
        raise SourceEmpty(f"{what} is empty (0 bytes); give another")
    format = sniff(head)
    if format is None:
        known = ", ".join(EXTENSIONS)
        raise SourceNotAPicture(
            f"{what} begins with {head[:8]!r}, like no picture read here; convert it to one of {known}"
        )
    return format


def _holds(store: ObjectStore, reference: Reference, size: int) -> bool:
    try:
        return store.head(reference).size == size
    except (ObjectNotFound, StorageDenied):
        # Whoever may only write is told "forbidden" of a missing object, too.
        return False
