"""Masks: how much of each pixel is repainted, as grey from black (0, it stays) to white (255)."""

from __future__ import annotations

import math

import numpy as np
from PIL import Image, ImageFilter

from overpaint_worker.imaging.placement import Box, Placement, Size

WHITE_FROM = 128
"""The darkest grey that a model repaints: diffusers' own half."""

ASPECT_TOLERANCE = 0.05
"""Share of a side by which a mask's aspect ratio may differ from the source's: more than rounding ever makes of it."""


def same_aspect(mask: Size, source: Size) -> bool:
    """Whether a mask's sides are in the source's proportion, within 5 % or a pixel."""
    expected = mask[0] * source[1] / source[0], mask[1] * source[0] / source[1]
    return any(abs(e - m) <= max(1.0, ASPECT_TOLERANCE * e) for e, m in zip(expected, reversed(mask), strict=True))


def scaled(mask: Image.Image, size: Size, box: tuple[float, float, float, float] | None = None) -> Image.Image:
    """The part of a mask (L) inside `box`, in its own pixels, at `size`.

    What lies over black alone is black, and what lies over white alone is white: no filter rings or bleeds beyond an
    edge. Greys are averaged when it shrinks and interpolated when it grows.
    """
    box = box or (0, 0, *mask.size)
    left, top = math.floor(box[0]), math.floor(box[1])
    inside = mask.crop((left, top, math.ceil(box[2]), math.ceil(box[3])))
    within = (box[0] - left, box[1] - top, box[2] - left, box[3] - top)
    if within == (0, 0, *size):
        return inside
    exact = inside.resize(size, Image.Resampling.BOX, box=within)
    smooth = inside.resize(size, Image.Resampling.BILINEAR, box=within)
    return Image.composite(smooth, exact, exact.point(lambda grey: 255 if 0 < grey < 255 else 0))


def over_visible(mask: Image.Image, placement: Placement, size: Size) -> Image.Image:
    """The part of a mask (L, any size, spread over the whole source) that the model sees, at `size`."""
    across, down = mask.width / placement.source[0], mask.height / placement.source[1]
    left, top, right, bottom = placement.visible
    return scaled(mask, size, (left * across, top * down, right * across, bottom * down))


def laid(mask: Image.Image, placement: Placement, size: Size) -> Image.Image:
    """A mask (L, any size) laid as its source was, at `size`: that of the model's picture or of an enlarged one.

    Padding beside the source is black, whatever the mask says at its border.
    """
    across, down = size[0] / placement.model[0], size[1] / placement.model[1]
    left, top, right, bottom = placement.content
    corner = round(left * across), round(top * down)
    content = max(1, round(right * across) - corner[0]), max(1, round(bottom * down) - corner[1])
    whole = Image.new("L", size)
    whole.paste(over_visible(mask, placement, content), corner)
    return whole


def binarised(mask: Image.Image, start: float = WHITE_FROM) -> Image.Image:
    """White for greys from `start` on (0 to 255), black below."""
    return mask.point(lambda grey: 255 if grey >= start else 0)


def feathered(mask: Image.Image, across: float, down: float | None = None) -> Image.Image:
    """Edges faded by a Gaussian of these standard deviations in pixels; `down` is as `across` if left out.

    Pillow's approximation by three box filters, which costs the same for any width and is within 3 % of the true one
    from half a pixel on. Beyond the border the mask goes on, so that white at it does not fade.
    """
    sigmas = across, across if down is None else down
    return mask.filter(ImageFilter.GaussianBlur(sigmas)) if any(sigmas) else mask


def region_around(mask: Image.Image, padding: int) -> Box:
    """The box around all that is not black, with `padding` pixels on each side, grown to a square inside the mask.

    It is no square where the mask is too narrow or too low for one. Raises ValueError for a mask that is all black.
    """
    box = mask.getbbox()
    if box is None:
        raise ValueError("the mask is all black, and nothing has no surroundings")
    left, top = max(0, box[0] - padding), max(0, box[1] - padding)
    right, bottom = min(mask.width, box[2] + padding), min(mask.height, box[3] + padding)
    side = max(right - left, bottom - top)
    left, right = _grown(left, right, side, mask.width)
    top, bottom = _grown(top, bottom, side, mask.height)
    return left, top, right, bottom


def restored_detail(painted: Image.Image, original: Image.Image, seen: Image.Image, mask: Image.Image) -> Image.Image:
    """A picture that was painted at another size, with the original's own pixels where nothing was.

    All RGB and of one size: `painted` as scaled back, blended by its mask already; `original`; `seen`, the original
    after the same scaling there and back; `mask` (L): black is the original to the bit, white is painted to the bit,
    and greys, which hold their share of the original already, get the same share of what scaling lost of it.
    """
    box = mask.getbbox()
    whole = original.copy()
    if box is None:
        return whole
    grey = np.asarray(mask.crop(box))[..., None]
    inside, own, lost = (np.asarray(picture.crop(box)).astype(np.float32) for picture in (painted, original, seen))
    share = (255 - grey.astype(np.float32)) / 255
    mixed = np.clip(np.rint(inside + share * (own - lost)), 0, 255)
    whole.paste(Image.fromarray(np.where(grey == 0, own, mixed).astype(np.uint8)), box[:2])
    return whole


def _grown(start: int, end: int, side: int, limit: int) -> tuple[int, int]:
    """The stretch from `start` to `end` lengthened evenly to `side`, as far as `limit` allows, and moved inside it."""
    length = min(max(side, end - start), limit)
    start = min(max(0, start - (length - (end - start)) // 2), limit - length)
    return start, start + length
