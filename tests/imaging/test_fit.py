"""Fitting brings any picture to a model's size and comes back from it."""

from __future__ import annotations

import math
from typing import get_args

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from PIL import Image

from overpaint_worker.imaging.fit import Fill, fill_named, fit, place, restore
from overpaint_worker.imaging.placement import LONGEST_BUCKET, Method, Size, plan

from .files import photograph

METHODS = st.sampled_from(get_args(Method))
SOURCES = st.tuples(st.integers(1, 5000), st.integers(1, 5000))
MODELS = st.one_of(st.integers(1, 1024), st.tuples(st.integers(1, 1024), st.integers(1, 1024)))
MULTIPLES = st.sampled_from([1, 8, 32, 64])
SHAPED = st.sampled_from(["pad", "bucket", "stretch", "keep"])


@given(source=SOURCES, size=MODELS, method=METHODS, multiple=MULTIPLES)
@example(source=(1, 5000), size=512, method="pad", multiple=8)
@example(source=(5000, 1), size=512, method="bucket", multiple=64)
@example(source=(5000, 1), size=512, method="crop", multiple=64)
def test_the_model_s_picture_is_in_multiples_and_holds_what_is_visible(
    source: Size, size: Size | int, method: Method, multiple: int
) -> None:
    placement = plan(source, size=size, method=method, multiple=multiple)
    assert all(side >= multiple and side % multiple == 0 for side in placement.model)
    for box, frame in ((placement.content, placement.model), (placement.visible, source)):
        assert 0 <= box[0] < box[2] <= frame[0]
        assert 0 <= box[1] < box[3] <= frame[1]
    assert method == "crop" or placement.visible == (0, 0, *source)


@given(source=SOURCES, size=MODELS, method=SHAPED, multiple=MULTIPLES, scale=st.sampled_from([1, 2, 4]))
def test_what_comes_back_has_the_source_s_aspect_within_a_pixel(
    source: Size, size: Size | int, method: Method, multiple: int, scale: int
) -> None:
    placement = plan(source, size=size, method=method, multiple=multiple)
    made = (placement.model[0] * scale, placement.model[1] * scale)
    width, height = placement.restored_size(made)
    assert width <= made[0]
    assert height <= made[1]
    long, short = (width, height) if source[0] >= source[1] else (height, width)
    wanted = max(1, long * min(source) / max(source))
    assert abs(short - wanted) <= scale


@given(
    source=st.tuples(st.integers(100, 4000), st.integers(100, 4000)), size=st.integers(256, 1024), multiple=MULTIPLES
)
def test_a_bucket_has_about_the_native_area_and_the_nearest_aspect(source: Size, size: int, multiple: int) -> None:
    native = plan((1, 1), size=size, method="stretch", multiple=multiple).model
    model = plan(source, size=size, method="bucket", multiple=multiple).model
    area = native[0] * native[1]
    assert model[0] * model[1] <= area
    assert model[0] * model[1] >= area * (1 - 2 * multiple / min(*model, *native))
    wanted = min(max(source[0] / source[1], 1 / LONGEST_BUCKET), LONGEST_BUCKET)
    assert abs(math.log(model[0] / model[1]) - math.log(wanted)) <= 2 * multiple / min(model)


@pytest.mark.parametrize(
    ("source", "expected"), [((1920, 1080), (1344, 768)), ((1000, 1000), (1024, 1024)), ((832, 1216), (832, 1216))]
)
def test_buckets_of_64_are_those_sdxl_was_trained_on(source: Size, expected: Size) -> None:
    # Appendix I of the SDXL report (arXiv 2307.01952) lists these sizes.
    assert plan(source, size=1024, method="bucket", multiple=64).model == expected


@settings(deadline=None, max_examples=60)
@given(
    source=st.tuples(st.integers(1, 90), st.integers(1, 90)),
    method=METHODS,
    fill=st.sampled_from(["edge", "reflect", (1, 2, 3)]),
    mode=st.sampled_from(["RGB", "L"]),
)
def test_any_small_picture_goes_there_and_back(source: Size, method: Method, fill: Fill, mode: str) -> None:
    picture = photograph(source).convert(mode)
    fitted = fit(picture, size=(64, 48), method=method, fill=fill)
    assert (fitted.picture.size, fitted.picture.mode) == (fitted.placement.model, mode)
    back = restore(fitted.picture, fitted.placement)
    assert back.size == fitted.placement.restored_size(fitted.placement.model)
    if method in ("pad", "bucket", "keep"):
        assert back.tobytes() == fitted.picture.crop(fitted.placement.content).tobytes()
    if method == "keep":
        assert back.tobytes() == picture.tobytes()


def test_padding_repeats_the_border_so_that_no_bar_shows() -> None:
    fitted = fit(Image.new("RGB", (64, 16), (200, 10, 10)), size=64, method="pad")
    assert fitted.picture.getcolors() == [(64 * 64, (200, 10, 10))]
    left, top, _, bottom = fitted.placement.content
    assert (left, top, bottom) == (0, 24, 40)


def test_reflection_mirrors_and_a_colour_fills() -> None:
    picture = Image.fromarray(np.arange(4, dtype=np.uint8)[None, :].repeat(8, axis=0))
    mirrored = fit(picture, size=8, method="keep", fill="reflect").picture
    assert np.asarray(mirrored)[0].tolist() == [0, 1, 2, 3, 2, 1, 0, 1]
    filled = fit(picture.convert("RGB"), size=8, method="keep", fill=(9, 8, 7)).picture
    assert filled.getpixel((7, 0)) == (9, 8, 7)


