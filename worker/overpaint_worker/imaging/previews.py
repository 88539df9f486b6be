"""A small picture of latents, made by the engine, to the file that people are shown while a job is painted."""

from __future__ import annotations

from PIL import Image

from overpaint_worker.imaging import xmp
from overpaint_worker.imaging.encode import write
from overpaint_worker.imaging.fit import restore
from overpaint_worker.imaging.placement import Placement

MOST_SIDE = 64
"""Pixels a side; even noise of this size stays below 8 kB."""

_QUALITY = 90
_MARK = xmp.packet({"Iptc4xmpExt:DigitalSourceType": xmp.AI_EDITED})


def encoded(preview: Image.Image, placement: Placement) -> bytes:
    """A WebP of at most 8 kB, marked as made with a model.

    `preview` is RGB and shows the whole of a picture that was fitted as `placement` says, at any scale: padding is
    undone, and what is larger than `MOST_SIDE` is scaled down.
    """
    shown = restore(preview, placement)
    shown.thumbnail((MOST_SIDE, MOST_SIDE), Image.Resampling.BOX)
    return write(shown, format="webp", quality=_QUALITY, lossless=False, xmp=_MARK)
