"""The six styles: each paints a list of polygons its own way, and is meant to be unmistakable at 64 pixels."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageChops, ImageDraw, ImageFilter

from training.shapes import Points, Polygon
from training.words import RGB, Style

OVERSAMPLING: Final = 2
"""Pixels drawn for one pixel of the result, a side."""
PIXEL_CELLS: Final = 16
"""Cells a side of a pixel-art picture: one for each 4 x 4 pixels at 64, so one for each latent."""

_PAPER: Final[RGB] = (250, 247, 240)
_GRAPHITE: Final[RGB] = (52, 52, 58)
_LEVELS = 32


def _flat_points(points: Points, side: int) -> list[float]:
    return (points * side).ravel().tolist()


def _fill(polygons: Sequence[Polygon], side: int) -> Image.Image:
    picture = Image.new("RGB", (side, side))
    draw = ImageDraw.Draw(picture)
    for polygon in polygons:
        draw.polygon(_flat_points(polygon.points, side), fill=polygon.colour)
    return picture


def silhouette(polygons: Sequence[Polygon], side: int) -> Image.Image:
    """Where the object is, its details included; mode L, 0 or 255."""
    picture = Image.new("L", (side, side))
    draw = ImageDraw.Draw(picture)
    for polygon in polygons:
        if polygon.part != "ground":
            draw.polygon(_flat_points(polygon.points, side), fill=255)
    return picture


def _rim(mask: Image.Image, width: int) -> Image.Image:
    """The band of `width` pixels just inside the mask's edge."""
    return ImageChops.subtract(mask, mask.filter(ImageFilter.MinFilter(2 * width + 1)))


def _mix(colour: RGB, other: RGB, share: float) -> RGB:
    red, green, blue = (round(a + (b - a) * share) for a, b in zip(colour, other, strict=True))
    return red, green, blue


def _clouds(rng: np.random.Generator, side: int, cells: int) -> NDArray[np.float32]:
    """Smooth noise in -1 to 1, `cells` bumps a side; side x side."""
    coarse = Image.fromarray(rng.uniform(-1, 1, (cells, cells)).astype(np.float32))
    return np.asarray(coarse.resize((side, side), Image.Resampling.BICUBIC), dtype=np.float32)


def _to_image(pixels: NDArray[np.floating[Any]]) -> Image.Image:
    return Image.fromarray(pixels.clip(0, 255).astype(np.uint8))


def _flat(polygons: Sequence[Polygon], side: int, _: np.random.Generator) -> Image.Image:
    """Clean areas of one colour."""
    return _fill(polygons, side)


def _oil(polygons: Sequence[Polygon], side: int, rng: np.random.Generator) -> Image.Image:
    """Short thick strokes along a swirling field, each with its own lightness, a bright ridge and a dark one."""
    unit = side / 64
    base = _fill(polygons, side)
    mask = silhouette(polygons, side)
    ground = _strokes(
        _fill([part for part in polygons if part.part == "ground"], side), 11, 5.5 * unit, 5.0 * unit, rng
    )
    body = Image.blend(_strokes(base, 16, 3.0 * unit, 3.2 * unit, rng), base, 0.3)
    ragged = mask.filter(ImageFilter.GaussianBlur(0.8 * unit))
    noise = _clouds(rng, side, 20) * 50
    ground.paste(body, mask=_to_image((np.asarray(ragged, dtype=np.float32) + noise - 128) * 4 + 128))
    return ground


