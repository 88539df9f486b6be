"""Pictures take the palette of another: by statistics, by histogram, by coarse scales."""

from __future__ import annotations

from typing import get_args

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from PIL import Image
from scipy.ndimage import convolve1d
from skimage import data
from skimage.color import deltaE_cie76, lab2rgb, rgb2lab
from skimage.exposure import match_histograms

from overpaint_worker.imaging import colour
from overpaint_worker.imaging.colour import Method, continued, match_colour, palette_distance

from .files import photograph

METHODS = get_args(Method)
EVERY_METHOD = pytest.mark.parametrize("method", METHODS)
SIDES = st.integers(1, 40)


def pixels(picture: Image.Image) -> NDArray[np.float64]:
    return np.asarray(picture, np.float64)


def coffee(size: tuple[int, int] = (80, 56)) -> Image.Image:
    return Image.fromarray(data.coffee()).resize(size, Image.Resampling.LANCZOS)


def muted(picture: Image.Image) -> Image.Image:
    """Nearer grey, so that no colour leaves sRGB when it is moved a little."""
    return Image.blend(picture, Image.new("RGB", picture.size, (120, 124, 118)), 0.6)


def noise(size: tuple[int, int], seed: int = 0, low: int = 0, high: int = 256) -> Image.Image:
    values = np.random.default_rng(seed).integers(low, high, (size[1], size[0], 3), dtype=np.uint8)
    return Image.fromarray(values)


def test_lab_is_the_formula_of_reinhard() -> None:
    """Given two muted photographs, when the one takes the other's statistics, then it is what the paper's formula
    gives."""
    picture, reference = muted(photograph()), muted(coffee())
    lab, its = (rgb2lab(pixels(each) / 255) for each in (picture, reference))
    moved = (lab - lab.mean((0, 1))) / lab.std((0, 1)) * its.std((0, 1)) + its.mean((0, 1))

    matched = match_colour(picture, reference, method="lab")

    assert np.abs(pixels(matched) - lab2rgb(moved) * 255).max() < 0.51
    result = rgb2lab(pixels(matched) / 255)
    assert result.mean((0, 1)) == pytest.approx(its.mean((0, 1)), abs=0.2)
    assert result.std((0, 1)) == pytest.approx(its.std((0, 1)), abs=0.2)


def test_histogram_is_that_of_the_reference() -> None:
    """Given two photographs, when the one takes the other's histogram, then it is what scikit-image's own function
    gives for real numbers."""
    picture, reference = photograph(), coffee()
    expected = match_histograms(pixels(picture), pixels(reference), channel_axis=-1)
    assert np.abs(pixels(match_colour(picture, reference, method="histogram")) - expected).max() < 0.51


def test_wavelet_puts_the_picture_s_detail_on_the_reference_s_coarse_colours() -> None:
    """Given pictures of 128 pixels, when one takes the other's coarse colours, then it is the sum of both parts of the
    a trous decomposition, made with scipy."""
    picture, reference = muted(photograph((160, 128))), muted(coffee((160, 128)))

    def coarse(values: NDArray[np.float64]) -> NDArray[np.float64]:
        for kernel in ([1, 2, 1], [1, 0, 2, 0, 1], [1, 0, 0, 0, 2, 0, 0, 0, 1]):
            for axis in (0, 1):
                values = convolve1d(values, np.array(kernel) / 4, axis=axis, mode="nearest")
        return values

    expected = pixels(picture) - coarse(pixels(picture)) + coarse(pixels(reference))
    assert np.abs(pixels(match_colour(picture, reference, method="wavelet")) - expected).max() < 0.51


@EVERY_METHOD
def test_a_picture_takes_its_own_colours_as_they_are(method: Method) -> None:
    """Given a picture, when it is matched with itself, then it is the same to the bit."""
    for picture in (photograph(), noise((31, 17)), photograph().convert("L").convert("RGB"), Image.new("RGB", (5, 4))):
        assert match_colour(picture, picture, method=method).tobytes() == picture.tobytes()


