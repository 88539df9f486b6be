"""The ten backgrounds, as lists of polygons in the picture's unit square."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

import numpy as np

from training.shapes import Points, Polygon, box, ellipse
from training.words import RGB, Place

_BANDS = 8


def _bands(top: float, bottom: float, first: RGB, last: RGB) -> list[Polygon]:
    """A vertical gradient."""
    edges = np.linspace(top, bottom, _BANDS + 1)
    colours = np.linspace(first, last, _BANDS).round().astype(int)
    return [
        Polygon(box(-0.05, a, 1.05, b + 0.004), (int(c[0]), int(c[1]), int(c[2])), "ground", outlined=False)
        for a, b, c in zip(edges[:-1], edges[1:], colours, strict=True)
    ]


def _area(points: Points, colour: RGB, outlined: bool = True) -> Polygon:
    return Polygon(points, colour, "ground", outlined)


def _land(horizon: float, colour: RGB) -> Polygon:
    return _area(box(-0.05, horizon, 1.05, 1.05), colour)


def _vary(rng: np.random.Generator, colour: RGB, by: int = 10) -> RGB:
    red, green, blue = (max(0, min(255, value + int(rng.integers(-by, by + 1)))) for value in colour)
    return red, green, blue


def _sun(rng: np.random.Generator, colour: RGB = (255, 222, 80)) -> list[Polygon]:
    if rng.random() < 0.4:
        return []
    x, y = rng.uniform(0.08, 0.92), rng.uniform(0.06, 0.2)
    return [_area(ellipse(x, y, 0.07, 0.07, 20), colour)]


def _cloud(rng: np.random.Generator) -> list[Polygon]:
    if rng.random() < 0.5:
        return []
    x, y = rng.uniform(0.1, 0.9), rng.uniform(0.08, 0.24)
    puffs = ((-0.08, 0.01, 0.07, 0.035), (0.0, -0.02, 0.08, 0.05), (0.08, 0.01, 0.07, 0.035))
    return [_area(ellipse(x + dx, y + dy, rx, ry, 16), (246, 249, 253), outlined=False) for dx, dy, rx, ry in puffs]


def _day(rng: np.random.Generator, horizon: float) -> list[Polygon]:
    sky = _bands(-0.05, horizon, _vary(rng, (108, 170, 236)), _vary(rng, (202, 226, 250)))
    return [*sky, *_sun(rng), *_cloud(rng)]


def _specks(
    rng: np.random.Generator, horizon: float, colour: RGB, count: int, high: float, wide: float
) -> list[Polygon]:
    """Small upright marks on the ground: blades, stones, waves."""
    marks = []
    for x, y in rng.uniform((0, horizon + 0.03), (1, 1), (count, 2)):
        marks.append(_area(box(x, y, x + wide, y + high), colour, outlined=False))
    return marks


def _plain(rng: np.random.Generator, ground: RGB) -> list[Polygon]:
    return [_area(box(-0.05, -0.05, 1.05, 1.05), _vary(rng, ground, 6), outlined=False)]


def _grass(rng: np.random.Generator, _: RGB) -> list[Polygon]:
    horizon = rng.uniform(0.5, 0.72)
    blades = _specks(rng, horizon, (62, 128, 50), 10, 0.05, 0.02)
    return [*_day(rng, horizon), _land(horizon, _vary(rng, (100, 172, 82))), *blades]


def _beach(rng: np.random.Generator, _: RGB) -> list[Polygon]:
    shore = rng.uniform(0.58, 0.74)
    sea = shore - rng.uniform(0.14, 0.22)
    foam = _area(box(-0.05, shore - 0.015, 1.05, shore + 0.02), (240, 248, 250), outlined=False)
    return [
        *_day(rng, sea),
        _land(sea, _vary(rng, (40, 140, 190))),
        _land(shore, _vary(rng, (238, 214, 150))),
        foam,
    ]


def _snow(rng: np.random.Generator, _: RGB) -> list[Polygon]:
    horizon = rng.uniform(0.5, 0.7)
    sky = _bands(-0.05, horizon, _vary(rng, (150, 168, 192)), _vary(rng, (205, 215, 228)))
    flakes = [
        _area(ellipse(x, y, 0.018, 0.018, 8), (252, 253, 255), outlined=False)
        for x, y in rng.uniform((0, 0), (1, horizon), (10, 2))
    ]
    drift = _area(ellipse(rng.uniform(0, 1), horizon + 0.02, 0.4, 0.08), (236, 241, 250), outlined=False)
    return [*sky, drift, _land(horizon, _vary(rng, (230, 237, 248), 5)), *flakes]


def _desert(rng: np.random.Generator, _: RGB) -> list[Polygon]:
    horizon = rng.uniform(0.5, 0.68)
    sky = _bands(-0.05, horizon, _vary(rng, (248, 178, 92)), _vary(rng, (253, 228, 172)))
    dune = _area(ellipse(rng.uniform(0.1, 0.9), horizon + 0.05, 0.45, 0.14), _vary(rng, (222, 160, 88)))
    land = _land(horizon, _vary(rng, (232, 178, 102)))
    x = rng.choice((rng.uniform(0.05, 0.16), rng.uniform(0.84, 0.95)))
    y, green = horizon + 0.1, (70, 125, 70)
    cactus = [
        _area(box(x - 0.022, y - 0.3, x + 0.022, y), green),
        _area(box(x - 0.075, y - 0.16, x, y - 0.125), green, outlined=False),
        _area(box(x - 0.075, y - 0.23, x - 0.043, y - 0.125), green, outlined=False),
        _area(box(x, y - 0.12, x + 0.07, y - 0.085), green, outlined=False),
        _area(box(x + 0.04, y - 0.2, x + 0.07, y - 0.085), green, outlined=False),
    ]
    return [*sky, *_sun(rng, (255, 244, 200)), dune, land, *cactus]


def _sea(rng: np.random.Generator, _: RGB) -> list[Polygon]:
    horizon = rng.uniform(0.4, 0.6)
    waves = _specks(rng, horizon, (120, 190, 225), 9, 0.02, 0.13)
    return [*_day(rng, horizon), *_bands(horizon, 1.05, (52, 134, 196), (18, 70, 140)), *waves]


def _city(rng: np.random.Generator, _: RGB) -> list[Polygon]:
    horizon = rng.uniform(0.68, 0.8)
    parts = _bands(-0.05, horizon, _vary(rng, (170, 190, 214)), _vary(rng, (222, 222, 226)))
    left = -0.03
    while left < 1:
        wide, top = rng.uniform(0.14, 0.24), horizon - rng.uniform(0.24, 0.6)
        grey = _vary(rng, (128, 132, 146), 22)
        parts.append(_area(box(left, top, left + wide - 0.015, horizon + 0.01), grey))
        for x in np.arange(left + 0.03, left + wide - 0.06, 0.09):
            for y in np.arange(top + 0.05, horizon - 0.06, 0.13):
                if rng.random() < 0.75:
                    parts.append(_area(box(x, y, x + 0.045, y + 0.065), (248, 226, 140), outlined=False))
        left += wide
    road = [_area(box(x, 0.9, x + 0.14, 0.925), (235, 235, 225), outlined=False) for x in (0.04, 0.31, 0.58, 0.85)]
    return [*parts, _land(horizon, _vary(rng, (92, 92, 98), 6)), *road]


def _mountains(rng: np.random.Generator, _: RGB) -> list[Polygon]:
    horizon = rng.uniform(0.62, 0.76)
    parts = _day(rng, horizon)
    for x in (rng.uniform(-0.05, 0.2), rng.uniform(0.8, 1.05), rng.uniform(0.4, 0.6)):
        top, half = rng.uniform(0.08, 0.3), rng.uniform(0.3, 0.42)
        slope = half / (horizon - top)
        parts.append(_area(np.array([(x - half, horizon), (x, top), (x + half, horizon)]), _vary(rng, (118, 124, 148))))
        cap = np.array([(x, top), (x + 0.12 * slope, top + 0.12), (x, top + 0.08), (x - 0.12 * slope, top + 0.12)])
        parts.append(_area(cap, (246, 249, 253), outlined=False))
    return [*parts, _land(horizon, _vary(rng, (120, 150, 100)))]


def _forest(rng: np.random.Generator, _: RGB) -> list[Polygon]:
    horizon = rng.uniform(0.66, 0.78)
    parts = _bands(-0.05, horizon, (150, 192, 170), (196, 218, 178))
    for x in np.linspace(-0.02, 1.02, 5) + rng.uniform(-0.06, 0.06, 5):
        top, foot, half = rng.uniform(0.0, 0.2), horizon + rng.uniform(-0.03, 0.03), rng.uniform(0.12, 0.16)
        green = _vary(rng, (34, 92, 58), 12)
        parts.append(_area(box(x - 0.015, foot - 0.05, x + 0.015, foot + 0.07), (80, 55, 38), outlined=False))
        parts.append(_area(np.array([(x - half, foot), (x, top), (x + half, foot)]), green))
    return [*parts, _land(horizon + 0.03, _vary(rng, (84, 112, 58)))]


def _night(rng: np.random.Generator, _: RGB) -> list[Polygon]:
    horizon = rng.uniform(0.62, 0.78)
    sky = _bands(-0.05, horizon, (10, 14, 46), (42, 48, 104))
    stars = [
        _area(ellipse(x, y, 0.015, 0.015, 6), (250, 248, 225), outlined=False)
        for x, y in rng.uniform((0, 0), (1, horizon), (10, 2))
    ]
    x, y = rng.choice((rng.uniform(0.1, 0.25), rng.uniform(0.75, 0.9))), rng.uniform(0.1, 0.2)
    moon = [
        _area(ellipse(x, y, 0.085, 0.085, 22), (248, 242, 205)),
        _area(ellipse(x + 0.045, y - 0.02, 0.075, 0.075, 22), (16, 20, 56), outlined=False),
    ]
    return [*sky, *stars, *moon, _land(horizon, _vary(rng, (30, 38, 58), 5))]


_MAKERS: Final[dict[Place, Callable[[np.random.Generator, RGB], list[Polygon]]]] = {
    "plain": _plain,
    "grass": _grass,
    "beach": _beach,
    "snow": _snow,
    "desert": _desert,
    "sea": _sea,
    "city": _city,
    "mountains": _mountains,
    "forest": _forest,
    "night": _night,
}


def draw_place(place: Place, ground: RGB, rng: np.random.Generator) -> list[Polygon]:
    """The background's polygons, painted from first to last; `ground` is the colour of a plain one."""
    return _MAKERS[place](rng, ground)
