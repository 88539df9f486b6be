"""How large pictures are cut into tiles: arithmetic alone."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from overpaint_worker.engine.tiles import Size, Tiling

SIDES = st.integers(1, 150)
SIZES = st.tuples(SIDES, SIDES)


@st.composite
def tilings(draw: st.DrawFn) -> Tiling:
    side = draw(st.integers(2, 40))
    return Tiling(side, draw(st.integers(1, side - 1)))


def laid(tiling: Tiling, size: Size, scale: int = 1) -> NDArray[np.float64]:
    """What all tiles together count at each pixel."""
    total = np.zeros((size[1] * scale, size[0] * scale))
    for (left, top, right, bottom), (down, across) in zip(tiling.tiles(size), tiling.fades(size, scale), strict=True):
        weights = down[:, None] * across[None, :]
        assert weights.min() >= 0
        total[top * scale : bottom * scale, left * scale : right * scale] += weights
    return total


@settings(deadline=None)
@given(tiling=tilings(), size=SIZES)
def test_tiles_lie_inside_and_cover_and_are_all_of_one_size(tiling: Tiling, size: Size) -> None:
    """Given any tiling and size, when it is cut, then all tiles are equal, inside, no larger than a side, and cover."""
    covered = np.zeros((size[1], size[0]), bool)
    for left, top, right, bottom in tiling.tiles(size):
        assert 0 <= left < right <= size[0]
        assert 0 <= top < bottom <= size[1]
        assert (right - left, bottom - top) == (min(size[0], tiling.side), min(size[1], tiling.side))
        covered[top:bottom, left:right] = True
    assert covered.all()


@settings(deadline=None)
@given(tiling=tilings(), length=SIDES)
def test_neighbours_share_the_overlap_and_no_tile_is_spare(tiling: Tiling, length: int) -> None:
    """Given any length, when it is cut, then neighbours share the overlap or more, and fewer tiles could not do."""
    starts = [left for left, _, _, _ in tiling.tiles((length, 1))]
    steps = np.diff(starts)
    assert (steps > 0).all()
    assert (tiling.side - steps >= tiling.overlap).all()
    if len(starts) > 1:
        assert tiling.side + (len(starts) - 2) * (tiling.side - tiling.overlap) < length


@settings(deadline=None)
@given(tiling=tilings(), size=SIZES, scale=st.sampled_from([1, 4]))
def test_weights_add_up_to_one(tiling: Tiling, size: Size, scale: int) -> None:
    """Given any tiling and size, when its weights are laid over each other, then every pixel counts 1 in all."""
    np.testing.assert_allclose(laid(tiling, size, scale), 1, atol=1e-5)
    assert sum(tiling.shares(size)) == pytest.approx(1, abs=1e-4)


@settings(deadline=None)
@given(tiling=tilings(), size=SIZES)
def test_one_tile_holds_what_fits(tiling: Tiling, size: Size) -> None:
    """Given a picture no larger than a tile, when it is cut, then it is one tile that counts in full; else several."""
    assert tiling.fits(size) == (len(tiling.tiles(size)) == 1)
    if tiling.fits(size):
        (fades,) = tiling.fades(size)
        assert np.array_equal(np.outer(*fades), np.ones((size[1], size[0])))


def test_a_tile_fades_towards_its_neighbours_and_its_rim_counts_nothing() -> None:
    """Given tiles of 32 that overlap by 16, when they are blended, then over the overlap the one gives way to the
    other without a jump, its outermost 4 pixels count nothing, and the picture's own edge counts in full."""
    (_, first), (_, second) = Tiling(32, 16).fades((48, 1))
    assert (first[:16] == 1).all()
    assert (first[28:] == 0).all()
    assert (second[:4] == 0).all()
    np.testing.assert_allclose(first[16:] + second[:16], 1, atol=1e-6)
    assert (np.diff(first) <= 0).all()
    assert np.abs(np.diff(first)).max() < 0.2


@pytest.mark.parametrize("overlap", [0, 8, 9, -1])
def test_an_overlap_that_cannot_be_is_refused(overlap: int) -> None:
    """Given an overlap of none or of a whole tile, when a tiling is made, then it names both numbers."""
    with pytest.raises(ValueError, match=f"tiles of 8 pixels overlap by {overlap}; give 1 to 7"):
        Tiling(8, overlap)