@pytest.mark.parametrize("method", ["lab", "histogram"])
def test_where_the_colours_are_does_not_matter(method: Method) -> None:
    """Given a reference of the same pixels at other places, when a picture is matched with it, then it stays."""
    picture = photograph()
    turned = picture.transpose(Image.Transpose.ROTATE_90)
    assert match_colour(picture, turned, method=method).tobytes() == picture.tobytes()


@EVERY_METHOD
def test_the_amount_mixes(method: Method) -> None:
    """Given a picture, when the amount is 0, a half and 1, then the half is in the middle and 0 is the picture."""
    picture, reference = photograph(), coffee()
    none, half, full = (pixels(match_colour(picture, reference, method=method, amount=a)) for a in (0, 0.5, 1))
    assert np.array_equal(none, pixels(picture))
    # What lies beyond white or black is cut off only after mixing.
    inside = (full > 0) & (full < 255)
    assert np.abs(half - (none + full) / 2)[inside].max() <= 1


@settings(deadline=None, max_examples=60)
@given(
    method=st.sampled_from(METHODS),
    size=st.tuples(SIDES, SIDES),
    other=st.tuples(SIDES, SIDES),
    kinds=st.tuples(*[st.sampled_from(["noise", "flat", "grey"])] * 2),
    seed=st.integers(0, 1000),
)
def test_any_picture_takes_the_colours_of_any_other(
    method: Method, size: tuple[int, int], other: tuple[int, int], kinds: tuple[str, str], seed: int
) -> None:
    """Given odd, tiny, flat and grey pictures, when one takes the other's colours, then it keeps its size, and a flat
    or grey reference leaves it as flat or grey where the method goes by statistics."""

    def of(kind: str, size: tuple[int, int], seed: int) -> Image.Image:
        made = noise((1, 1), seed).resize(size) if kind == "flat" else noise(size, seed)
        return made.convert("L") if kind == "grey" else made

    picture, reference = of(kinds[0], size, seed), of(kinds[1], other, seed + 1)
    matched = match_colour(picture, reference, method=method)
    assert (matched.size, matched.mode) == (size, "RGB")
    if method != "wavelet" and kinds[1] == "flat":
        assert np.abs(pixels(matched) - pixels(reference)[0, 0, ...]).max() <= 1
    if method == "lab" and kinds[1] == "grey":
        assert np.ptp(pixels(matched), axis=-1).max() <= 1


@pytest.mark.parametrize("method", ["lab", "histogram"])
def test_a_flat_picture_becomes_the_mean(method: Method) -> None:
    """Given a picture of one colour, when it takes a photograph's, then it has the photograph's mean, not a colour from
    one end of its palette."""
    reference = coffee()
    matched = match_colour(Image.new("RGB", (9, 7), (200, 20, 90)), reference, method=method)
    (value,) = np.unique(pixels(matched).reshape(-1, 3), axis=0)
    if method == "lab":
        mean = lab2rgb(rgb2lab(pixels(reference) / 255).mean((0, 1))) * 255
    else:
        mean = pixels(reference).mean((0, 1))
    assert np.abs(value - mean).max() <= 1


def test_the_noise_of_a_nearly_flat_picture_is_not_made_its_colours() -> None:
    """Given a grey picture with noise of a level, when it takes a colourful palette, then the noise stays small."""
    matched = match_colour(noise((64, 64), low=127, high=130), photograph(), method="lab")
    assert pixels(matched).std((0, 1)).max() < colour.MOST_GAIN * 1.5
    assert pixels(photograph()).std((0, 1)).min() > 60


