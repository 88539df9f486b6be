"""Colour profiles: applied where they are sound, ignored with a note where they are not."""

from __future__ import annotations

import zlib

import numpy as np
import pytest
from PIL import Image, ImageCms

from overpaint_worker.imaging.decode import decode

from .files import ADOBE_TO_XYZ, BUDGET, photograph, profile, saved, tiff, with_png_chunk

# Lindbloom's table (brucelindbloom.com): XYZ under D50 to linear sRGB.
XYZ_TO_SRGB = np.array(
    [[3.1338561, -1.6168667, -0.4906146], [-0.9787684, 1.9161415, 0.0334540], [0.0719453, -0.2289914, 1.4052427]]
)


def srgb_curve(linear: np.ndarray) -> np.ndarray:
    """IEC 61966-2-1."""
    linear = np.clip(linear, 0, 1)
    return 255 * np.where(linear <= 0.0031308, 12.92 * linear, 1.055 * linear ** (1 / 2.4) - 0.055)


@pytest.mark.parametrize("format", ["PNG", "JPEG", "WEBP", "TIFF"])
def test_adobe_rgb_is_converted_as_the_matrices_say(format: str) -> None:
    colour = (180, 120, 90)
    file = saved(Image.new("RGB", (16, 16), colour), format, icc_profile=profile(b"RGB", 563 / 256, ADOBE_TO_XYZ))
    source = decode(file, max_pixels=BUDGET)
    expected = srgb_curve(XYZ_TO_SRGB @ ADOBE_TO_XYZ @ (np.array(colour) / 255) ** (563 / 256))
    assert np.asarray(source.picture)[8, 8] == pytest.approx(expected, abs=3)
    assert source.notes == ("colours converted to sRGB from 'hand-made'",)


def test_linear_grey_becomes_srgb_grey() -> None:
    source = decode(saved(Image.new("L", (4, 4), 55), "PNG", icc_profile=profile(b"GRAY", 1.0)), max_pixels=BUDGET)
    assert np.asarray(source.picture)[0, 0] == pytest.approx(srgb_curve(np.full(3, 55 / 255)), abs=2)


def test_an_srgb_profile_leaves_every_pixel_as_it_is() -> None:
    srgb = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    source = decode(saved(photograph(), "PNG", icc_profile=srgb), max_pixels=BUDGET)
    assert (source.picture.tobytes(), source.notes) == (photograph().tobytes(), ())


SOUND = profile(b"RGB", 2.2, ADOBE_TO_XYZ)


@pytest.mark.parametrize(
    "damaged",
    [
        b"nonsense",
        SOUND[:200],
        SOUND[:140] + b"\xff" * 60 + SOUND[200:],
        SOUND[:16] + b"CMYK" + SOUND[20:],
        profile(b"GRAY", 2.2),
    ],
)
@pytest.mark.parametrize("format", ["PNG", "JPEG", "WEBP", "TIFF"])
def test_a_damaged_or_foreign_profile_is_noted_and_ignored(format: str, damaged: bytes) -> None:
    plain = decode(saved(photograph(), format), max_pixels=BUDGET)
    source = decode(saved(photograph(), format, icc_profile=damaged), max_pixels=BUDGET)
    assert source.picture.tobytes() == plain.picture.tobytes()
    assert len(source.notes) == 1
    assert source.notes[0].startswith("ICC profile ignored")


@pytest.mark.parametrize(
    "chunk",
    [
        b"",
        b"name only",
        b"name\0\0not deflate",
        b"name\1\0" + zlib.compress(SOUND),
        b"n\0\0" + zlib.compress(bytes(2 << 20)),
    ],
)
def test_a_png_profile_that_cannot_be_unpacked_is_noted_and_ignored(chunk: bytes) -> None:
    source = decode(with_png_chunk(saved(photograph(), "PNG"), b"iCCP", chunk), max_pixels=BUDGET)
    assert source.picture.tobytes() == photograph().tobytes()
    assert source.notes == ("ICC profile ignored: it cannot be unpacked",)


def test_a_rgb_profile_on_a_16_bit_grey_tiff_is_ignored() -> None:
    file = tiff(np.full((4, 4), 32896, dtype=np.uint16), iccprofile=SOUND)
    source = decode(file, max_pixels=BUDGET)
    assert source.picture.getpixel((0, 0)) == (128, 128, 128)
    assert len(source.notes) == 2
