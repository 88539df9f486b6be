"""Picture files made by hand, by tifffile or by Pillow: what decoders are held against."""

from __future__ import annotations

import struct
import zlib
from io import BytesIO
from typing import Any

import numpy as np
import tifffile
from numpy.typing import NDArray
from PIL import Image
from skimage import data as photographs

from overpaint_worker.imaging.encode import Format

BUDGET = 4_000_000
AI = "http://cv.iptc.org/newscodes/digitalsourcetype/compositeWithTrainedAlgorithmicMedia"
FORMATS: tuple[Format, ...] = ("png", "jpeg", "webp")

# Lindbloom's table (brucelindbloom.com): linear Adobe RGB (1998) to XYZ adapted to D50.
ADOBE_TO_XYZ = np.array(
    [[0.6097559, 0.2052401, 0.1492240], [0.3111242, 0.6256560, 0.0632197], [0.0194811, 0.0608902, 0.7448387]]
)


def photograph(size: tuple[int, int] = (64, 48)) -> Image.Image:
    astronaut: NDArray[np.uint8] = photographs.astronaut()
    return Image.fromarray(astronaut).resize(size, Image.Resampling.LANCZOS)


def saved(picture: Image.Image, format: str, **options: Any) -> bytes:
    target = BytesIO()
    picture.save(target, format, **options)
    return target.getvalue()


def png_chunk(name: bytes, body: bytes) -> bytes:
    return struct.pack(">I", len(body)) + name + body + struct.pack(">I", zlib.crc32(name + body))


def png(size: tuple[int, int], depth: int, colour_type: int, rows: bytes, *chunks: tuple[bytes, bytes]) -> bytes:
    """A PNG from unfiltered rows (each with its leading zero), `chunks` before IDAT."""
    header = png_chunk(b"IHDR", struct.pack(">IIBBBBB", *size, depth, colour_type, 0, 0, 0))
    extra = b"".join(png_chunk(name, body) for name, body in chunks)
    return b"\x89PNG\r\n\x1a\n" + header + extra + png_chunk(b"IDAT", zlib.compress(rows)) + png_chunk(b"IEND", b"")


def with_png_chunk(file: bytes, name: bytes, body: bytes) -> bytes:
    """The PNG with one more chunk after IHDR."""
    return file[:33] + png_chunk(name, body) + file[33:]


def with_jpeg_segment(file: bytes, marker: int, body: bytes) -> bytes:
    """The JPEG with one more segment after SOI."""
    return file[:2] + bytes([0xFF, marker]) + struct.pack(">H", len(body) + 2) + body + file[2:]


def tiff(samples: NDArray[Any], **options: Any) -> bytes:
    target = BytesIO()
    tifffile.imwrite(target, samples, **options)
    return target.getvalue()


def profile(space: bytes, gamma: float, primaries: NDArray[np.float64] | None = None) -> bytes:
    """An ICC v2 profile: GRAY with one gamma, or RGB with a gamma and primaries (3 x 3, columns are XYZ under D50)."""

    def xyz(values: Any) -> bytes:
        return b"XYZ \0\0\0\0" + b"".join(struct.pack(">i", round(float(value) * 65536)) for value in values)

    curve = b"curv\0\0\0\0" + struct.pack(">IH", 1, round(gamma * 256)) + b"\0\0"
    tags = {
        b"wtpt": xyz((0.9642, 1.0, 0.8249)),
        b"desc": _description(b"hand-made"),
        b"cprt": b"text\0\0\0\0none\0\0\0\0",
    }
    if primaries is None:
        tags[b"kTRC"] = curve
    else:
        for letter, column in zip((b"r", b"g", b"b"), primaries.T, strict=True):
            tags |= {letter + b"XYZ": xyz(column), letter + b"TRC": curve}
    at, table, body = 128 + 4 + 12 * len(tags), b"", b""
    for name, content in tags.items():
        table += struct.pack(">4sII", name, at + len(body), len(content))
        body += content
    size = at + len(body)
    head = struct.pack(">I4sI4s4s4s", size, b"none", 0x02400000, b"mntr", space.ljust(4), b"XYZ ")
    head += struct.pack(">6H", 2026, 1, 1, 0, 0, 0) + b"acsp" + bytes(28) + struct.pack(">3i", 63190, 65536, 54061)
    return head.ljust(128, b"\0") + struct.pack(">I", len(tags)) + table + body


def _description(text: bytes) -> bytes:
    content = b"desc\0\0\0\0" + struct.pack(">I", len(text) + 1) + text + b"\0" + bytes(8 + 2 + 1 + 67)
    return content + bytes(-len(content) % 4)
