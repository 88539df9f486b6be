"""Edges are where the brightness changes, one pixel wide."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image, ImageDraw
from skimage import data
from skimage.feature import canny

from overpaint_worker.imaging.edges import edges


def found(picture: Image.Image, **settings: float) -> NDArray[np.bool_]:
    """Where the edges are; that they are an RGB picture of black and white is checked on the way."""
    drawn = edges(picture, **settings)
    assert (drawn.mode, drawn.size) == ("RGB", picture.size)
    pixels = np.asarray(drawn)
    assert set(np.unique(pixels)) <= {0, 255}
    assert (pixels == pixels[..., :1]).all()
    return pixels[..., 0].astype(np.bool_)


def square(ink: int = 255, ground: int = 0) -> Image.Image:
    """64 x 48 pixels with a square over 16..31 in both directions."""
    picture = Image.new("RGB", (64, 48), (ground,) * 3)
    ImageDraw.Draw(picture).rectangle((16, 16, 31, 31), fill=(ink,) * 3)
    return picture


def test_a_square_gives_its_outline() -> None:
    """Given a white square, when its edges are found, then they lie within a pixel of its outline and nowhere else."""
    rows, columns = np.nonzero(found(square()))

    # The step between pixels 15 and 16, and that between 31 and 32.
    steps = np.array([15.5, 31.5])
    away = [np.abs(each[:, None] - steps).min(axis=1) for each in (rows, columns)]
    inside = (rows >= 15) & (rows <= 32) & (columns >= 15) & (columns <= 32)
    assert (np.minimum(*away) <= 1).all()
    assert inside.all()
    # Every row and column that the square crosses has both of its sides, and nothing between.
    drawn = found(square())
    assert not drawn[18:30, 18:30].any()
    for across in (drawn[18:30], drawn[:, 18:30].T):
        assert across[:, 15:17].any(axis=1).all()
        assert across[:, 31:33].any(axis=1).all()


def test_a_flat_picture_has_none() -> None:
    """Given a picture of one colour, when its edges are found, then there are none."""
    assert not found(Image.new("RGB", (20, 10), "orange")).any()


@pytest.mark.parametrize("levels", [4, 10, 40])
def test_a_step_is_an_edge_where_its_gradient_is_above_high(levels: int) -> None:
    """Given a step of a few levels, when `high` is 0.009 or 0.011 for each level, then it is an edge or is none."""
    stepped = square(ink=100 + levels, ground=100).crop((0, 16, 64, 32))

    assert found(stepped, low=0.009 * levels, high=0.009 * levels).any()
    assert not found(stepped, low=0.011 * levels, high=0.011 * levels).any()


def test_low_continues_an_edge_and_begins_none() -> None:
    """Given a line that fades, when its faint end is above `low` alone, then it is an edge as part of the line."""
    ramp = np.linspace(1, 0.1, 64)[:, None] * np.repeat([0.0, 0.2], 32)
    picture = Image.fromarray((ramp * 255).astype(np.uint8)).convert("RGB")
    faint_end = picture.crop((0, 50, 64, 64))

    assert not found(picture, low=0.25, high=0.25)[52:60].any()
    assert found(picture, low=0.02, high=0.25)[52:60].any()
    assert not found(faint_end, low=0.02, high=0.25).any()


@pytest.mark.parametrize(("low", "high", "sigma"), [(0.1, 0.2, 1.0), (0.02, 0.15, 1.0), (0.1, 0.2, 2.5)])
def test_a_photograph_as_scikit_image_has_it(low: float, high: float, sigma: float) -> None:
    """Given a photograph, when its edges are found, then they are those of scikit-image in its brightness."""
    picture = Image.fromarray(data.astronaut()).resize((96, 96))
    grey = np.asarray(picture.convert("L")) / 255

    expected = canny(grey, sigma=sigma, low_threshold=low, high_threshold=high)

    assert np.array_equal(found(picture, low=low, high=high, sigma=sigma), expected)
    assert 0.01 < expected.mean() < 0.5