def test_fills_are_named_as_jobs_name_them() -> None:
    """Given the fills that a job may name, when they are read, then padding is made of them; others are refused."""
    assert [fill_named(name) for name in ("edge", "reflect", "#000000", "#12ab9f")] == [
        "edge",
        "reflect",
        (0, 0, 0),
        (0x12, 0xAB, 0x9F),
    ]
    with pytest.raises(ValueError, match="mirror"):
        fill_named("mirror")


@pytest.mark.parametrize(
    "fill", ["edge", "reflect", (0, 0, 0), (250, 128, 3)], ids=["edge", "reflect", "black", "colour"]
)
@pytest.mark.parametrize("size", [(64, 20), (20, 64), (1, 50), (50, 1)], ids=lambda size: f"{size[0]}x{size[1]}")
def test_padding_is_what_the_fill_says(fill: Fill, size: Size) -> None:
    """Given pictures that need padding, when they are fitted, then it is numpy's of the scaled picture, or the
    colour, and the source lies inside as it is."""
    fitted = fit(photograph(size), size=64, method="pad", fill=fill)
    left, top, right, bottom = fitted.placement.content
    pixels = np.asarray(fitted.picture)
    sides = ((top, 64 - bottom), (left, 64 - right), (0, 0))
    inside = pixels[top:bottom, left:right]
    if isinstance(fill, str):
        expected = np.pad(inside, sides, mode=fill)
    else:
        expected = np.stack([np.pad(inside[..., c], sides[:2], constant_values=fill[c]) for c in range(3)], axis=-1)
    assert np.array_equal(pixels, expected)
    assert np.array_equal(
        inside, np.asarray(photograph(size).resize((right - left, bottom - top), Image.Resampling.LANCZOS))
    )


@given(source=SOURCES, size=MODELS, method=METHODS, scale=st.sampled_from([0.5, 1, 1.3, 2, 4]))
def test_the_content_is_found_in_pictures_of_other_sizes(
    source: Size, size: Size | int, method: Method, scale: float
) -> None:
    """Given a picture that passes enlarged, when its content is looked for, then it is the placed one's, scaled: of
    the restored size within a pixel, inside the picture, and never empty."""
    placement = plan(source, size=size, method=method)
    made = (max(1, round(placement.model[0] * scale)), max(1, round(placement.model[1] * scale)))
    left, top, right, bottom = placement.content_of(made)
    assert 0 <= left < right <= made[0]
    assert 0 <= top < bottom <= made[1]
    if scale == 1:
        assert placement.content_of(made) == placement.content
    if method != "stretch":
        width, height = placement.restored_size(made)
        assert abs(right - left - width) <= 1
        assert abs(bottom - top - height) <= 1


def test_a_four_times_larger_picture_comes_back_at_four_times_the_content() -> None:
    fitted = fit(photograph((100, 60)), size=64, method="pad")
    left, top, right, bottom = fitted.placement.content
    large = fitted.picture.resize((256, 256), Image.Resampling.NEAREST)
    expected = large.crop((left * 4, top * 4, right * 4, bottom * 4))
    assert restore(large, fitted.placement).tobytes() == expected.tobytes()


def test_a_picture_a_few_pixels_off_the_model_s_size_still_comes_back_whole() -> None:
    fitted = fit(photograph((100, 60)), size=64, method="pad", fill=(0, 0, 0))
    back = restore(fitted.picture.resize((62, 66), Image.Resampling.LANCZOS), fitted.placement)
    assert back.size == (62, 39)
    assert np.asarray(back).mean() == pytest.approx(np.asarray(photograph((100, 60))).mean(), rel=0.05)


def test_stretch_there_and_back_shows_the_same_photograph() -> None:
    picture = photograph((300, 200))
    fitted = fit(picture, size=256, method="stretch")
    back = restore(fitted.picture, fitted.placement)
    assert back.size == (256, 171)
    error = np.abs(np.asarray(back.resize((300, 200), Image.Resampling.LANCZOS)).astype(float) - np.asarray(picture))
    assert error.mean() < 4


def test_crop_takes_the_middle() -> None:
    fitted = fit(photograph((300, 200)), size=64, method="crop")
    assert fitted.placement.visible == (50, 0, 250, 200)
    expected = photograph((300, 200)).crop((50, 0, 250, 200)).resize((64, 64), Image.Resampling.LANCZOS)
    assert fitted.picture.tobytes() == expected.tobytes()


def test_a_mask_goes_the_way_of_its_picture() -> None:
    picture = Image.new("RGB", (90, 50), (0, 0, 0))
    picture.paste((255, 255, 255), (0, 0, 45, 50))
    fitted = fit(picture, size=64, method="pad")
    mask = place(picture.convert("L"), fitted.placement)
    assert mask.tobytes() == fitted.picture.getchannel("R").tobytes()
    with pytest.raises(ValueError, match="placement was made for"):
        place(Image.new("L", (9, 9)), fitted.placement)


def test_nonsense_is_refused_by_name() -> None:
    with pytest.raises(ValueError, match="at least 1"):
        plan((10, 10), size=0, method="pad")
    with pytest.raises(ValueError, match="method is 'squash'"):
        plan((10, 10), size=8, method="squash")  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="fill is 'mirror'"):
        fit(Image.new("RGB", (9, 5)), size=8, method="pad", fill="mirror")  # type: ignore[arg-type]
