"""What forwards cost, measured before the first job."""

from __future__ import annotations

import math
from dataclasses import dataclass

from overpaint_worker.engine.memory import Memory

MOST_ROWS = 32
"""Of a forward, however much memory there is: more cost as much a row and keep everybody waiting longer."""
SHARE = 0.8
"""Of the free memory that a forward may take: the rest is for the VAE, and for what allocators waste."""


@dataclass(frozen=True, slots=True)
class Footprint:
    """Bytes that a forward takes, as a line through two measurements."""

    fixed: float
    """Whatever its rows."""
    per_element: float
    """For each element of the latents that go in."""

    @classmethod
    def measured(cls, few: tuple[int, int], many: tuple[int, int]) -> Footprint:
        """From two forwards, each by its elements of latents and the bytes at its peak."""
        slope = max(0.0, (many[1] - few[1]) / (many[0] - few[0]))
        return cls(max(0.0, few[1] - slope * few[0]), slope)

    def most_rows(self, elements: int, free: int) -> int:
        """Rows of `elements` each that fit into `free` bytes: at least 1, at most MOST_ROWS."""
        each = self.per_element * elements
        if each == 0:
            return MOST_ROWS
        return max(1, min(MOST_ROWS, math.floor((free * SHARE - self.fixed) / each)))


class Room:
    """How many rows a forward may have."""

    def __init__(self, memory: Memory) -> None:
        self._memory = memory
        self._footprint: Footprint | None = None

    def learn(self, footprint: Footprint) -> None:
        self._footprint = footprint

    def most_rows(self, elements: int) -> int:
        """Of rows with so many elements of latents; MOST_ROWS before anything was measured."""
        return MOST_ROWS if self._footprint is None else self._footprint.most_rows(elements, self._memory.free())
