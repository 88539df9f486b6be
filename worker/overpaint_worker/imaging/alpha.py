"""Transparency around a model that knows none: colours over white on the way in, the source's alpha on the way out."""

from __future__ import annotations

import numpy as np
from PIL import Image

BACKGROUND = (255, 255, 255)
"""What lies under transparent pixels while a model repaints them: white, as in most viewers and training pictures."""


def over_background(
    colours: Image.Image, alpha: Image.Image | None, background: tuple[int, int, int] = BACKGROUND
) -> Image.Image:
    """Straight colours (RGB) blended over a background by their alpha (L, same size)."""
    if alpha is None:
        return colours
    return Image.composite(colours, Image.new("RGB", colours.size, background), alpha)


def put_back(picture: Image.Image, alpha: Image.Image) -> Image.Image:
    """RGBA whose look over BACKGROUND is `picture` (RGB, over BACKGROUND as `over_background` gave it).

    The background's share is taken out of half-transparent pixels, c = (p - (1 - a) * white) / a clipped to 0 .. 255,
    so that edges show no pale fringe over other backgrounds. Fully transparent pixels get the picture's colour as it
    is. An alpha of another size than the picture is resized, linearly: Lanczos would ring and dent what is opaque.
    """
    if alpha.size != picture.size:
        alpha = alpha.resize(picture.size, Image.Resampling.BILINEAR)
    edge = np.asarray(alpha.point(lambda value: 255 if 0 < value < 255 else 0)) > 0
    colours = picture
    if edge.any():
        painted = np.array(picture)
        share = np.asarray(alpha)[edge][:, None].astype(np.float32) / 255
        straight = (painted[edge] - (1 - share) * np.array(BACKGROUND, dtype=np.float32)) / share
        painted[edge] = np.rint(np.clip(straight, 0, 255)).astype(np.uint8)
        colours = Image.fromarray(painted)
    return Image.merge("RGBA", (*colours.split(), alpha))
