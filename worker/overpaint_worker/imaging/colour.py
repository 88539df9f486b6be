"""Giving a picture the colours of another, and telling how far apart two palettes are."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from skimage.color import lab2rgb, rgb2lab
from skimage.exposure import match_histograms

from overpaint_worker.imaging.placement import Box

Method = Literal["lab", "histogram", "wavelet"]
Floats = NDArray[np.floating[Any]]
Bytes = NDArray[np.uint8]

MOST_GAIN = 5.0
"""The most that `lab` spreads a channel: the little noise of a nearly flat picture must not become its colours."""

COARSE = 16
"""`wavelet` takes the reference's colours at scales above this part of the shorter side: five levels of 512 pixels."""

CHUNK = 1 << 20
"""Pixels converted to L*a*b* at once, so that large pictures do not fill the memory with floats."""


def match_colour(
    picture: Image.Image,
    reference: Image.Image,
    *,
    method: Method,
    amount: float = 1.0,
    where: Image.Image | None = None,
) -> Image.Image:
    """`picture` with the colours of `reference`; RGB, of the picture's size.

    - `lab`: mean and standard deviation of each channel of CIE L*a*b* (D65) become the reference's (Reinhard et al.,
      "Color transfer between images", 2001, there in another decorrelated space), spread by at most `MOST_GAIN`.
    - `histogram`: the cumulative histogram of each channel of RGB becomes the reference's; a channel of one value, its
      mean.
    - `wavelet`: the coarse part of an undecimated ("a trous") wavelet decomposition is the reference's, the detail the
      picture's own (Wang et al., "Exploiting Diffusion Prior for Real-World Image Super-Resolution", 2023). The
      reference is scaled to the picture's size for it.

    `amount` from 0 (the picture as it is) to 1 mixes the two. `where` (L, of the picture's size) limits it: where it is
    0 the picture stays, and neither picture's colours count; between 0 and 255 it is mixed. The two pictures may differ
    in size; `where` is laid over both. Raises ValueError for an unknown method.
    """
    pixels = _pixels(picture)
    weight: Floats | None = None if where is None else np.asarray(where.convert("L"), np.float32)[..., None] / 255
    if weight is not None and not weight.any():
        return picture.convert("RGB")
    match method:
        case "wavelet":
            matched = _wavelet(pixels, _pixels(_scaled(reference, picture.size)))
        case "lab" | "histogram":
            by = _lab if method == "lab" else _histogram
            matched = pixels.astype(np.float32)
            inside = _inside(where, picture.size)
            matched[inside] = by(pixels[inside], _pixels(reference)[_inside(where, reference.size)])
        case _:
            raise ValueError(f'method is {method!r}; give "lab", "histogram" or "wavelet"')
    change = (matched - pixels) * amount
    return _picture(pixels + (change if weight is None else change * weight))


def continued(picture: Image.Image, inside: Image.Image, box: Box) -> Image.Image:
    """`picture` with `inside` in its `box`, and around it changed as much as the nearest pixel of the box was.

    What lies around is padding: a later pass should not meet a seam there.
    """
    if inside.size == picture.size:
        return inside
    left, top, right, bottom = box
    pixels = _pixels(picture)
    change: Floats = _pixels(inside).astype(np.float32) - pixels[top:bottom, left:right]
    sides = ((top, picture.height - bottom), (left, picture.width - right), (0, 0))
    everywhere: Floats = np.pad(change, sides, mode="edge")
    return _picture(pixels + everywhere)


def palette_distance(picture: Image.Image, reference: Image.Image) -> float:
    """How far a picture's colours as a whole are from another's: 0 for the same palette, whatever is where.

    In units of CIE L*a*b*, of which 2.3 is the difference that people just notice (Mahy et al., 1994): the root mean
    square of the differences between the two pictures' means and between their standard deviations, summed over the
    channels; the 2-Wasserstein distance of the two palettes, were each channel normally distributed.
    """
    (mean, spread), (its_mean, its_spread) = (_moments(_pixels(each).reshape(-1, 3)) for each in (picture, reference))
    return float(np.sqrt(((mean - its_mean) ** 2 + (spread - its_spread) ** 2).sum()))


