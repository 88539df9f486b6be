"""A picture of any shape to one a model can take, and back."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

import numpy as np
from PIL import Image, ImageColor

from overpaint_worker.imaging.placement import Box, Method, Placement, Size, plan

Fill = Literal["edge", "reflect"] | tuple[int, int, int]
"""What lies beside a padded picture: "edge" (its border pixels go on), "reflect" (mirrored), or a colour, 0 to 255."""


def fill_named(name: str) -> Fill:
    """The fill that a job names: "edge", "reflect", or a colour as #rrggbb. Raises ValueError for anything else."""
    if name == "edge":
        return "edge"
    if name == "reflect":
        return "reflect"
    red, green, blue, *_ = ImageColor.getrgb(name)
    return red, green, blue


@dataclass(frozen=True, slots=True)
class Fitted:
    """A picture at a model's size and how it got there."""

    picture: Image.Image
    """Of `placement.model` size, in the mode of the picture given."""
    placement: Placement


def fit(
    picture: Image.Image,
    *,
    size: Size | int,
    method: Method,
    multiple: int = 8,
    fill: Fill = "edge",
) -> Fitted:
    """Bring a picture to a model's size, with Lanczos where it is scaled.

    `size` is the native size, width x height or one side of a square; sides are rounded down to `multiple`, never
    below one multiple. For what each method does see `placement.plan`. `fill` counts where there is padding.
    Any mode that Pillow can resize, so that masks and alpha may go the same way.
    Raises ValueError for an unknown method or fill, or a size or multiple below 1.
    """
    placement = plan(picture.size, size=size, method=method, multiple=multiple)
    return Fitted(place(picture, placement, fill=fill), placement)


def place(picture: Image.Image, placement: Placement, *, fill: Fill = "edge") -> Image.Image:
    """Lay a picture as `placement` says: what `fit` did to a picture, done to its mask or alpha of the same size.

    Raises ValueError when `picture` is not of `placement.source` size, or for an unknown fill.
    """
    if picture.size != placement.source:
        raise ValueError(f"the picture is {picture.size} and the placement was made for {placement.source}")
    left, top, right, bottom = placement.content
    visible = _resized(picture, placement.visible, (right - left, bottom - top))
    width, height = placement.model
    margins = (left, top, width - right, height - bottom)
    return _padded(visible, margins, fill) if any(margins) else visible


def restore(picture: Image.Image, placement: Placement) -> Image.Image:
    """Undo `place` at the scale of `picture`: padding cut off, a stretched picture brought back to its own aspect.

    `picture` is what a model made of the placed one: of the model's size, a multiple of it (upscaling), or near it. The
    result has the source's aspect ratio within a pixel of the model's size; after `crop` that of the visible part,
    which is the model's own. At the model's size, and at whole multiples of it, padded pictures come back by cropping
    alone, every pixel as the model left it.
    """
    across, down = picture.width / placement.model[0], picture.height / placement.model[1]
    left, top, right, bottom = placement.content
    box = (left * across, top * down, right * across, bottom * down)
    return _resized(picture, box, placement.restored_size(picture.size))


def _resized(picture: Image.Image, box: Box | tuple[float, float, float, float], size: Size) -> Image.Image:
    """The part of the picture inside `box`, at `size`; a plain crop where that is the same."""
    left, top = math.floor(box[0]), math.floor(box[1])
    # Cropped first: resize() alone would mix what lies outside the box into its border.
    inside = picture.crop((left, top, math.ceil(box[2]), math.ceil(box[3])))
    exact = (box[0] - left, box[1] - top, box[2] - left, box[3] - top)
    return inside if exact == (0, 0, *size) else inside.resize(size, Image.Resampling.LANCZOS, box=exact)


def _padded(picture: Image.Image, margins: Box, fill: Fill) -> Image.Image:
    """The picture with `margins` (left, top, right, bottom) around it."""
    left, top, right, bottom = margins
    if fill == "edge" or fill == "reflect":
        pixels = np.asarray(picture)
        sides = ((top, bottom), (left, right), (0, 0))[: pixels.ndim]
        return Image.fromarray(np.pad(pixels, sides, mode=fill))
    if isinstance(fill, str):
        raise ValueError(f'fill is {fill!r}; give "edge", "reflect" or a colour such as (255, 255, 255)')
    whole = Image.new("RGB", (left + picture.width + right, top + picture.height + bottom), fill).convert(picture.mode)
    whole.paste(picture, (left, top))
    return whole
