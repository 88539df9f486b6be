"""What both stores refuse, in the same words."""

from __future__ import annotations

import os
from typing import BinaryIO

from overpaint_common.errors import InvalidReference, ObjectTooLarge, StorageError
from overpaint_common.references import Reference
from overpaint_common.storage.interface import MAX_EXPIRES


def require_object(reference: Reference) -> None:
    """Raises InvalidReference where `reference` names a prefix and one object is wanted."""
    if reference.is_prefix:
        raise InvalidReference(f"{reference} names a folder; name one object")


def require_two(source: Reference, target: Reference) -> None:
    """Raises InvalidReference unless these are two objects, as a copy needs."""
    require_object(source)
    require_object(target)
    if source == target:
        raise InvalidReference(f"{source} cannot be copied to itself; name another target")


def check_expires(expires: int) -> None:
    """Raises StorageError for a number of seconds that no URL can be signed for."""
    if not 1 <= expires <= MAX_EXPIRES:
        raise StorageError(
            f"no URL can be good for {expires} seconds; choose 1 to {MAX_EXPIRES}, which is seven days, and sign a new "
            "one when it has run out"
        )


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