def _lab(pixels: Bytes, reference: Bytes) -> Floats:
    """Pixels as N x 3, both."""
    mean, spread = _moments(pixels)
    its_mean, its_spread = _moments(reference)
    gain = np.minimum(np.divide(its_spread, spread, out=np.ones(3), where=spread > 0), MOST_GAIN)
    matched = np.empty(pixels.shape, np.float32)
    for part in _chunks(len(pixels)):
        lab = (rgb2lab(pixels[part] / np.float32(255)) - mean) * gain + its_mean
        matched[part] = lab2rgb(_representable(lab)) * 255
    return matched


def _representable(lab: NDArray[Any]) -> NDArray[Any]:
    """Without lightness beyond white and black, and without yellows so far beyond sRGB that skimage warns of them."""
    lightness = lab[..., 0].clip(0, 100)
    return np.stack([lightness, lab[..., 1], np.minimum(lab[..., 2], 200 * (lightness + 16) / 116 - 0.01)], axis=-1)


def _moments(pixels: Bytes) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Mean and standard deviation of each channel of L*a*b*; a channel of one value has exactly 0."""
    total, squares = np.zeros(3), np.zeros(3)
    # Around the first pixel, for which a flat picture's sums are zeros.
    origin = rgb2lab(pixels[:1] / np.float32(255))[0].astype(np.float64)
    for part in _chunks(len(pixels)):
        lab = rgb2lab(pixels[part] / np.float32(255)) - origin
        total += lab.sum(axis=0)
        squares += (lab**2).sum(axis=0)
    mean = total / len(pixels)
    return origin + mean, np.sqrt(np.maximum(squares / len(pixels) - mean**2, 0))


def _histogram(pixels: Bytes, reference: Bytes) -> Floats:
    # One channel at a time: given several, skimage cuts the fractions off and darkens by half a level.
    matched = [_histogram_of(*channels) for channels in zip(pixels.T, reference.T, strict=True)]
    return np.stack(matched, axis=-1)


def _histogram_of(channel: Bytes, reference: Bytes) -> Floats:
    if channel.min() == channel.max():
        return np.full(channel.shape, reference.mean(), np.float32)
    matched: Floats = match_histograms(channel, reference)
    return matched.astype(np.float32)


def _wavelet(pixels: Bytes, reference: Bytes) -> Floats:
    # The coarse part is linear: that of the difference is the difference of both.
    difference = reference.astype(np.float32) - pixels
    levels = max(1, round(np.log2(min(pixels.shape[:2]) / COARSE)))
    for level in range(levels):
        difference = _smoothed(_smoothed(difference, 2**level, axis=0), 2**level, axis=1)
    return pixels + difference


def _smoothed(values: Floats, step: int, axis: int) -> Floats:
    """With the kernel (1, 2, 1) / 4 whose taps are `step` apart, the border pixels going on."""
    sides = [(0, 0)] * values.ndim
    sides[axis] = (step, step)
    padded = np.moveaxis(np.pad(values, sides, mode="edge"), axis, 0)
    smoothed = (padded[: -2 * step] + 2 * padded[step:-step] + padded[2 * step :]) / 4
    return np.moveaxis(smoothed, 0, axis)


def _inside(where: Image.Image | None, size: tuple[int, int]) -> NDArray[np.bool_]:
    """Where colours count, height x width; everywhere if a reduced `where` leaves nothing."""
    if where is not None:
        scaled = where.convert("L")
        counts = np.asarray(scaled if where.size == size else scaled.resize(size, Image.Resampling.NEAREST)) > 0
        if counts.any():
            return counts
    return np.ones(size[::-1], np.bool_)


def _chunks(length: int) -> Iterator[slice]:
    return (slice(start, start + CHUNK) for start in range(0, length, CHUNK))


def _scaled(picture: Image.Image, size: tuple[int, int]) -> Image.Image:
    return picture if picture.size == size else picture.convert("RGB").resize(size, Image.Resampling.LANCZOS)


def _pixels(picture: Image.Image) -> Bytes:
    return np.asarray(picture.convert("RGB"))


def _picture(values: Floats) -> Image.Image:
    return Image.fromarray(values.round().clip(0, 255).astype(np.uint8))
