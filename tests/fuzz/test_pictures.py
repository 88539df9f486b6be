"""The picture decoder under files that were put together wrongly: a picture within the budget, or a SourceError.

Single damages to single files are in `tests/imaging/test_decode_hostile.py`; here whole parts move, and files meet.
"""

from __future__ import annotations

import struct
import zlib
from collections.abc import Callable
from contextlib import suppress

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from overpaint_common.errors import SourceError, SourceTooLarge
from overpaint_worker.imaging.decode import decode
from tests.fuzz.mutations import bounded, damaged
from tests.imaging.files import photograph, saved, tiff

# Pillow warns of what it finds in damaged EXIF and TIFF directories; here that is every second file.
pytestmark = pytest.mark.filterwarnings("ignore::UserWarning:PIL")

MOST = 40 * 28
"""Pixels of the largest of FILES."""


def files() -> list[bytes]:
    small, large = photograph((20, 14)), photograph((40, 28))
    exif = Image.Exif()
    exif[0x0112] = 5
    transparent = large.convert("RGBA")
    transparent.putalpha(large.convert("L"))
    return [
        saved(large, "PNG", exif=exif, icc_profile=b"no profile"),
        saved(small.quantize(16), "PNG", bits=4, transparency=3),
        saved(small.convert("I;16"), "PNG"),
        saved(large, "JPEG", exif=exif, comment=b"hello", icc_profile=b"no profile"),
        saved(large, "JPEG", progressive=True, restart_marker_blocks=1),
        saved(large.convert("CMYK"), "JPEG"),
        saved(transparent, "WEBP", exif=exif),
        saved(small, "WEBP", lossless=True),
        saved(large.quantize(16), "GIF", transparency=1, comment=b"hello"),
        saved(large, "BMP"),
        saved(small.convert("1"), "BMP"),
        saved(small, "TIFF", compression="tiff_lzw"),
        saved(large, "TIFF", compression="jpeg"),
        saved(transparent, "TIFF", compression="tiff_deflate"),
        tiff(np.zeros((16, 16, 3), dtype=np.uint8), tile=(16, 16), compression="zlib", predictor=True),
        tiff(np.ones((8, 8), dtype=np.uint16), byteorder=">"),
    ]


FILES = files()


def assert_picture_or_error(data: bytes, budget: int = MOST) -> None:
    try:
        source = decode(data, max_pixels=budget)
    except SourceError as error:
        assert str(error)  # noqa: PT017 - which of the two comes is what is drawn
        return
    assert source.width * source.height <= budget
    assert (source.picture.mode, source.picture.size) == ("RGB", (source.width, source.height))
    assert source.alpha is None or (source.alpha.mode, source.alpha.size) == ("L", source.picture.size)
    source.picture.tobytes()


@bounded(200)
@given(damaged(st.sampled_from(FILES), most=6))
def test_files_that_were_joined_wrongly(data: bytes) -> None:
    """Given bytes flipped, cut, moved, and two files joined, when read, then there is a picture or a SourceError."""
    assert_picture_or_error(data)


@bounded(100)
@given(st.binary(max_size=200))
def test_any_bytes(data: bytes) -> None:
    """Given any bytes, when they are read as a picture, then they are none."""
    with suppress(SourceError):
        decode(data, max_pixels=MOST)


def parts_of(data: bytes) -> list[bytes]:
    """A file's own parts: PNG chunks, JPEG segments, RIFF chunks, or words of four bytes behind the first eight."""
    if data.startswith(b"\x89PNG"):
        return split(data, 8, lambda at: 12 + int.from_bytes(data[at : at + 4], "big"))
    if data.startswith(b"\xff\xd8"):
        return split(data, 2, lambda at: 2 + int.from_bytes(data[at + 2 : at + 4], "big"))
    if data.startswith(b"RIFF"):
        return split(data, 12, lambda at: 8 + (int.from_bytes(data[at + 4 : at + 8], "little") + 1) // 2 * 2)
    return split(data, 8, lambda _: 4)


def split(data: bytes, head: int, length: Callable[[int], int]) -> list[bytes]:
    found, at = [data[:head]], head
    while at < len(data):
        found.append(data[at : at + length(at)])
        at += length(at)
    return found


numbers = st.sampled_from([0, 1, 2, 7, 255, 256, 0x7FFF, 0xFFFF, 0x10000, 0x7FFFFFFF, 0x80000000, 0xFFFFFFFF])


@st.composite
def rearranged(draw: st.DrawFn) -> bytes:
    """Parts of one or two files in another order, some twice, some with a number in them changed, checksums right."""
    parts = parts_of(draw(st.sampled_from(FILES)))
    for _ in range(draw(st.integers(1, 4))):
        if len(parts) < 2:
            break
        at = draw(st.integers(1, len(parts) - 1))
        match draw(st.sampled_from(["drop", "double", "swap", "borrow", "number", "number"])):
            case "drop":
                del parts[at]
            case "double":
                parts.insert(at, parts[at])
            case "swap":
                other = draw(st.integers(1, len(parts) - 1))
                parts[at], parts[other] = parts[other], parts[at]
            case "borrow":
                lender = parts_of(draw(st.sampled_from(FILES)))
                parts.insert(at, draw(st.sampled_from(lender)))
            case _:
                place, order = draw(st.integers(0, max(0, len(parts[at]) - 4))), draw(st.sampled_from("<>"))
                number = struct.pack(f"{order}I", draw(numbers))
                parts[at] = parts[at][:place] + number + parts[at][place + 4 :]
    if parts[0].startswith(b"\x89PNG"):
        parts[1:] = [part[:-4] + struct.pack(">I", zlib.crc32(part[4:-4])) for part in parts[1:]]
    if parts[0].startswith(b"RIFF"):
        parts[0] = b"RIFF" + struct.pack("<I", 4 + sum(map(len, parts[1:]))) + b"WEBP"
    return b"".join(parts)


@bounded(250)
@given(rearranged())
def test_files_whose_parts_were_rearranged(data: bytes) -> None:
    """Given the parts of files in a wrong order and with wrong numbers, when read, a picture or a SourceError comes."""
    assert_picture_or_error(data)


@bounded(60)
@given(st.sampled_from(FILES), st.integers(1, 2 * MOST))
def test_the_budget_holds_for_every_format(data: bytes, budget: int) -> None:
    """Given a sound file of any format, when the budget is below its pixels, it is refused, and otherwise read."""
    whole = decode(data, max_pixels=2 * MOST)
    if whole.width * whole.height <= budget:
        assert decode(data, max_pixels=budget).picture.tobytes() == whole.picture.tobytes()
        return
    with pytest.raises(SourceTooLarge):
        decode(data, max_pixels=budget)
