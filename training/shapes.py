"""The ten objects, as lists of polygons: the first polygons form the body in the named colour, the rest are details."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Final, Literal

import numpy as np
from numpy.typing import NDArray

from training.words import RGB, Shape

Points = NDArray[np.float64]
"""n x 2: x to the right, y down."""

Part = Literal["ground", "body", "detail"]


@dataclass(frozen=True, slots=True)
class Polygon:
    """One filled area of a scene; the styles decide how to paint it."""

    points: Points
    """In the unit square of the picture, or, inside this file, of the object."""
    colour: RGB
    part: Part
    """ground: behind the object. body: the object, in the named colour. detail: on the object, in its own colour."""
    outlined: bool = True
    """Whether a style that draws outlines draws this one; False for bands of a gradient."""


def ellipse(x: float, y: float, rx: float, ry: float, count: int = 28) -> Points:
    angles = np.linspace(0, 2 * np.pi, count, endpoint=False)
    return np.stack([x + rx * np.cos(angles), y + ry * np.sin(angles)], axis=1)


def box(left: float, top: float, right: float, bottom: float) -> Points:
    return np.array([(left, top), (right, top), (right, bottom), (left, bottom)], dtype=np.float64)


def _points(*pairs: tuple[float, float]) -> Points:
    return np.array(pairs, dtype=np.float64)


def _shade(colour: RGB, factor: float) -> RGB:
    red, green, blue = (max(0, min(255, round(value * factor))) for value in colour)
    return red, green, blue


def _accent(colour: RGB) -> RGB:
    """A detail that stays visible on the body: dark on light bodies, light on dark ones."""
    light = 0.299 * colour[0] + 0.587 * colour[1] + 0.114 * colour[2]
    return (45, 40, 50) if light > 70 else (225, 225, 230)


def _circle(colour: RGB) -> list[Polygon]:
    return [Polygon(ellipse(0.5, 0.5, 0.44, 0.44, 40), colour, "body")]


def _square(colour: RGB) -> list[Polygon]:
    return [Polygon(box(0.1, 0.1, 0.9, 0.9), colour, "body")]


def _triangle(colour: RGB) -> list[Polygon]:
    return [Polygon(_points((0.5, 0.04), (0.98, 0.92), (0.02, 0.92)), colour, "body")]


def _star(colour: RGB) -> list[Polygon]:
    angles = -np.pi / 2 + np.arange(10) * np.pi / 5
    radii = np.where(np.arange(10) % 2 == 0, 0.52, 0.21)
    points = np.stack([0.5 + radii * np.cos(angles), 0.53 + radii * np.sin(angles)], axis=1)
    return [Polygon(points, colour, "body")]


def _heart(colour: RGB) -> list[Polygon]:
    """The usual curve x = 16 sin^3 t, y = 13 cos t - 5 cos 2t - 2 cos 3t - cos 4t."""
    t = np.linspace(0, 2 * np.pi, 44, endpoint=False)
    x = 16 * np.sin(t) ** 3
    y = 13 * np.cos(t) - 5 * np.cos(2 * t) - 2 * np.cos(3 * t) - np.cos(4 * t)
    return [Polygon(np.stack([0.5 + x / 34, 0.46 - y / 34], axis=1), colour, "body")]


def _car(colour: RGB) -> list[Polygon]:
    body = _points(
        (0.0, 0.5), (0.16, 0.46), (0.28, 0.22), (0.68, 0.22), (0.82, 0.46), (0.98, 0.5), (1.0, 0.74), (0.0, 0.74)
    )
    window = _points((0.24, 0.46), (0.32, 0.28), (0.46, 0.28), (0.46, 0.46))
    rear = _points((0.52, 0.28), (0.64, 0.28), (0.74, 0.46), (0.52, 0.46))
    glass, tyre, hub = (200, 230, 250), (30, 30, 34), (190, 190, 195)
    return [
        Polygon(body, colour, "body"),
        Polygon(window, glass, "detail"),
        Polygon(rear, glass, "detail"),
        *(Polygon(ellipse(x, 0.74, 0.13, 0.13, 20), tyre, "detail") for x in (0.23, 0.77)),
        *(Polygon(ellipse(x, 0.74, 0.055, 0.055, 12), hub, "detail", outlined=False) for x in (0.23, 0.77)),
    ]


def _house(colour: RGB) -> list[Polygon]:
    roof = _accent(colour) if sum(colour) < 150 else (78, 62, 70)
    pane = (200, 230, 255)
    return [
        Polygon(box(0.12, 0.4, 0.88, 1.0), colour, "body"),
        Polygon(_points((0.02, 0.4), (0.5, 0.02), (0.98, 0.4)), roof, "detail"),
        Polygon(box(0.4, 0.68, 0.6, 1.0), (95, 62, 42) if colour != (125, 75, 40) else (60, 35, 25), "detail"),
        Polygon(box(0.19, 0.5, 0.35, 0.65), pane, "detail"),
        Polygon(box(0.65, 0.5, 0.81, 0.65), pane, "detail"),
    ]


def _flower(colour: RGB) -> list[Polygon]:
    angles = np.arange(6) * np.pi / 3
    petals = [ellipse(0.5 + 0.24 * np.cos(a), 0.34 + 0.24 * np.sin(a), 0.145, 0.145, 18) for a in angles]
    heart: RGB = (250, 205, 50) if colour[2] > 100 or colour[0] < 235 else (110, 65, 35)
    stem: RGB = (40, 120, 50)
    return [
        Polygon(box(0.465, 0.5, 0.535, 1.0), stem, "detail"),
        Polygon(_points((0.5, 0.9), (0.6, 0.72), (0.82, 0.68), (0.72, 0.86)), stem, "detail"),
        *(Polygon(petal, colour, "body") for petal in petals),
        Polygon(ellipse(0.5, 0.34, 0.15, 0.15, 20), heart, "detail"),
    ]


def _tree(colour: RGB) -> list[Polygon]:
    trunk: RGB = (110, 70, 42) if colour != (125, 75, 40) else (70, 42, 28)
    crown = [(0.5, 0.24, 0.26), (0.26, 0.42, 0.23), (0.74, 0.42, 0.23), (0.5, 0.46, 0.26)]
    return [
        Polygon(box(0.42, 0.55, 0.58, 1.0), trunk, "detail"),
        *(Polygon(ellipse(x, y, r, r, 24), colour, "body") for x, y, r in crown),
    ]


def _cat(colour: RGB) -> list[Polygon]:
    """Sitting, from the front: ears, head, body, tail, and a face."""
    ink = _accent(colour)
    eye: RGB = (120, 220, 90) if colour != (45, 160, 65) else (250, 230, 90)
    tail = _points((0.72, 0.96), (0.98, 0.86), (1.0, 0.58), (0.9, 0.56), (0.88, 0.78), (0.7, 0.82))
    return [
        Polygon(tail, colour, "body"),
        Polygon(ellipse(0.5, 0.78, 0.27, 0.24, 28), colour, "body"),
        Polygon(_points((0.2, 0.34), (0.2, 0.0), (0.46, 0.16)), colour, "body"),
        Polygon(_points((0.8, 0.34), (0.8, 0.0), (0.54, 0.16)), colour, "body"),
        Polygon(ellipse(0.5, 0.35, 0.31, 0.26, 28), colour, "body"),
        *(Polygon(ellipse(x, 0.32, 0.075, 0.075, 14), eye, "detail", outlined=False) for x in (0.37, 0.63)),
        *(Polygon(ellipse(x, 0.32, 0.03, 0.07, 10), (15, 15, 18), "detail", outlined=False) for x in (0.37, 0.63)),
        Polygon(_points((0.45, 0.44), (0.55, 0.44), (0.5, 0.5)), ink, "detail", outlined=False),
    ]


_MAKERS: Final[dict[Shape, Callable[[RGB], list[Polygon]]]] = {
    "circle": _circle,
    "square": _square,
    "triangle": _triangle,
    "star": _star,
    "heart": _heart,
    "car": _car,
    "house": _house,
    "flower": _flower,
    "tree": _tree,
    "cat": _cat,
}


@dataclass(frozen=True, slots=True)
class Pose:
    """Where the object stands."""

    x: float
    """Of its middle, as a share of the picture's side."""
    y: float
    size: float
    """Of its side, as a share of the picture's."""
    angle: float
    """Radians, clockwise."""
    mirrored: bool


def draw_object(shape: Shape, colour: RGB, pose: Pose) -> list[Polygon]:
    """The object's polygons in the picture's unit square, painted from first to last."""
    cosine, sine = np.cos(pose.angle), np.sin(pose.angle)
    turn = np.array([(cosine, sine), (-sine, cosine)])
    flip = np.array([-1.0 if pose.mirrored else 1.0, 1.0])
    placed = []
    for polygon in _MAKERS[shape](colour):
        points = ((polygon.points - 0.5) * flip) @ turn * pose.size + (pose.x, pose.y)
        placed.append(Polygon(points, polygon.colour, polygon.part, polygon.outlined))
    return placed
