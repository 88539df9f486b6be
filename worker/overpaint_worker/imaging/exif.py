"""The little of EXIF that a picture's display needs: its orientation. Everything else in EXIF is private."""

from __future__ import annotations

import struct

from PIL import Image

ORIENTATION = 0x0112

# Orientation, resolution and its unit, chroma position: what says nothing of who, where, when or with what.
_HARMLESS = frozenset({ORIENTATION, 0x011A, 0x011B, 0x0128, 0x0213})
_LARGEST_HARMLESS = 128

_TURNS = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}


def _first_directory(tiff: bytes) -> tuple[dict[int, int], int]:
    """Tag -> value (for whole numbers; 0 otherwise) of IFD0, and the offset of IFD1. Raises struct.error on damage."""
    order = "<" if tiff[:2] == b"II" else ">"
    (start,) = struct.unpack_from(order + "4xI", tiff)
    (count,) = struct.unpack_from(order + "H", tiff, start)
    values = {}
    for index in range(count):
        tag, kind, number = struct.unpack_from(order + "HHI", tiff, start + 2 + 12 * index)
        form = {3: "H", 4: "I"}.get(kind) if number == 1 else None
        values[tag] = struct.unpack_from(order + form, tiff, start + 10 + 12 * index)[0] if form else 0
    (following,) = struct.unpack_from(order + "I", tiff, start + 2 + 12 * count)
    return values, following


def orientation(tiff: bytes | None) -> int:
    """How the stored picture must be turned to be displayed, 1 to 8 (EXIF 3.0, tag 0x0112).

    `tiff` is the EXIF block from its byte-order mark on. A missing, damaged or senseless value is 1, as viewers do.
    """
    if not tiff:
        return 1
    try:
        value = _first_directory(tiff)[0].get(ORIENTATION, 1)
    except struct.error:
        return 1
    return value if 1 <= value <= 8 else 1


def turn(picture: Image.Image, orientation: int) -> Image.Image:
    """The picture as displayed; `orientation` from 1 (unchanged) to 8."""
    return picture.transpose(_TURNS[orientation]) if orientation in _TURNS else picture


def is_private(tiff: bytes) -> bool:
    """Whether the EXIF block says, or has room to hide, more than orientation and resolution."""
    try:
        tags, following = _first_directory(tiff)
    except struct.error:
        return True
    return bool(following) or not tags.keys() <= _HARMLESS or len(tiff) > _LARGEST_HARMLESS


def orientation_only(orientation: int) -> bytes:
    """The smallest EXIF block, from its byte-order mark on, that says `orientation` (1 to 8) and nothing else."""
    return struct.pack(">2sHIHHHIHHI", b"MM", 42, 8, 1, ORIENTATION, 3, 1, orientation, 0, 0)
