"""The arithmetic of fitting: which part of a source goes where in a model's picture. No pixels here."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal, get_args

Size = tuple[int, int]
"""Width, height in pixels."""
Box = tuple[int, int, int, int]
"""Left, top, right, bottom in pixels; right and bottom lie outside."""
Method = Literal["pad", "crop", "stretch", "bucket", "keep"]

LONGEST_BUCKET = 4.0
"""The most that a bucket's long side may be of its short one; SDXL was trained up to this."""


@dataclass(frozen=True, slots=True)
class Placement:
    """How a source was laid into a model's picture, so that it can be undone."""

    method: Method
    source: Size
    visible: Box
    """The part of the source that the model sees, in source pixels; all of it except for `crop`."""
    model: Size
    """What the model takes."""
    content: Box
    """Where that part lies in the model's picture, in model pixels; around it is padding."""

    def restored_size(self, made: Size) -> Size:
        """The size that a model's picture of `made` pixels has once the placement is undone; at least 1 x 1.

        After `stretch` the largest size of the source's aspect inside `made`, so that nothing is scaled up.
        """
        across, down = made[0] / self.model[0], made[1] / self.model[1]
        width = max(1, round((self.content[2] - self.content[0]) * across))
        height = max(1, round((self.content[3] - self.content[1]) * down))
        if self.method == "stretch":
            return _inside(self.source, (width, height))
        return width, height

    def content_of(self, made: Size) -> Box:
        """Where the source lies in a picture of `made` pixels that a model made of the placed one; at least 1 x 1."""
        across, down = made[0] / self.model[0], made[1] / self.model[1]
        left = min(round(self.content[0] * across), made[0] - 1)
        top = min(round(self.content[1] * down), made[1] - 1)
        return left, top, max(left + 1, round(self.content[2] * across)), max(top + 1, round(self.content[3] * down))


def plan(source: Size, *, size: Size | int, method: Method, multiple: int = 8) -> Placement:
    """Where a source of `source` pixels goes.

    - `pad`: the whole source inside `size`, centred, its aspect kept.
    - `crop`: `size` filled, its aspect kept, what sticks out cut off evenly.
    - `stretch`: the whole source to exactly `size`, its aspect lost until `restore`.
    - `bucket`: like pad, but into the size of about the same area whose aspect is nearest the source's (between 1:4 and
      4:1), so that hardly anything is padded.
    - `keep`: no scaling and `size` unused; padded at the right and bottom up to the next multiple.

    All sides of the model's picture are multiples of `multiple` (`size` is rounded down, never below one multiple).
    Raises ValueError for an unknown method, or for a size or multiple below 1.
    """
    if method not in get_args(Method):
        raise ValueError(f"method is {method!r}; give one of {', '.join(get_args(Method))}")
    native = (size, size) if isinstance(size, int) else size
    if min(*source, *native, multiple) < 1:
        raise ValueError(f"source {source}, size {native} and multiple {multiple} must all be at least 1")
    whole = (0, 0, *source)
    model = (_down(native[0], multiple), _down(native[1], multiple))
    if method == "keep":
        return Placement(method, source, whole, (_up(source[0], multiple), _up(source[1], multiple)), whole)
    if method == "stretch":
        return Placement(method, source, whole, model, (0, 0, *model))
    if method == "crop":
        return Placement(method, source, _centred(_inside(model, source), source), model, (0, 0, *model))
    if method == "bucket":
        model = _bucket(source, model, multiple)
    return Placement(method, source, whole, model, _centred(_inside(source, model), model))


def _down(side: int, multiple: int) -> int:
    return max(multiple, side // multiple * multiple)


def _up(side: int, multiple: int) -> int:
    return -(-side // multiple) * multiple


def _inside(shape: Size, frame: Size) -> Size:
    """The largest size of `shape`'s aspect ratio inside `frame`; no side below 1."""
    scale = min(frame[0] / shape[0], frame[1] / shape[1])
    return (
        min(frame[0], max(1, round(shape[0] * scale))),
        min(frame[1], max(1, round(shape[1] * scale))),
    )


def _centred(size: Size, frame: Size) -> Box:
    left, top = (frame[0] - size[0]) // 2, (frame[1] - size[1]) // 2
    return left, top, left + size[0], top + size[1]


def _bucket(source: Size, native: Size, multiple: int) -> Size:
    """Among the sizes of at most `native`'s area, one for each width and each height, the nearest in aspect."""
    area = native[0] * native[1]
    longest = _down(math.isqrt(int(area * LONGEST_BUCKET)), multiple)
    sizes = {native}
    for one in range(multiple, longest + 1, multiple):
        other = _down(area // one, multiple)
        if one * other <= area and max(one, other) <= LONGEST_BUCKET * min(one, other):
            sizes |= {(one, other), (other, one)}
    wanted = math.log(source[0] / source[1])
    return min(sizes, key=lambda size: (abs(math.log(size[0] / size[1]) - wanted), -size[0] * size[1], size))
