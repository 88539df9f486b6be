"""Every kind of file decodes to the values that its format's specification gives."""

from __future__ import annotations

import struct
from concurrent.futures import ThreadPoolExecutor
from io import BytesIO
from typing import Any

import numpy as np
import pytest
from PIL import Image

from overpaint_worker.imaging.decode import decode
from overpaint_worker.imaging.passthrough import passthrough

from .files import BUDGET, photograph, png, saved, tiff, with_png_chunk


def pixels(data: bytes) -> list[list[int]]:
    return np.asarray(decode(data, max_pixels=BUDGET).picture).reshape(-1, 3).tolist()


def alphas(data: bytes) -> list[int]:
    alpha = decode(data, max_pixels=BUDGET).alpha
    assert alpha is not None
    return np.asarray(alpha).reshape(-1).tolist()


def grey(*values: int) -> list[list[int]]:
    return [[value] * 3 for value in values]


@pytest.mark.parametrize(
    ("depth", "row", "expected"),
    [
        (1, b"\x40", grey(0, 255)),
        (2, b"\x60", grey(85, 170)),
        (4, b"\x5f", grey(85, 255)),
        (8, b"\x05\xf0", grey(5, 240)),
        (16, struct.pack(">2H", 0x8080, 300), grey(128, 1)),
    ],
)
def test_grey_png_of_each_depth_is_scaled_by_its_full_range(depth: int, row: bytes, expected: list[list[int]]) -> None:
    assert pixels(png((2, 1), depth, 0, b"\0" + row)) == expected


def test_16_bit_rgb_png_is_scaled_and_says_so() -> None:
    values = (65535, 0, 0x8080, 12850, 25700, 38550)
    source = decode(png((2, 1), 16, 2, b"\0" + struct.pack(">6H", *values)), max_pixels=BUDGET)
    assert np.asarray(source.picture).reshape(-1) == pytest.approx([value / 257 for value in values], abs=1)
    assert source.notes == ("16-bit source reduced to 8 bits",)


def test_palette_png_shows_its_colours_and_keeps_its_transparency() -> None:
    palette = bytes([10, 20, 30, 40, 50, 60, 70, 80, 90])
    file = png((3, 1), 8, 3, b"\0\x00\x01\x02", (b"PLTE", palette), (b"tRNS", bytes([255, 0])))
    assert pixels(file) == [[10, 20, 30], [255, 255, 255], [70, 80, 90]]
    assert alphas(file) == [255, 0, 255]
    assert decode(file, max_pixels=BUDGET).mode == "P"


@pytest.mark.parametrize(
    ("depth", "colour_type", "row", "clear", "expected"),
    [
        (4, 0, b"\x5f", struct.pack(">H", 5), [0, 255]),
        (8, 0, b"\x05\x06", struct.pack(">H", 5), [0, 255]),
        (16, 0, struct.pack(">2H", 300, 301), struct.pack(">H", 300), [0, 255]),
        (8, 2, bytes([1, 2, 3, 4, 5, 6]), struct.pack(">3H", 1, 2, 3), [0, 255]),
        (16, 2, struct.pack(">6H", 65535, 512, 0, 0, 0, 0), struct.pack(">3H", 65535, 512, 0), [0, 255]),
    ],
)
def test_one_transparent_colour_in_a_png_is_found_at_its_own_depth(
    depth: int, colour_type: int, row: bytes, clear: bytes, expected: list[int]
) -> None:
    assert alphas(png((2, 1), depth, colour_type, b"\0" + row, (b"tRNS", clear))) == expected


def test_half_transparent_colours_are_blended_over_white_and_their_alpha_kept() -> None:
    file = png((2, 1), 8, 6, b"\0" + bytes([200, 100, 0, 51, 9, 9, 9, 255]))
    assert pixels(file) == [[244, 224, 204], [9, 9, 9]]
    assert alphas(file) == [51, 255]


def test_grey_with_alpha_decodes() -> None:
    file = png((2, 1), 8, 4, b"\0" + bytes([100, 255, 100, 0]))
    assert (pixels(file), alphas(file)) == (grey(100, 255), [255, 0])


def test_an_alpha_channel_that_is_opaque_everywhere_is_none() -> None:
    assert decode(saved(photograph().convert("RGBA"), "PNG"), max_pixels=BUDGET).alpha is None


def test_16_bit_grey_tiff_is_scaled_not_clipped() -> None:
    assert pixels(tiff(np.array([[0, 257, 32896, 65535]], dtype=np.uint16))) == grey(0, 1, 128, 255)
    assert pixels(tiff(np.array([[0, 65535]], dtype=">u2"), byteorder=">")) == grey(0, 255)


@pytest.mark.parametrize(
    ("samples", "expected"),
    [
        (np.array([[0.0, 0.5, 1.0]], dtype=np.float32), (0, 128, 255)),
        (np.array([[0.0, 100.5, 255.0]], dtype=np.float32), (0, 100, 255)),
        (np.array([[-2.0, 0.0, 2.0]], dtype=np.float32), (0, 128, 255)),
        (np.array([[np.nan, 0.5, np.inf]], dtype=np.float32), (0, 128, 255)),
        (np.array([[0, 100, 255]], dtype=np.int32), (0, 100, 255)),
        (np.array([[0, 32896, 65535]], dtype=np.int32), (0, 128, 255)),
        (np.array([[0, 1_000_000, 2_000_000]], dtype=np.int32), (0, 128, 255)),
    ],
)
def test_float_and_32_bit_tiffs_are_scaled_by_the_range_they_are_in(
    samples: np.ndarray, expected: tuple[int, ...]
) -> None:
    file = tiff(samples)
    assert pixels(file) == grey(*expected)
    assert "reduced to 8 bits" in decode(file, max_pixels=BUDGET).notes[0]


