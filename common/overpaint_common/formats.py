"""The formats of pictures that workers read, known by a file's first bytes."""

from __future__ import annotations

import struct
from collections.abc import Mapping

HEAD = 18
"""Bytes that `sniff` looks at."""

EXTENSIONS: Mapping[str, str] = {
    "png": "png",
    "jpeg": "jpg",
    "webp": "webp",
    "gif": "gif",
    "bmp": "bmp",
    "tiff": "tif",
}
"""The usual extension of each format; its content type is `image/` and the format."""


def sniff(data: bytes) -> str | None:
    """The format by its first bytes: png, jpeg, webp, gif, bmp, tiff, or None for anything else."""
    if data.startswith(b"\x89PNG\r\n\x1a\n"):
        return "png"
    if data.startswith(b"\xff\xd8\xff"):
        return "jpeg"
    if data.startswith(b"RIFF") and data[8:12] == b"WEBP":
        return "webp"
    if data.startswith((b"GIF87a", b"GIF89a")):
        return "gif"
    if data.startswith((b"II*\0", b"MM\0*", b"II+\0", b"MM\0+")):
        return "tiff"
    if data.startswith(b"BM") and data[14:18] in (struct.pack("<I", n) for n in (12, 40, 52, 56, 64, 108, 124)):
        return "bmp"
    return None
