"""Any mode Pillow decodes to, split into 8-bit colour (L, RGB or CMYK) and alpha."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

_REDUCED = "{depth}-bit source reduced to 8 bits"


def split(picture: Image.Image, *, depth: int) -> tuple[Image.Image, Image.Image | None, str | None]:
    """Colour as L, RGB or CMYK at 8 bits; alpha as L, or None where every pixel is opaque; a note on what was lost.

    `depth` is bits per sample as the file has it. Unsigned samples of 9 to 16 bits are scaled by their full range.
    Signed, 32-bit and floating samples have no agreed range: see `_scaled`. Colours are straight, not premultiplied;
    premultiplied files are divided by their alpha.
    """
    if picture.mode.startswith("I;16"):
        return _split_16_bit(picture, depth)
    if picture.mode in ("I", "F"):
        values, how = _scaled(np.asarray(picture, dtype=np.float64))
        return Image.fromarray(values), None, f"{picture.mode} samples reduced to 8 bits, {how}"
    note = _REDUCED.format(depth=depth) if depth > 8 else None
    _scale_transparency(picture, depth)
    if picture.mode in ("La", "LA", "PA", "RGBa", "RGBA") or "transparency" in picture.info:
        straight = _premultiplied_undone(picture).convert("RGBA")
        alpha = straight.getchannel("A")
        return straight.convert("RGB"), None if alpha.getextrema() == (255, 255) else alpha, note
    if picture.mode in ("1", "L"):
        return picture.convert("L"), None, note
    return (picture if picture.mode == "CMYK" else picture.convert("RGB")), None, note


def _split_16_bit(picture: Image.Image, depth: int) -> tuple[Image.Image, Image.Image | None, str]:
    """Pillow 13 clips I;16 to 255 when it converts, so this scales: round(value * 255 / (2 ** depth - 1))."""
    values: NDArray[np.uint32] = np.asarray(picture).astype(np.uint32)
    top = (1 << max(9, min(depth, 16))) - 1
    colour = Image.fromarray(np.minimum((values * 255 + top // 2) // top, 255).astype(np.uint8))
    clear = picture.info.get("transparency")
    alpha = None
    if isinstance(clear, int) and (values == clear).any():
        alpha = Image.fromarray(np.where(values == clear, 0, 255).astype(np.uint8))
    return colour, alpha, _REDUCED.format(depth=depth)


def _scaled(values: NDArray[np.float64]) -> tuple[NDArray[np.uint8], str]:
    """Samples without an agreed range to 0 .. 255, and in words which range was taken.

    The range is the first of 0 .. 1 (kept for fractions only), 0 .. 255 and 0 .. 65535 that holds every sample, else
    the samples' own minimum and maximum. NaN counts as the minimum, infinities as the finite extremes.
    """
    finite = values[np.isfinite(values)]
    low, high = (float(finite.min()), float(finite.max())) if finite.size else (0.0, 0.0)
    fractions = bool((finite != np.round(finite)).any())
    for top in (1.0, 255.0, 65535.0):
        if low >= 0 and high <= top and (top > 1 or fractions):
            low, high = 0.0, top
            break
    values = np.clip(np.nan_to_num(values, nan=low, posinf=high, neginf=low), low, high)
    span = (high - low) or 1.0
    return np.rint((values - low) / span * 255).astype(np.uint8), f"taken as {low:g} to {high:g}"


def _scale_transparency(picture: Image.Image, depth: int) -> None:
    """Bring a PNG's transparent colour to the scale of the decoded samples; Pillow 13 leaves it at the file's depth."""
    clear: Any = picture.info.get("transparency")
    if picture.mode == "L" and isinstance(clear, int) and depth in (2, 4):
        picture.info["transparency"] = clear * (255 // ((1 << depth) - 1)) & 0xFF
    elif picture.mode == "RGB" and isinstance(clear, tuple) and depth == 16:
        picture.info["transparency"] = tuple(value >> 8 for value in clear)


def _premultiplied_undone(picture: Image.Image) -> Image.Image:
    return picture.convert({"La": "LA", "RGBa": "RGBA"}[picture.mode]) if picture.mode in ("La", "RGBa") else picture
