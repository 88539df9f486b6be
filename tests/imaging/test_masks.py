"""Masks keep black black and white white through scaling, fitting, fading and laying back."""

from __future__ import annotations

from typing import Any, get_args

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from PIL import Image
from scipy.ndimage import gaussian_filter

from overpaint_worker.imaging import masks
from overpaint_worker.imaging.fit import fit
from overpaint_worker.imaging.placement import Method, Size, plan

from .files import photograph

SIZES = st.tuples(st.integers(1, 70), st.integers(1, 70))
THIN = st.one_of(SIZES, st.tuples(st.just(1), st.integers(1, 90)), st.tuples(st.integers(1, 90), st.just(1)))
METHODS = st.sampled_from(get_args(Method))
SEEDS = st.integers(0, 2**32 - 1)


def blotches(size: Size, seed: int, *, greys: bool = False) -> Image.Image:
    """Random rectangles of white, or of any grey, on black."""
    random = np.random.default_rng(seed)
    drawn = np.zeros((size[1], size[0]), np.uint8)
    for _ in range(random.integers(1, 4)):
        x, y = random.integers(0, size[0]), random.integers(0, size[1])
        grey = random.integers(1, 256) if greys else 255
        drawn[y : y + random.integers(1, size[1] + 1), x : x + random.integers(1, size[0] + 1)] = grey
    return Image.fromarray(drawn)


def array(picture: Image.Image) -> NDArray[Any]:
    return np.asarray(picture)


