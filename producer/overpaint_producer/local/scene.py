"""The bundled source picture, drawn rather than stored: a red house in a field, as the embedded model knows them."""

from __future__ import annotations

from PIL import Image, ImageDraw

SIDE = 64
"""Pixels: the embedded model's native size, so that source and repainted pictures compare pixel by pixel."""

_SCALE = 16
_SKY_TOP, _SKY_LOW = (110, 170, 235), (200, 225, 250)
_FIELD, _SUN = (95, 165, 80), (255, 220, 70)
_WALL, _ROOF, _DOOR, _PANE = (214, 60, 50), (70, 60, 70), (90, 60, 40), (200, 230, 255)


def draw_scene() -> Image.Image:
    """A red house with a dark roof on green grass under a blue sky; RGB, 64 x 64, always the same pixels."""
    side = SIDE * _SCALE
    picture = Image.new("RGB", (side, side))
    draw = ImageDraw.Draw(picture)

    def at(*pixels: float) -> list[float]:
        return [value * _SCALE for value in pixels]

    horizon = 44 * _SCALE
    for y in range(horizon):
        mixed = tuple(round(a + (b - a) * y / horizon) for a, b in zip(_SKY_TOP, _SKY_LOW, strict=True))
        draw.line([(0, y), (side, y)], fill=mixed)
    draw.rectangle(at(0, 44, SIDE, SIDE), fill=_FIELD)
    draw.ellipse(at(48, 5, 58, 15), fill=_SUN)
    draw.rectangle(at(16, 28, 46, 54), fill=_WALL)
    draw.polygon(at(12, 28, 31, 12, 50, 28), fill=_ROOF)
    draw.rectangle(at(27, 40, 35, 54), fill=_DOOR)
    for left in (19, 37):
        draw.rectangle(at(left, 33, left + 6, 39), fill=_PANE)
    return picture.resize((SIDE, SIDE), Image.Resampling.LANCZOS)
