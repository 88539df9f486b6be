"""What both stores refuse, in the same words."""

from __future__ import annotations

import os
from typing import BinaryIO

from overpaint_common.errors import InvalidReference, ObjectTooLarge
from overpaint_common.references import Reference


def require_object(reference: Reference) -> None:
    """Raises InvalidReference where `reference` names a prefix and one object is wanted."""
    if reference.is_prefix:
        raise InvalidReference(f"{reference} names a folder; name one object")


def check_size(reference: Reference, size: int, limit: int) -> None:
    """Raises ObjectTooLarge where `size` bytes are more than `limit`."""
    if size > limit:
        raise ObjectTooLarge(
            f"{reference} holds {size} bytes or more, the limit is {limit}; use a smaller object or raise the limit"
        )


def rewound(body: bytes | BinaryIO) -> int:
    """The size of `body` in bytes; a stream is left at its start."""
    if isinstance(body, bytes):
        return len(body)
    size = body.seek(0, os.SEEK_END)
    body.seek(0)
    return size