def under(position: int, made: int, whole: int) -> slice:
    """The pixels of `whole` that pixel `position` of `made` covers, if only in part."""
    return slice(position * whole // made, -(-(position + 1) * whole // made))


@settings(deadline=None, max_examples=40)
@given(mask=THIN, size=THIN, seed=SEEDS, greys=st.booleans())
def test_over_black_alone_it_is_black_and_over_white_alone_white(
    mask: Size, size: Size, seed: int, greys: bool
) -> None:
    """Given any mask, when it is scaled to any size, then no edge rings or bleeds into what is black or white."""
    before = array(blotches(mask, seed, greys=greys))
    after = array(masks.scaled(blotches(mask, seed, greys=greys), size))
    assert after.shape == (size[1], size[0])
    for y in range(size[1]):
        for x in range(size[0]):
            covered = before[under(y, size[1], mask[1]), under(x, size[0], mask[0])]
            if (covered == covered.flat[0]).all() and covered.flat[0] in (0, 255):
                assert after[y, x] == covered.flat[0]


def test_scaling_by_whole_numbers_averages_and_repeats() -> None:
    """Given halves and quarters, when a mask shrinks or grows, then it is as by hand; greys grow without steps."""
    mask = blotches((24, 16), 3, greys=True)
    small = array(mask).reshape(8, 2, 12, 2).mean((1, 3))
    assert np.abs(array(masks.scaled(mask, (12, 8))).astype(float) - small).max() <= 32  # Edges are smoothed.
    binary = blotches((12, 8), 5)
    assert np.array_equal(array(masks.scaled(binary, (24, 16))), array(binary).repeat(2, 0).repeat(2, 1))
    ramp = Image.fromarray(np.array([[50, 150]], np.uint8))
    grown = array(masks.scaled(ramp, (20, 1)))[0].astype(int)
    assert (np.diff(grown) >= 0).all()
    assert np.diff(grown).max() <= 11


@settings(deadline=None, max_examples=80)
@given(source=THIN, mask=THIN, method=METHODS, larger=st.sampled_from([1, 1.3, 2]))
@example(source=(1, 90), mask=(90, 1), method="crop", larger=1.3)
def test_padding_is_never_repainted(source: Size, mask: Size, method: Method, larger: float) -> None:
    """Given a white mask of any size, when it is laid on a fitted source, then it is white on the source alone."""
    placement = plan(source, size=(64, 48), method=method)
    size = (round(placement.model[0] * larger), round(placement.model[1] * larger))
    laid = array(masks.laid(Image.new("L", mask, 255), placement, size))
    # Of an enlarged picture a side may be rounded.
    across, down = size[0] / placement.model[0], size[1] / placement.model[1]
    left, top, right, bottom = placement.content
    inside = np.zeros_like(laid)
    inside[round(top * down) : round(bottom * down), round(left * across) : round(right * across)] = 255
    assert np.array_equal(laid, inside)


def test_it_lies_where_its_picture_lies() -> None:
    """Given a source and a mask of it, when both are fitted, then they agree, also for a mask of half the size."""
    drawn = np.zeros((48, 90), np.uint8)
    drawn[10:30, 20:60] = 255
    half = Image.fromarray(drawn[::2, ::2].copy())
    for method in get_args(Method):
        fitted = fit(Image.fromarray(drawn), size=64, method=method)
        for mask in (Image.fromarray(drawn), half):
            laid = array(masks.laid(mask, fitted.placement, fitted.picture.size)).copy()
            left, top, right, bottom = fitted.placement.content
            content = np.s_[top:bottom, left:right]
            away = np.abs(laid[content].astype(int) - array(fitted.picture)[content])
            # But for the edge, where Lanczos rings.
            assert (away > 90).mean() < 0.02


@given(grey=st.integers(0, 255), threshold=st.floats(0.001, 1))
def test_threshold_is_a_share_of_white(grey: int, threshold: float) -> None:
    """Given any grey, when it is binarised at a share of white, then it is white from there on."""
    (made,) = array(masks.binarised(Image.new("L", (1, 1), grey), threshold * 255)).flat
    assert made == (255 if grey / 255 >= threshold else 0) or grey == threshold * 255


def test_a_model_s_own_half_is_where_diffusers_has_it() -> None:
    """Given all greys, when they are binarised for the model, then as diffusers rounds them: 127 black, 128 white."""
    ramp = np.arange(256, dtype=np.uint8)[None]
    expected = np.where(ramp / 255 >= 0.5, 255, 0)
    assert np.array_equal(array(masks.binarised(Image.fromarray(ramp))), expected)


@pytest.mark.parametrize("sigma", [0.5, 1, 3, 12])
def test_feather_is_a_gaussian_of_that_standard_deviation(sigma: float) -> None:
    """Given a mask, when it is feathered, then it is within 3 % of SciPy's Gaussian, and its edge has that spread."""
    mask = Image.new("L", (160, 160))
    mask.paste(255, (60, 50, 100, 110))
    expected = gaussian_filter(array(mask).astype(float), sigma, mode="nearest")
    assert np.abs(array(masks.feathered(mask, sigma)) - expected).max() <= 0.03 * 255
    edge = Image.new("L", (200, 9))
    edge.paste(255, (100, 0, 200, 9))
    slope = np.diff(array(masks.feathered(edge, sigma))[4].astype(float)) / 255
    places = np.arange(199) - 99
    assert slope @ places == pytest.approx(0, abs=0.02)
    assert np.sqrt(slope @ places**2) == pytest.approx(sigma, rel=0.05)


@settings(deadline=None, max_examples=40)
@given(size=THIN, sigma=st.floats(0, 40))
def test_feather_leaves_what_has_no_edge(size: Size, sigma: float) -> None:
    """Given masks all white or all black, when they are feathered, then they stay so up to their border."""
    for grey in (0, 255):
        assert set(array(masks.feathered(Image.new("L", size, grey), sigma)).flat) == {grey}


def test_feather_may_differ_down_and_across() -> None:
    """Given a stretched source, when its mask is feathered across alone, then edges above and below stay sharp."""
    mask = Image.new("L", (40, 40))
    mask.paste(255, (10, 10, 30, 30))
    made = array(masks.feathered(mask, 3, 0))
    assert set(made[:, 20]) == {0, made[20, 20]}
    assert len(set(made[20])) > 5


@given(size=THIN, padding=st.integers(0, 100), seed=SEEDS)
def test_the_region_holds_the_mask_and_its_padding(size: Size, padding: int, seed: int) -> None:
    """Given any mask, when the region around it is taken, then it is the smallest square that holds both."""
    mask = blotches(size, seed)
    left, top, right, bottom = masks.region_around(mask, padding)
    rows, columns = (np.flatnonzero(array(mask).max(axis)) for axis in (1, 0))
    wanted = [
        min(int(found[-1]) + 1 + padding, side) - max(int(found[0]) - padding, 0)
        for found, side in zip((columns, rows), size, strict=True)
    ]
    assert 0 <= left <= max(columns[0] - padding, 0)
    assert 0 <= top <= max(rows[0] - padding, 0)
    assert min(columns[-1] + 1 + padding, size[0]) <= right <= size[0]
    assert min(rows[-1] + 1 + padding, size[1]) <= bottom <= size[1]
    assert (right - left, bottom - top) == tuple(min(max(wanted), side) for side in size)


def test_nothing_has_no_region() -> None:
    with pytest.raises(ValueError, match="all black"):
        masks.region_around(Image.new("L", (9, 9)), 3)


@settings(deadline=None, max_examples=60)
@given(size=THIN, seed=SEEDS, greys=st.booleans())
def test_laid_back_the_original_is_its_own_to_the_bit_where_the_mask_is_black(
    size: Size, seed: int, greys: bool
) -> None:
    """Given any mask, when a painted picture is laid back, then black is the original and white the painted one."""
    original, painted, seen = (noise(size, seed + offset) for offset in range(3))
    mask = blotches(size, seed, greys=greys)
    made = array(masks.restored_detail(painted, original, seen, mask))
    black, white = array(mask) == 0, array(mask) == 255
    assert np.array_equal(made[black], array(original)[black])
    assert np.array_equal(made[white], array(painted)[white])


def test_greys_blend_what_was_painted_with_the_original_and_not_with_what_scaling_left_of_it() -> None:
    """Given a picture blended by its mask at half the size, when it is laid back, then as if blended at full size."""
    original = photograph((64, 48))
    small = original.resize((32, 24), Image.Resampling.LANCZOS)
    mask = Image.new("L", (64, 48), 100)
    half = Image.blend(small, Image.new("RGB", small.size, (200, 30, 90)), 100 / 255)
    painted, seen = (picture.resize((64, 48), Image.Resampling.LANCZOS) for picture in (half, small))
    made = array(masks.restored_detail(painted, original, seen, mask)).astype(float)
    expected = array(original) * (155 / 255) + np.array([200, 30, 90]) * (100 / 255)
    # Three roundings, and Lanczos clips what rings beyond white.
    assert np.abs(made - expected).mean() < 1
    twice = array(Image.composite(painted, original, mask)).astype(float)
    assert np.abs(twice - expected).mean() > 10


@pytest.mark.parametrize(
    ("mask", "source", "same"),
    [
        ((64, 48), (1000, 747), True),
        ((1, 5), (3, 14), True),
        ((1, 1), (1, 1), True),
        ((104, 100), (100, 100), True),
        ((110, 100), (100, 100), False),
        ((512, 512), (1024, 768), False),
        ((768, 1024), (1024, 768), False),
        ((1, 90), (90, 1), False),
    ],
)
def test_the_same_aspect_is_meant_within_rounding(mask: Size, source: Size, same: bool) -> None:
    """Given sizes, when their proportions are compared, then rounding does not count and anything else does."""
    assert masks.same_aspect(mask, source) is same


def noise(size: Size, seed: int) -> Image.Image:
    drawn = np.random.default_rng(seed).integers(0, 256, (size[1], size[0], 3), dtype=np.uint8)
    return Image.fromarray(drawn)
