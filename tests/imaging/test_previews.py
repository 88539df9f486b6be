"""Previews as files: small, without padding, and marked."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from overpaint_worker.imaging.placement import Method, plan
from overpaint_worker.imaging.previews import encoded

from .files import AI
from .readers import exiftool, opened


def noise(width: int, height: int) -> Image.Image:
    """Nothing is harder to encode."""
    bits = np.random.default_rng(0).integers(0, 2, (height, width, 3), dtype=np.uint8)
    return Image.fromarray(bits * 255)


@pytest.mark.parametrize("size", [(64, 64), (256, 256), (16, 16), (160, 96), (1, 1)])
def test_any_preview_fits_into_8_kilobytes_and_64_pixels(size: tuple[int, int]) -> None:
    data = encoded(noise(*size), plan(size, size=size, method="keep", multiple=1))

    assert len(data) <= 8192
    assert max(opened(data).size) == min(64, max(size))


@pytest.mark.parametrize(
    ("method", "source", "shown"),
    [
        ("pad", (96, 64), (16, 11)),
        ("pad", (640, 20), (16, 1)),
        ("crop", (96, 64), (16, 16)),
        ("stretch", (96, 64), (16, 11)),
        ("bucket", (128, 32), (32, 8)),
    ],
)
def test_a_preview_has_the_shape_of_the_picture_to_come(
    method: Method, source: tuple[int, int], shown: tuple[int, int]
) -> None:
    """Given a source that was fitted to 64 x 64, when latents of a quarter of that are shown, then without padding."""
    placement = plan(source, size=64, method=method)
    latents = Image.new("RGB", (placement.model[0] // 4, placement.model[1] // 4))

    picture = opened(encoded(latents, placement))

    assert (picture.format, picture.size) == ("WEBP", shown)


def test_padding_is_cut_off_and_nothing_else() -> None:
    """Given a padded picture whose content is red, when it is shown, then all of it is red."""
    placement = plan((96, 48), size=64, method="pad")
    latents = Image.new("RGB", (16, 16), "blue")
    latents.paste((255, 0, 0), (0, 4, 16, 12))

    picture = opened(encoded(latents, placement)).convert("RGB")

    assert picture.size == (16, 8)
    assert np.abs(np.asarray(picture, int) - (255, 0, 0)).max() < 12


def test_exiftool_reads_the_ai_mark(tmp_path: Path) -> None:
    data = encoded(noise(16, 16), plan((64, 64), size=64, method="keep"))

    found = exiftool(data, tmp_path, "-validate", "-all")

    assert found["XMP-iptcExt:DigitalSourceType"] == AI
    assert found["ExifTool:Validate"] == "OK"
