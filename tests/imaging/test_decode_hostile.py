"""Files that lie, end early, move, or were broken on purpose: always a SourceError, always in bounded memory."""

from __future__ import annotations

import struct
import subprocess
import sys
import zlib
from collections.abc import Callable
from contextlib import suppress
from io import BytesIO
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image

from overpaint_common.errors import (
    SourceAnimated,
    SourceEmpty,
    SourceError,
    SourceNotAPicture,
    SourceTooLarge,
    SourceTruncated,
)
from overpaint_worker.imaging.containers import read_jpeg, write_jpeg
from overpaint_worker.imaging.decode import decode

from .files import BUDGET, photograph, png, png_chunk, saved, tiff, with_jpeg_segment, with_png_chunk

# Pillow warns of what it finds in damaged EXIF and TIFF directories; here that is every second file.
pytestmark = pytest.mark.filterwarnings("ignore::UserWarning:PIL")


def bombs() -> dict[str, bytes]:
    """Small files whose headers promise more than four billion bytes of pixels. The first really holds its pixels."""
    side = 46_000
    packer = zlib.compressobj(9)
    rows = b"".join(packer.compress(bytes(1 + side // 8) * 1000) for _ in range(side // 1000)) + packer.flush()
    real = png_chunk(b"IHDR", struct.pack(">IIBBBBB", side, side, 1, 0, 0, 0, 0)) + png_chunk(b"IDAT", rows)
    jpeg = bytearray(saved(photograph(), "JPEG"))
    frame = jpeg.index(b"\xff\xc0") + 5
    jpeg[frame : frame + 4] = struct.pack(">HH", 65500, 65500)
    gif = bytearray(saved(photograph().quantize(8), "GIF"))
    gif[6:10] = struct.pack("<HH", 65535, 65535)
    bmp = bytearray(saved(photograph(), "BMP"))
    bmp[18:26] = struct.pack("<ii", 1 << 20, 1 << 20)
    webp = bytearray(saved(photograph(), "WEBP", xmp=b"<x/>"))
    webp[24:30] = b"\xff\xff\x00\xff\xff\x00"
    lossless = bytearray(saved(photograph(), "WEBP", lossless=True))
    lossless[21:25] = struct.pack("<I", (1 << 28) - 1)
    wide = tiff(np.zeros((16, 16), dtype=np.uint8), tile=(16, 16), compression="zlib")
    return {
        "png": b"\x89PNG\r\n\x1a\n" + real + png_chunk(b"IEND", b""),
        "jpeg": bytes(jpeg),
        "gif": bytes(gif),
        "bmp": bytes(bmp),
        "webp": bytes(webp),
        "webp-lossless": bytes(lossless),
        "tiff": _with_tags(wide, {256: 1 << 20, 257: 1 << 20}),
        "tiff-tiles": _with_tags(wide, {322: 1 << 20, 323: 1 << 20}),
    }


def _with_tags(file: bytes, values: dict[int, int]) -> bytes:
    """The little-endian TIFF with some tags of its first directory set to 32-bit values."""
    changed = bytearray(file)
    (start,) = struct.unpack_from("<I", file, 4)
    (count,) = struct.unpack_from("<H", file, start)
    for at in range(start + 2, start + 2 + 12 * count, 12):
        (tag,) = struct.unpack_from("<H", file, at)
        if tag in values:
            struct.pack_into("<HII", changed, at + 2, 4, 1, values[tag])
    return bytes(changed)


@pytest.fixture(scope="module")
def bomb_files(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    folder = tmp_path_factory.mktemp("bombs")
    files = {}
    for name, data in bombs().items():
        files[name] = folder / name
        files[name].write_bytes(data)
    return files


def test_a_file_of_billions_of_pixels_is_refused_by_size_limit_and_remedy(bomb_files: dict[str, Path]) -> None:
    data = bomb_files["png"].read_bytes()
    assert len(data) < 1_000_000
    with pytest.raises(SourceTooLarge, match=r"46000 x 46000, 2116000000 pixels.*4000000 are allowed; scale it down"):
        decode(data, max_pixels=BUDGET)


def test_header_lies_are_refused_without_the_memory_they_ask_for(bomb_files: dict[str, Path]) -> None:
    script = """
import resource, sys
from pathlib import Path
from overpaint_common.errors import SourceTooLarge
from overpaint_worker.imaging.decode import decode
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
for path in sys.argv[1:]:
    try:
        decode(Path(path).read_bytes(), max_pixels=4_000_000)
    except SourceTooLarge:
        continue
    raise SystemExit(f"{path} was not refused")
print((resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) // 1024)
"""
    done = subprocess.run(
        [sys.executable, "-c", script, *map(str, bomb_files.values())],
        capture_output=True,
        text=True,
        env={"PYTHONPATH": ":".join(sys.path)},
    )
    assert done.returncode == 0, done.stderr
    assert int(done.stdout) < 64, "MiB"


def test_a_picture_exactly_at_the_limit_is_taken_and_one_row_more_is_not() -> None:
    assert decode(saved(photograph((40, 25)), "PNG"), max_pixels=1000).width == 40
    with pytest.raises(SourceTooLarge):
        decode(saved(photograph((40, 26)), "PNG"), max_pixels=1000)


def test_nothing_is_empty_and_text_is_no_picture() -> None:
    with pytest.raises(SourceEmpty):
        decode(b"", max_pixels=BUDGET)
    for data in (b"\0", b"BM", b"%PDF-1.7\n", b"%!PS-Adobe-3.0 EPSF-3.0\n", b"<svg xmlns='x'/>", b"P6 1 1 255 abc"):
        with pytest.raises(SourceNotAPicture, match="use png, jpeg"):
            decode(data, max_pixels=BUDGET)


@pytest.mark.parametrize("format", ["PNG", "JPEG", "WEBP"])
def test_a_file_cut_anywhere_is_truncated(format: str) -> None:
    file = saved(photograph(), format)
    for end in (16, 40, len(file) // 3, len(file) // 2, len(file) - 1):
        with pytest.raises(SourceTruncated):
            decode(file[:end], max_pixels=BUDGET)


@pytest.mark.parametrize("format", ["GIF", "BMP", "TIFF"])
def test_other_formats_cut_in_their_pixels_are_source_errors(format: str) -> None:
    file = saved(photograph(), format)
    with pytest.raises(SourceError):
        decode(file[: len(file) // 2], max_pixels=BUDGET)


@pytest.mark.parametrize("format", ["GIF", "WEBP", "PNG", "TIFF"])
def test_several_frames_are_refused_by_their_number(format: str) -> None:
    frames = [photograph().rotate(angle) for angle in (0, 30, 60)]
    file = saved(frames[0], format, save_all=True, append_images=frames[1:])
    with pytest.raises(SourceAnimated, match=r"3 frames.*extract the frame you want"):
        decode(file, max_pixels=BUDGET)


def test_of_a_phone_s_multi_picture_jpeg_the_first_is_taken() -> None:
    first, second = photograph(), photograph().rotate(90)
    file = saved(first, "MPO", save_all=True, append_images=[second])
    assert Image.open(BytesIO(file)).format == "MPO"
    source = decode(file, max_pixels=BUDGET)
    assert (source.format, source.private_metadata) == ("jpeg", True)
    assert source.picture.tobytes() == decode(saved(first, "JPEG"), max_pixels=BUDGET).picture.tobytes()


def test_a_jpeg_of_a_thousand_scans_is_refused_before_it_is_decoded() -> None:
    parts = read_jpeg(saved(photograph(), "JPEG", progressive=True)).parts
    with pytest.raises(SourceError, match="scans"):
        decode(write_jpeg([*parts, *parts[-2:] * 1000]), max_pixels=BUDGET)


def test_a_wrong_checksum_over_pixels_is_damage_and_over_text_is_not() -> None:
    file = saved(photograph(), "PNG")
    broken = bytearray(file)
    broken[file.index(b"IDAT") + 40] ^= 1
    with pytest.raises(SourceError, match="checksum of b'IDAT'"):
        decode(bytes(broken), max_pixels=BUDGET)
    noted = bytearray(with_png_chunk(file, b"tEXt", b"Comment\0hello"))
    noted[noted.index(b"hello")] ^= 1
    assert decode(bytes(noted), max_pixels=BUDGET).private_metadata


def test_text_that_unpacks_to_a_gigabyte_never_reaches_the_decoder() -> None:
    bomb = zlib.compress(bytes(64 << 20), 9)
    file = saved(photograph(), "PNG")
    for _ in range(20):
        file = with_png_chunk(file, b"zTXt", b"k\0\0" + bomb)
    assert decode(file, max_pixels=BUDGET).picture.tobytes() == photograph().tobytes()


def seeds() -> list[bytes]:
    small = photograph((20, 14))
    exif = Image.Exif()
    exif[0x0112], exif[0x010F] = 6, "maker"
    transparent = small.convert("RGBA")
    transparent.putalpha(small.convert("L"))
    return [
        saved(small, "PNG", exif=exif),
        saved(transparent, "PNG"),
        saved(small.quantize(16), "PNG", transparency=3),
        png((2, 2), 16, 0, b"\0\1\2\3\4" * 2, (b"tRNS", b"\1\2")),
        saved(small, "JPEG", exif=exif, comment=b"hello"),
        saved(small, "JPEG", progressive=True),
        saved(small.convert("CMYK"), "JPEG"),
        with_jpeg_segment(saved(small, "JPEG"), 0xE2, b"MPF\0" + exif.tobytes()),
        saved(small, "WEBP", exif=exif, xmp=b"<x/>"),
        saved(transparent, "WEBP", lossless=True),
        saved(small.quantize(16), "GIF"),
        saved(small, "GIF", save_all=True, append_images=[small.rotate(90)]),
        saved(small, "BMP"),
        saved(small.quantize(16), "BMP"),
        saved(small, "TIFF"),
        saved(small, "TIFF", compression="tiff_lzw"),
        saved(small, "TIFF", compression="jpeg"),
        saved(transparent, "TIFF", compression="tiff_deflate"),
        tiff(np.zeros((16, 16, 3), dtype=np.uint8), tile=(16, 16)),
        tiff(np.ones((4, 4), dtype=np.float32)),
    ]


SEEDS = seeds()


def _flip(data: bytearray, at: int, value: int) -> None:
    data[at % len(data)] = value


def _cut(data: bytearray, at: int, _: int) -> None:
    del data[1 + at % len(data) :]


def _remove(data: bytearray, at: int, value: int) -> None:
    start = at % len(data)
    if len(data) - value > 1:
        del data[start : start + value]


def _repeat(data: bytearray, at: int, value: int) -> None:
    start = at % len(data)
    data[start:start] = data[start : start + value]


def _large(data: bytearray, at: int, value: int) -> None:
    start = at % len(data)
    data[start : start + 4] = (b"\xff" * value)[:4] or b"\x00\x00\x00\x00"


Change = Callable[[bytearray, int, int], None]
changes = st.lists(
    st.tuples(
        st.sampled_from([_flip, _flip, _flip, _cut, _remove, _repeat, _large]),
        st.one_of(st.integers(0, 200), st.integers(0, 1 << 20)),
        st.integers(0, 255),
    ),
    min_size=1,
    max_size=6,
)


def _repaired(data: bytes) -> bytes:
    """The PNG with right checksums, so that a change reaches what lies behind them; anything else as it is."""
    if not data.startswith(b"\x89PNG\r\n\x1a\n"):
        return data
    fixed, at = bytearray(data), 8
    while at + 12 <= len(data):
        end = at + 12 + int.from_bytes(data[at : at + 4], "big")
        if end > len(data):
            break
        fixed[end - 4 : end] = struct.pack(">I", zlib.crc32(data[at + 4 : end - 4]))
        at = end
    return bytes(fixed)


@settings(max_examples=800, deadline=None, suppress_health_check=list(HealthCheck))
@given(seed=st.sampled_from(SEEDS), changes=changes)
def test_a_mutated_file_gives_a_picture_or_a_source_error(seed: bytes, changes: list[tuple[Change, int, int]]) -> None:
    data = bytearray(seed)
    for change, at, value in changes:
        change(data, at, value)
    try:
        source = decode(_repaired(bytes(data)), max_pixels=100_000)
    except SourceError:
        return
    assert (source.picture.mode, source.picture.size) == ("RGB", (source.width, source.height))
    assert source.width * source.height <= 100_000
    assert source.alpha is None or (source.alpha.mode, source.alpha.size) == ("L", source.picture.size)


@settings(max_examples=300, deadline=None)
@given(
    start=st.sampled_from(
        [b"\x89PNG\r\n\x1a\n", b"\xff\xd8\xff", b"RIFF\x40\0\0\0WEBP", b"GIF89a", b"II*\0", b"MM\0*", b""]
    ),
    rest=st.binary(max_size=80),
)
def test_any_bytes_after_any_signature_are_a_source_error_or_a_picture(start: bytes, rest: bytes) -> None:
    with suppress(SourceError):
        decode(start + rest, max_pixels=100_000)
