"""One scene from one seed: what it shows, its picture in one of the styles, and the object's mask."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Final, Literal, TypedDict, TypeVar, Unpack

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from training.places import draw_place
from training.shapes import Polygon, Pose, draw_object
from training.styles import OVERSAMPLING, paint, silhouette
from training.words import COLOURS, PALETTE, PLACES, RGB, SHAPES, STYLES, Colour, Place, Shape, Style

_Name = TypeVar("_Name", bound=str)
Split = Literal["train", "held-out"]

SEEDS: Final[dict[Split, range]] = {"train": range(2**40), "held-out": range(2**40, 2**41)}
"""Scene seeds of each split: disjoint, so that no picture that measures the model was ever trained on."""

VARIANTS: Final = 4
"""Of a family: two colours times two styles."""

_PLAIN_SHARE = 0.25
_FLAT_SHARE = 0.25
"""Of families that start flat whatever their seed says: flat pictures are what people bring most."""
_OUTLINED_SHARE = 0.3
_LOW_CONTRAST = 80.0
_WIDE = 0.25
"""Parts of a place narrower than this do not hide an object."""


class Changes(TypedDict, total=False):
    """What of `Attributes` may differ between pictures of one seed."""

    colour: Colour
    shape: Shape
    place: Place
    ground: Colour
    style: Style


@dataclass(frozen=True, slots=True)
class Attributes:
    """What a scene shows, in the generator's own words."""

    seed: int
    """Decides all that the other fields leave open: the pose, the place's details, the strokes."""
    colour: Colour
    shape: Shape
    place: Place
    ground: Colour
    """Of a plain background; without meaning for another place."""
    style: Style

    def evolve(self, **changes: Unpack[Changes]) -> Attributes:
        """The same scene with other attributes: the same pose, another colour, say."""
        return replace(self, **changes)


@dataclass(frozen=True, slots=True)
class Scene:
    """A drawn scene."""

    picture: Image.Image
    """RGB, side x side."""
    mask: NDArray[np.bool_]
    """side x side; True where the object covers at least half of the pixel, its details included."""
    attributes: Attributes


def attributes_of(seed: int) -> Attributes:
    """The attributes that a seed stands for, without drawing."""
    rng = np.random.default_rng((seed, 0))
    colour, shape, style = _choose(rng, COLOURS), _choose(rng, SHAPES), _choose(rng, STYLES)
    place: Place = "plain" if rng.random() < _PLAIN_SHARE else _choose(rng, PLACES[1:])
    ground = _choose(rng, tuple(name for name in COLOURS if name != colour))
    return Attributes(seed, colour, shape, place, ground, style)


def family_of(seed: int) -> tuple[Attributes, ...]:
    """The seed's scene in two colours and two styles, `VARIANTS` in all: the same pose, place and details.

    Variant 2 * style + colour has the second style if `style` is 1 and the second colour if `colour` is 1.
    """
    first = attributes_of(seed)
    rng = np.random.default_rng((seed, 4))
    if rng.random() < _FLAT_SHARE:
        first = first.evolve(style="flat")
    colour = _choose(rng, tuple(name for name in COLOURS if name not in (first.colour, first.ground)))
    style = _choose(rng, tuple(name for name in STYLES if name != first.style))
    return tuple(
        first.evolve(colour=one_colour, style=one_style)
        for one_style in (first.style, style)
        for one_colour in (first.colour, colour)
    )


def draw(attributes: Attributes, side: int) -> Scene:
    """The scene at `side` x `side` pixels: always the same picture for the same attributes and side."""
    polygons = _compose(attributes)
    picture = paint(polygons, attributes.style, side, np.random.default_rng((attributes.seed, 3)))
    covered = silhouette(polygons, side * OVERSAMPLING).resize((side, side), Image.Resampling.BOX)
    return Scene(picture, np.asarray(covered) >= 128, attributes)


def split_seeds(split: Split, rng: np.random.Generator, count: int) -> list[int]:
    """`count` scene seeds of a split, drawn with `rng`."""
    seeds = SEEDS[split]
    return [int(seed) for seed in rng.integers(seeds.start, seeds.stop, count)]


def _choose(rng: np.random.Generator, names: tuple[_Name, ...]) -> _Name:
    return names[int(rng.integers(len(names)))]


def _compose(attributes: Attributes) -> list[Polygon]:
    pose = _pose(np.random.default_rng((attributes.seed, 1)))
    place_rng = np.random.default_rng((attributes.seed, 2))
    outlined = place_rng.random() < _OUTLINED_SHARE
    jitter = place_rng.normal(0, 7, 3).clip(-14, 14)
    ground = draw_place(attributes.place, PALETTE[attributes.ground], place_rng)
    body = PALETTE[attributes.colour]
    parts = draw_object(attributes.shape, body, pose)
    behind = min(_distance(body, polygon.colour) for polygon in ground if np.ptp(polygon.points[:, 0]) > _WIDE)
    if attributes.style in ("flat", "oil", "watercolor") and (outlined or behind < _LOW_CONTRAST):
        ground = [*ground, *_border(parts, body, 0.014)]
    tinted = _tinted(body, jitter)
    return [*ground, *(replace(part, colour=tinted) if part.part == "body" else part for part in parts)]


def _pose(rng: np.random.Generator) -> Pose:
    size = rng.uniform(0.5, 0.78)
    slack = 0.5 - size / 2
    return Pose(
        x=0.5 + rng.uniform(-slack, slack) * 0.9,
        y=0.52 + rng.uniform(-slack, slack) * 0.8,
        size=size,
        angle=float(rng.normal(0, 0.07)),
        mirrored=bool(rng.random() < 0.5),
    )


def _border(parts: list[Polygon], body: RGB, width: float) -> list[Polygon]:
    """The object, a little larger and in a darker shade, to be painted behind it: an outline."""
    dark: RGB = (235, 235, 240) if max(body) < 60 else _tinted(body, -0.45 * np.asarray(body, dtype=np.float64))
    offsets = [(width * np.cos(a), width * np.sin(a)) for a in np.arange(8) * np.pi / 4]
    return [
        Polygon(part.points + offset, dark, "ground", outlined=False)
        for part in parts
        for offset in offsets
        if part.outlined
    ]


def _tinted(colour: RGB, by: NDArray[np.float64]) -> RGB:
    red, green, blue = (int(max(0, min(255, value + shift))) for value, shift in zip(colour, by, strict=True))
    return red, green, blue


def _distance(one: RGB, other: RGB) -> float:
    return float(np.linalg.norm(np.subtract(one, other)))
