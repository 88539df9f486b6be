"""Transparency goes round the model and comes back without a fringe."""

from __future__ import annotations

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from overpaint_worker.imaging.alpha import over_background, put_back


def over(picture: Image.Image, background: tuple[int, int, int]) -> np.ndarray:
    """Porter and Duff's `over`, in floating point."""
    rgba = np.asarray(picture).astype(float)
    share = rgba[..., 3:] / 255
    return rgba[..., :3] * share + np.array(background) * (1 - share)


@settings(deadline=None)
@given(pixels=st.lists(st.tuples(*[st.integers(0, 255)] * 4), min_size=1, max_size=30))
def test_what_is_not_repainted_comes_back_as_it_was(pixels: list[tuple[int, ...]]) -> None:
    source = Image.fromarray(np.array([pixels], dtype=np.uint8), "RGBA")
    alpha = source.getchannel("A")
    back = put_back(over_background(source.convert("RGB"), alpha), alpha)
    assert back.getchannel("A").tobytes() == alpha.tobytes()
    for background in ((255, 255, 255), (0, 0, 0), (0, 128, 255)):
        assert np.abs(over(back, background) - over(source, background)).max() <= 1.5


def test_a_red_edge_over_black_shows_no_white() -> None:
    alpha = Image.new("L", (1, 1), 128)
    painted = over_background(Image.new("RGB", (1, 1), (255, 0, 0)), alpha)
    assert over(put_back(painted, alpha), (0, 0, 0))[0, 0, 1:].max() <= 1


def test_alpha_of_the_source_s_size_follows_an_upscaled_picture() -> None:
    alpha = Image.new("L", (4, 4), 255)
    alpha.paste(0, (0, 0, 2, 4))
    back = put_back(Image.new("RGB", (64, 64), (5, 6, 7)), alpha)
    assert back.size == (64, 64)
    assert (back.getpixel((4, 32)), back.getpixel((60, 32))) == ((5, 6, 7, 0), (5, 6, 7, 255))