def test_premultiplied_tiff_comes_back_straight() -> None:
    samples = np.array([[[50, 25, 0, 128], [10, 20, 30, 255]]], dtype=np.uint8)
    file = tiff(samples, photometric="rgb", extrasamples=["assocalpha"])
    source = decode(file, max_pixels=BUDGET)
    body = passthrough(file, source, format="png", quality=80).body
    with Image.open(BytesIO(body)) as straight:
        assert straight.mode == "RGBA"
        assert np.asarray(straight)[0, 0] == pytest.approx([50 * 255 / 128, 25 * 255 / 128, 0, 128], abs=1)


def test_cmyk_tiff_and_adobe_cmyk_jpeg_show_the_same_colour() -> None:
    inks = np.full((16, 16, 4), (0, 128, 255, 64), dtype=np.uint8)
    expected = [(255 - ink) * (255 - 64) / 255 for ink in (0, 128, 255)]
    for file in (tiff(inks, photometric="separated"), saved(Image.fromarray(inks, "CMYK"), "JPEG", quality=100)):
        assert pixels(file)[100] == pytest.approx(expected, abs=3)
        assert decode(file, max_pixels=BUDGET).mode == "CMYK"


@pytest.mark.parametrize("format", ["PNG", "BMP", "GIF", "TIFF", "WEBP"])
def test_lossless_formats_give_back_a_two_colour_picture(format: str) -> None:
    picture = Image.new("RGB", (5, 3), (200, 30, 40))
    picture.putpixel((4, 2), (1, 2, 3))
    options = {"lossless": True} if format == "WEBP" else {}
    source = decode(saved(picture, format, **options), max_pixels=BUDGET)
    assert source.picture.tobytes() == picture.tobytes()
    assert (source.format, source.width, source.height) == (format.lower(), 5, 3)


def test_a_one_bit_bmp_and_a_transparent_gif_decode() -> None:
    bits = Image.new("1", (2, 1))
    bits.putpixel((1, 0), 1)
    assert pixels(saved(bits, "BMP")) == grey(0, 255)
    gif = Image.new("P", (2, 1))
    gif.putpalette([9, 8, 7, 60, 50, 40])
    gif.putpixel((1, 0), 1)
    file = saved(gif, "GIF", transparency=1)
    assert (pixels(file), alphas(file)) == ([[9, 8, 7], [255, 255, 255]], [255, 0])


# EXIF 3.0, table 6: where the stored row 0 and column 0 are seen; here as numpy operations on rows x columns.
TURNS = {
    1: lambda stored: stored,
    2: lambda stored: stored[:, ::-1],
    3: lambda stored: stored[::-1, ::-1],
    4: lambda stored: stored[::-1],
    5: lambda stored: stored.swapaxes(0, 1),
    6: lambda stored: np.rot90(stored, -1),
    7: lambda stored: stored[::-1, ::-1].swapaxes(0, 1),
    8: lambda stored: np.rot90(stored, 1),
}


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("format", ["PNG", "WEBP", "TIFF", "JPEG"])
def test_each_exif_orientation_is_applied(format: str, orientation: int) -> None:
    stored = photograph((40, 24))
    if format == "JPEG":
        # What the JPEG holds without the orientation is what the turned one must show.
        stored = decode(saved(stored, format), max_pixels=BUDGET).picture
    exif = Image.Exif()
    exif[0x0112] = orientation
    options: dict[str, dict[str, Any]] = {"WEBP": {"lossless": True}, "JPEG": {"quality": 100}}
    file = saved(stored, format, exif=exif, **options.get(format, {}))
    source = decode(file, max_pixels=BUDGET)
    expected = TURNS[orientation](np.asarray(stored))
    assert (source.height, source.width) == expected.shape[:2]
    assert np.abs(np.asarray(source.picture).astype(int) - expected).max() <= (24 if format == "JPEG" else 0)


@pytest.mark.parametrize("tiff_header", [b"", b"MM", b"II*\0\xff\xff\xff\xff", b"MM\0*\0\0\0\x08\xff\xff"])
def test_damaged_exif_counts_as_upright(tiff_header: bytes) -> None:
    file = with_png_chunk(saved(photograph(), "PNG"), b"eXIf", tiff_header)
    assert decode(file, max_pixels=BUDGET).picture.tobytes() == photograph().tobytes()


@pytest.mark.parametrize(
    ("format", "options", "private"),
    [
        ("GIF", {}, False),
        ("GIF", {"comment": b"hello"}, True),
        ("TIFF", {}, False),
        ("TIFF", {"description": "hello"}, True),
        ("BMP", {}, False),
    ],
)
def test_private_metadata_is_seen_in_formats_that_are_never_copied(
    format: str, options: dict[str, Any], private: bool
) -> None:
    assert decode(saved(photograph(), format, **options), max_pixels=BUDGET).private_metadata is private


def test_threads_decoding_at_once_see_what_one_alone_sees() -> None:
    files = [saved(photograph((300, 200)), format) for format in ("PNG", "JPEG", "WEBP", "GIF", "TIFF", "BMP")] * 5
    alone = [decode(file, max_pixels=BUDGET).picture.tobytes() for file in files]
    with ThreadPoolExecutor(6) as pool:
        together = list(pool.map(lambda file: decode(file, max_pixels=BUDGET).picture.tobytes(), files))
    assert together == alone