def _strokes(picture: Image.Image, cells: int, half: float, width: float, rng: np.random.Generator) -> Image.Image:
    """The picture in `cells` x `cells` strokes of `width` and twice `half` pixels, each in the colour of its middle."""
    side = picture.width
    pixels = np.asarray(picture)
    canvas = _to_image(pixels * np.float32(0.9))
    draw = ImageDraw.Draw(canvas)
    grid = np.stack(np.meshgrid(np.arange(cells), np.arange(cells)), axis=-1).reshape(-1, 2)
    middles = (grid + rng.uniform(0, 1, grid.shape)) / cells * side
    rng.shuffle(middles)
    columns, rows = middles.astype(int).T
    angles = (_clouds(rng, 16, 4) * np.pi)[rows * 16 // side, columns * 16 // side]
    along = np.stack([np.cos(angles), np.sin(angles)], axis=1) * half
    across = along[:, ::-1] * (-0.42 * width / half, 0.42 * width / half)
    colours = pixels[rows, columns] + rng.uniform(-14, 14, (len(middles), 1))
    ridge = max(1, round(width / 3))
    for offset, light, thickness in ((0, 0, round(width)), (across, -26, ridge), (-across, 26, ridge)):
        ends = np.concatenate([middles + offset - along, middles + offset + along], axis=1).tolist()
        inks = (colours + light).clip(0, 255).astype(int).tolist()
        for line, ink in zip(ends, inks, strict=True):
            draw.line(line, fill=tuple(ink), width=thickness)
    return canvas


def _clip(red: int, green: int, blue: int) -> RGB:
    return max(0, min(255, red)), max(0, min(255, green)), max(0, min(255, blue))


def _hatching(side: int, spacing: float, slope: int, width: int, rng: np.random.Generator) -> Image.Image:
    """Slanted pencil lines `spacing` pixels apart; mode L, 255 on a line."""
    picture = Image.new("L", (side, side))
    draw = ImageDraw.Draw(picture)
    count = int(2 * side / spacing) + 1
    for start, wobble in zip(
        np.arange(count) * spacing - side, rng.uniform(-0.08, 0.08, (count, 2)) * spacing, strict=True
    ):
        a, b = start + wobble[0], start + wobble[1] + side
        ends = [a, 0.0, b, float(side)] if slope > 0 else [side - a, 0.0, side - b, float(side)]
        draw.line([float(end) for end in ends], fill=255, width=width)
    return picture


def _pencil(polygons: Sequence[Polygon], side: int, rng: np.random.Generator) -> Image.Image:
    """White paper: graphite outlines, a lightly hatched ground in grey, the object hatched in its own pencil."""
    unit = side / 64
    fill = _fill(polygons, side)
    mask = silhouette(polygons, side)
    grey = fill.convert("L").point([round(_PAPER[1] - (255 - level) * 0.7) for level in range(256)]).convert("RGB")
    picture = Image.new("RGB", (side, side), _PAPER)
    light = _hatching(side, 5.6 * unit, -1, round(unit), rng)
    picture.paste(grey, mask=ImageChops.multiply(light, ImageChops.invert(mask)))
    picture.paste(Image.blend(fill, Image.new("RGB", fill.size, _PAPER), 0.24), mask=mask)
    strong = _hatching(side, 5.6 * unit, 1, round(1.6 * unit), rng)
    picture.paste(
        Image.blend(fill, Image.new("RGB", fill.size, (20, 20, 24)), 0.12), mask=ImageChops.multiply(strong, mask)
    )
    draw = ImageDraw.Draw(picture)
    for polygon in polygons:
        if polygon.outlined and polygon.part != "body":
            ink = _GRAPHITE if polygon.part == "detail" else (135, 135, 140)
            if polygon.part == "detail":
                _outline(draw, polygon.points, side, ink, max(1, round(0.9 * unit)), rng)
            else:
                _outline_outside(picture, polygon.points, mask, ink, max(1, round(0.8 * unit)))
    picture.paste(_GRAPHITE, mask=_rim(mask, max(1, round(0.55 * unit))))
    return picture


def _outline(
    draw: ImageDraw.ImageDraw, points: Points, side: int, ink: RGB, width: int, rng: np.random.Generator
) -> None:
    shaken = points + rng.normal(0, 0.003, points.shape)
    draw.line(_flat_points(np.concatenate([shaken, shaken[:1]]), side), fill=ink, width=width)


def _outline_outside(picture: Image.Image, points: Points, mask: Image.Image, ink: RGB, width: int) -> None:
    side = picture.width
    line = Image.new("L", picture.size)
    ImageDraw.Draw(line).line(_flat_points(np.concatenate([points, points[:1]]), side), fill=255, width=width)
    picture.paste(ink, mask=ImageChops.subtract(line, mask))


def _watercolor(polygons: Sequence[Polygon], side: int, rng: np.random.Generator) -> Image.Image:
    """Pale washes that wander over their edges and darken there, blooms of pigment, and a ragged white border."""
    unit = side / 64
    fill = _fill(polygons, side).filter(ImageFilter.GaussianBlur(0.9 * unit))
    shift_x, shift_y = (_clouds(rng, side, 12) * 1.3 * unit for _ in range(2))
    ys, xs = np.mgrid[0:side, 0:side]
    ys, xs = (np.clip(np.rint(a + b), 0, side - 1).astype(int) for a, b in ((ys, shift_y), (xs, shift_x)))
    washed = np.asarray(fill, dtype=np.float32)[ys, xs]
    wet = (
        np.asarray(silhouette(polygons, side).filter(ImageFilter.GaussianBlur(1.0 * unit)), dtype=np.float32)[ys, xs]
        / 255
    )
    bloom = _clouds(rng, side, 7)
    pigment = np.where(wet > 0.5, 0.86, 0.42) + 0.13 * bloom
    rim = np.exp(-(((wet - 0.72) / 0.16) ** 2))
    gap = np.exp(-(((wet - 0.2) / 0.14) ** 2))
    pigment = pigment + 0.32 * rim - 0.3 * gap
    paper = np.asarray(_PAPER, dtype=np.float32)
    shade = paper - (paper - washed) * pigment[..., None].clip(0, 1.1) - 26 * rim[..., None]
    edge = np.minimum(np.minimum(xs, side - 1 - xs), np.minimum(ys, side - 1 - ys)) / unit
    border = np.clip((edge + 1.5 * _clouds(rng, side, 12) - 2.4) / 1.2, 0, 1)[..., None]
    grain = rng.normal(0, 2.0, (side, side, 1)).astype(np.float32)
    return _to_image(paper + (shade - paper) * border + grain)


def _pixel(polygons: Sequence[Polygon], side: int, _: np.random.Generator) -> Image.Image:
    """Large square cells, few levels a channel, and a dark outline one cell wide."""
    cells = Image.Resampling.BOX
    small = _fill(polygons, side).resize((PIXEL_CELLS, PIXEL_CELLS), cells)
    levels = small.point([round(level / _LEVELS) * _LEVELS if level < 240 else 255 for level in range(256)] * 3)
    mask = (
        silhouette(polygons, side)
        .resize((PIXEL_CELLS, PIXEL_CELLS), cells)
        .point([255 if v > 110 else 0 for v in range(256)])
    )
    around = ImageChops.subtract(mask.filter(ImageFilter.MaxFilter(3)), mask)
    levels.paste((22, 20, 34), mask=around)
    return levels.resize((side, side), Image.Resampling.NEAREST)


def _neon(polygons: Sequence[Polygon], side: int, _: np.random.Generator) -> Image.Image:
    """Glowing tubes on a dark wall: bright outlines with a halo; a dim glow of its own colour fills the body."""
    unit = side / 64
    tubes = Image.new("RGB", (side, side))
    draw = ImageDraw.Draw(tubes)
    for polygon in polygons:
        if polygon.part == "ground" and polygon.outlined:
            colour = _mix(_tube(polygon.colour), (0, 0, 0), 0.58)
            draw.line(
                _flat_points(np.concatenate([polygon.points, polygon.points[:1]]), side), fill=colour, width=round(unit)
            )
    mask = silhouette(polygons, side)
    body = next(polygon.colour for polygon in polygons if polygon.part == "body")
    tubes.paste((0, 0, 0), mask=mask)
    for polygon in polygons:
        if polygon.part == "detail" and polygon.outlined:
            colour = _mix(_tube(polygon.colour), (0, 0, 0), 0.3)
            draw.line(
                _flat_points(np.concatenate([polygon.points, polygon.points[:1]]), side),
                fill=colour,
                width=round(1.2 * unit),
            )
    rim = _rim(mask, max(1, round(1.1 * unit)))
    tubes.paste(_tube(body), mask=rim)
    halo = tubes.filter(ImageFilter.GaussianBlur(2.6 * unit))
    wall = np.full((side, side, 3), (10, 8, 24), dtype=np.float32)
    dim = 0.8 if body != (25, 25, 28) else 0.0
    inner = np.asarray(mask, dtype=np.float32)[..., None] / 255 * (np.asarray(body, dtype=np.float32) * dim)
    core = np.asarray(rim.filter(ImageFilter.GaussianBlur(0.3 * unit)), dtype=np.float32)[..., None] / 255
    glow = wall + inner + 1.1 * np.asarray(halo, dtype=np.float32) + np.asarray(tubes, dtype=np.float32)
    return _to_image(glow + 46 * core)


def _tube(colour: RGB) -> RGB:
    """The colour as light: its brightest channel at full; near-black glows a faint violet, to be seen at all."""
    top = max(colour)
    if top < 60:
        return (84, 70, 112)
    return _mix(colour, (0, 0, 0), 0.0) if top > 240 else _clip(*(round(value * 255 / top) for value in colour))


_PAINTERS: Final[dict[Style, Callable[[Sequence[Polygon], int, np.random.Generator], Image.Image]]] = {
    "flat": _flat,
    "oil": _oil,
    "pencil": _pencil,
    "watercolor": _watercolor,
    "pixel": _pixel,
    "neon": _neon,
}


def paint(polygons: Sequence[Polygon], style: Style, side: int, rng: np.random.Generator) -> Image.Image:
    """The polygons in a style; RGB, side x side pixels, drawn at `OVERSAMPLING` times that."""
    large = _PAINTERS[style](polygons, side * OVERSAMPLING, rng)
    return large.resize((side, side), Image.Resampling.BOX)