@EVERY_METHOD
def test_only_the_part_that_is_asked_for_changes(method: Method) -> None:
    """Given a picture that differs from its reference in the right half alone, when that half is matched, then the left
    stays to the bit, and the right becomes what it would alone."""
    reference = photograph((64, 48))
    picture = reference.copy()
    picture.paste(noise((32, 48), 3), (32, 0))
    where = Image.new("L", picture.size)
    where.paste(255, (32, 0, 64, 48))

    matched = match_colour(picture, reference, method=method, where=where)

    assert matched.crop((0, 0, 32, 48)).tobytes() == picture.crop((0, 0, 32, 48)).tobytes()
    right = (32, 0, 64, 48)
    assert matched.crop(right).tobytes() != picture.crop(right).tobytes()
    if method != "wavelet":
        alone = match_colour(picture.crop(right), reference.crop(right), method=method)
        assert matched.crop(right).tobytes() == alone.tobytes()


@EVERY_METHOD
def test_a_soft_mask_mixes_and_an_empty_one_changes_nothing(method: Method) -> None:
    """Given a mask of half grey, when a picture is matched within it, then it goes half the way; within none, none."""
    picture, reference = photograph(), coffee((64, 48))
    grey, empty = (Image.new("L", picture.size, value) for value in (128, 0))
    half = match_colour(picture, reference, method=method, where=grey)
    expected = match_colour(picture, reference, method=method, amount=128 / 255)
    assert np.abs(pixels(half) - pixels(expected)).max() <= 1
    assert match_colour(picture, reference, method=method, where=empty).tobytes() == picture.tobytes()


def test_colours_beyond_srgb_are_cut_off_in_silence() -> None:
    """Given a palette of strong yellow and black, when noise takes it, then some of it lies far beyond sRGB, and no
    warning comes."""
    reference = Image.new("RGB", (20, 20))
    reference.paste((255, 235, 0), (0, 0, 20, 10))
    matched = pixels(match_colour(noise((40, 40)), reference, method="lab"))
    assert {0, 255} <= set(np.unique(matched))


def test_large_pictures_go_in_parts(monkeypatch: pytest.MonkeyPatch) -> None:
    """Given a picture larger than is converted at once, when it is matched, then no seam shows."""
    whole = match_colour(photograph(), coffee(), method="lab")
    monkeypatch.setattr(colour, "CHUNK", 1000)
    assert np.abs(pixels(match_colour(photograph(), coffee(), method="lab")) - pixels(whole)).max() <= 1


def test_padding_changes_as_the_pixels_beside_it_do() -> None:
    """Given a picture with padding, when what is inside has changed, then the padding goes on from its border."""
    picture = Image.new("RGB", (6, 5), (100, 100, 100))
    box = (2, 1, 5, 4)
    inside = Image.new("RGB", (3, 3), (120, 90, 100))
    inside.putpixel((0, 0), (255, 0, 100))
    whole = continued(picture, inside, box)
    assert whole.crop(box).tobytes() == inside.tobytes()
    assert [whole.getpixel(at) for at in ((0, 0), (1, 1), (5, 4), (0, 4))] == [
        (255, 0, 100),
        (255, 0, 100),
        (120, 90, 100),
        (120, 90, 100),
    ]


def test_palettes_are_as_far_apart_as_their_colours() -> None:
    """Given pictures of one colour each, when their palettes are compared, then their distance is that of the colours;
    of the same pixels elsewhere it is 0."""
    red, teal = Image.new("RGB", (8, 8), (200, 30, 40)), Image.new("RGB", (3, 5), (10, 120, 130))
    labs = [rgb2lab(pixels(each)[:1, :1] / 255) for each in (red, teal)]
    assert palette_distance(red, teal) == pytest.approx(float(deltaE_cie76(*labs)[0, 0]), abs=1e-3)
    turned = photograph().transpose(Image.Transpose.ROTATE_180)
    assert palette_distance(photograph(), turned) == pytest.approx(0, abs=1e-3)
    assert palette_distance(photograph(), coffee()) > 10


def test_an_unknown_method_is_refused_by_name() -> None:
    """Given a method that there is not, when a picture is matched by it, then the error names it and the others."""
    with pytest.raises(ValueError, match=r"method is 'rgb'; give .*wavelet"):
        match_colour(photograph(), coffee(), method="rgb")  # type: ignore[arg-type]
