"""Edges of a picture, as control networks read them."""

from __future__ import annotations

import numpy as np
from PIL import Image
from skimage.feature import canny


def edges(picture: Image.Image, *, low: float = 0.1, high: float = 0.2, sigma: float = 1.0) -> Image.Image:
    """The edges of a picture (Canny 1986), white on black; RGB, of the same size.

    `low` and `high` are magnitudes of Sobel's gradient of the brightness after a blur of `sigma` pixels: above `high`
    an edge begins, above `low` it goes on. A sharp step of one level of 255 has 0.01, from black to white 2.56.
    """
    brightness = np.asarray(picture.convert("L"), dtype=np.float64) / 255
    found = canny(brightness, sigma=sigma, low_threshold=low, high_threshold=high)
    return Image.fromarray(np.where(found, np.uint8(255), np.uint8(0))).convert("RGB")
