"""What is measured on a repainted picture: the colour of its object, where it is, how far it is from its source."""

from __future__ import annotations

import math
from typing import Final

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from scipy.stats import binomtest

from training.words import COLOURS, PALETTE, Colour

_COLOURS: Final = np.array([PALETTE[name] for name in COLOURS], dtype=np.float64)


def colour_of(picture: Image.Image, mask: NDArray[np.bool_]) -> Colour:
    """The colour word of most pixels in the mask (height x width), each counted as the nearest of the palette.

    The mean over the mask would not do: windows, wheels and roofs are part of the object.
    """
    return COLOURS[int(np.bincount(_nearest(picture, mask), minlength=len(COLOURS)).argmax())]


def share_of(picture: Image.Image, mask: NDArray[np.bool_], colour: Colour) -> float:
    """The share of the mask's pixels whose nearest palette colour is `colour`, 0 to 1."""
    return float(np.mean(_nearest(picture, mask) == COLOURS.index(colour)))


def distance(one: Image.Image, other: Image.Image) -> float:
    """Root mean square difference of two RGB pictures of one size, 0 to 255."""
    difference = np.asarray(one, dtype=np.float64) - np.asarray(other, dtype=np.float64)
    return float(np.sqrt(np.mean(difference**2)))


def overlap(picture: Image.Image, mask: NDArray[np.bool_]) -> float:
    """Intersection over union of the source's mask and the object found in a picture with a plain ground, 0 to 1.

    A pixel is the object's if its colour is nearer the median colour within the mask than the median outside.
    """
    pixels = np.asarray(picture, dtype=np.float64)
    inside, outside = np.median(pixels[mask], axis=0), np.median(pixels[~mask], axis=0)
    found = ((pixels - inside) ** 2).sum(-1) < ((pixels - outside) ** 2).sum(-1)
    return float((found & mask).sum() / (found | mask).sum())


def psnr(one: Image.Image, other: Image.Image) -> float:
    """Peak signal-to-noise ratio in dB of two RGB pictures of one size."""
    return 20 * math.log10(255 / max(distance(one, other), 1e-6))


def edge_energy(picture: Image.Image) -> float:
    """Mean square of the differences between neighbouring pixels, over 0 to 255."""
    pixels = np.asarray(picture, dtype=np.float64)
    return float(np.mean(np.diff(pixels, axis=0) ** 2) + np.mean(np.diff(pixels, axis=1) ** 2))


def interval(hits: int, count: int) -> tuple[float, float]:
    """The 95 % confidence interval of a proportion (Wilson 1927)."""
    found = binomtest(hits, count).proportion_ci(method="wilson")
    return float(found.low), float(found.high)


def _nearest(picture: Image.Image, mask: NDArray[np.bool_]) -> NDArray[np.intp]:
    pixels = np.asarray(picture, dtype=np.float64)[mask]
    nearest: NDArray[np.intp] = ((pixels[:, None] - _COLOURS) ** 2).sum(-1).argmin(1)
    return nearest
