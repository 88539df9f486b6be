"""What a scene can show, and the words that captions use for it."""

from __future__ import annotations

from typing import Final, Literal, get_args

RGB = tuple[int, int, int]

Colour = Literal["red", "orange", "yellow", "green", "blue", "purple", "pink", "brown", "black", "white"]
Shape = Literal["circle", "square", "triangle", "star", "heart", "car", "house", "flower", "tree", "cat"]
Place = Literal["plain", "grass", "beach", "snow", "desert", "sea", "city", "mountains", "forest", "night"]
Style = Literal["flat", "oil", "pencil", "watercolor", "pixel", "neon"]

COLOURS: Final[tuple[Colour, ...]] = get_args(Colour)
SHAPES: Final[tuple[Shape, ...]] = get_args(Shape)
PLACES: Final[tuple[Place, ...]] = get_args(Place)
STYLES: Final[tuple[Style, ...]] = get_args(Style)

PALETTE: Final[dict[Colour, RGB]] = {
    "red": (214, 45, 40),
    "orange": (245, 140, 25),
    "yellow": (248, 220, 45),
    "green": (45, 160, 65),
    "blue": (40, 90, 215),
    "purple": (130, 50, 175),
    "pink": (248, 130, 185),
    "brown": (125, 75, 40),
    "black": (25, 25, 28),
    "white": (248, 248, 248),
}
"""sRGB, 0 to 255: the middle of what each colour word means."""

COLOUR_WORDS: Final[dict[Colour, tuple[str, ...]]] = {
    "red": ("red",),
    "orange": ("orange",),
    "yellow": ("yellow",),
    "green": ("green",),
    "blue": ("blue",),
    "purple": ("purple", "purple", "violet"),
    "pink": ("pink",),
    "brown": ("brown",),
    "black": ("black",),
    "white": ("white",),
}

SHAPE_WORDS: Final[dict[Shape, tuple[str, ...]]] = {
    "circle": ("circle", "circle", "ball", "disc"),
    "square": ("square", "square", "box"),
    "triangle": ("triangle",),
    "star": ("star",),
    "heart": ("heart",),
    "car": ("car",),
    "house": ("house", "house", "house", "cottage"),
    "flower": ("flower",),
    "tree": ("tree",),
    "cat": ("cat", "cat", "kitten"),
}

PLACE_WORDS: Final[dict[Place, tuple[str, ...]]] = {
    "plain": ("on a plain background", "on a simple background", "on a {ground} background"),
    "grass": ("on grass", "on green grass", "in a field", "in a meadow"),
    "beach": ("on a beach", "on the beach", "on sand by the sea"),
    "snow": ("in snow", "in the snow", "on snow", "in winter"),
    "desert": ("in the desert", "in a desert"),
    "sea": ("on the sea", "on water", "at sea", "in the ocean"),
    "city": ("in a city", "in the city", "on a street"),
    "mountains": ("in the mountains", "in front of mountains"),
    "forest": ("in a forest", "in the forest", "in the woods"),
    "night": ("at night", "under the night sky", "in the dark"),
}
"""`{ground}` stands for the plain background's colour word."""

STYLE_WORDS: Final[dict[Style, tuple[str, ...]]] = {
    "flat": ("flat", "flat drawing", "flat illustration", "cartoon", "flat colors", "vector art"),
    "oil": ("oil painting", "oil", "oil paint", "oil strokes", "brush strokes"),
    "pencil": ("pencil sketch", "pencil", "pencil drawing", "sketch", "drawn with pencil"),
    "watercolor": ("watercolor", "watercolour", "watercolor painting", "watercolour painting"),
    "pixel": ("pixel art", "pixel", "pixelated", "8 bit pixel art"),
    "neon": ("neon", "neon lights", "glowing neon", "neon sign"),
}
