"""A large picture as overlapping tiles that blend without a seam."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import product

import numpy as np
from numpy.typing import NDArray

Size = tuple[int, int]
"""Width, height in pixels."""
Box = tuple[int, int, int, int]
"""Left, top, right, bottom in pixels; right and bottom lie outside."""
Span = tuple[int, int]
"""Start and end along one side; the end lies outside."""
Fade = NDArray[np.float32]
"""How much each row or column of a tile counts, within 0..1."""


@dataclass(frozen=True, slots=True)
class Tiling:
    """How pictures are cut. Raises ValueError for an overlap that is not within 1 to `side` - 1."""

    side: int
    """Pixels a side of a tile; where a picture is shorter one way, so are its tiles."""
    overlap: int
    """The fewest pixels that neighbours share."""

    def __post_init__(self) -> None:
        if not 1 <= self.overlap < self.side:
            raise ValueError(f"tiles of {self.side} pixels overlap by {self.overlap}; give 1 to {self.side - 1}")

    def fits(self, size: Size) -> bool:
        """Whether one tile holds a whole picture of `size`."""
        return max(size) <= self.side

    def tiles(self, size: Size) -> list[Box]:
        """The tiles that cover a picture of `size`, row by row: evenly laid, all equal, none beyond the picture."""
        rows, columns = self._spans(size[1]), self._spans(size[0])
        return [(left, top, right, bottom) for (top, bottom), (left, right) in product(rows, columns)]

    def fades(self, size: Size, scale: int = 1) -> list[tuple[Fade, Fade]]:
        """For each of `tiles`, how much its rows and its columns count, at `scale` times its size.

        A pixel counts the product of both, and over all tiles that adds up to 1. A tile fades towards its neighbours,
        and the outermost quarter of the overlap counts nothing: next to its padding a convolution makes what it makes
        nowhere else.
        """
        return list(product(self._fades(size[1], scale), self._fades(size[0], scale)))

    def shares(self, size: Size) -> list[float]:
        """For each of `tiles`, its share of the picture: what its pixels count together."""
        width, height = size
        return [float(down.sum() * across.sum()) / (width * height) for down, across in self.fades(size)]

    def _spans(self, length: int) -> list[Span]:
        if length <= self.side:
            return [(0, length)]
        gaps = -(-(length - self.side) // (self.side - self.overlap))
        starts = (number * (length - self.side) // gaps for number in range(gaps + 1))
        return [(start, start + self.side) for start in starts]

    def _fades(self, length: int, scale: int) -> list[Fade]:
        spans = [(start * scale, end * scale) for start, end in self._spans(length)]
        fades = [self._fade(span, length * scale, scale) for span in spans]
        total = np.zeros(length * scale)
        for (start, end), fade in zip(spans, fades, strict=True):
            total[start:end] += fade
        return [(fade / total[start:end]).astype(np.float32) for (start, end), fade in zip(spans, fades, strict=True)]

    def _fade(self, span: Span, length: int, scale: int) -> NDArray[np.float64]:
        """From 0 at a tile's edges to 1 inside by the smoothstep 3x^2 - 2x^3; the picture's own edges do not fade."""
        start, end = span
        middles = np.arange(start, end) + 0.5
        before = np.inf if start == 0 else middles - start
        after = np.inf if end == length else end - middles
        distance = np.minimum(before, after) / (self.overlap * scale)
        share: NDArray[np.float64] = np.broadcast_to(np.clip(2 * distance - 0.5, 0, 1), middles.shape)
        return share * share * (3 - 2 * share)
