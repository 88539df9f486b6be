"""Captions for scenes: four templates; words are dropped at random, so that short and partial prompts work too."""

from __future__ import annotations

import re
from typing import Final

import numpy as np

from training.scenes import Attributes
from training.words import COLOUR_WORDS, PLACE_WORDS, SHAPE_WORDS, STYLE_WORDS

_COLOUR_KEPT: Final = 0.93
_PLACE_KEPT: Final = 0.75
_STYLE_KEPT: Final = 0.7


def full_caption(attributes: Attributes) -> str:
    """Everything the scene shows, in the first words for it: "a blue car on grass, watercolor"."""
    place = PLACE_WORDS[attributes.place][0].format(ground=attributes.ground)
    style = STYLE_WORDS[attributes.style][0]
    return f"a {attributes.colour} {SHAPE_WORDS[attributes.shape][0]} {place}, {style}"


def caption(attributes: Attributes, rng: np.random.Generator, named: tuple[str, ...] = ()) -> str:
    """One of many ways to say it, in lower case.

    The object is always named, and so are the attributes ("colour", "style") in `named`; all else is left out at times.
    """
    colour = _pick(rng, COLOUR_WORDS[attributes.colour]) if _kept(rng, _COLOUR_KEPT, "colour" in named) else ""
    thing = _tidy(f"{colour} {_pick(rng, SHAPE_WORDS[attributes.shape])}")
    place = _pick(rng, PLACE_WORDS[attributes.place]).format(ground=attributes.ground)
    place = place if rng.random() < _PLACE_KEPT else ""
    style = _pick(rng, STYLE_WORDS[attributes.style]) if _kept(rng, _STYLE_KEPT, "style" in named) else ""
    article = _pick(rng, ("a", "a", "a", "the", "one")) if rng.random() < 0.9 else ""
    if article == "a" and thing[0] in "aeiou":
        article = "an"
    form = rng.random()
    if not style or form < 0.6:
        text = f"{article} {thing} {place}" + (f", {style}" if style else "")
    elif form < 0.75:
        text = f"{style} of {article} {thing} {place}"
    elif form < 0.9:
        text = f"{style}, {article} {thing} {place}"
    else:
        text = f"{article} {thing} {place} in {style} style"
    return _tidy(text)


def _kept(rng: np.random.Generator, share: float, always: bool) -> bool:
    return bool(rng.random() < share) or always


def _pick(rng: np.random.Generator, choices: tuple[str, ...]) -> str:
    return choices[int(rng.integers(len(choices)))]


def _tidy(text: str) -> str:
    return re.sub(r"\s+", " ", text).strip()
