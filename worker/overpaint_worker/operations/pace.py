"""How fast a job gets on: the time between its own steps, from which follows the time that it still takes."""

from __future__ import annotations

import time
from collections.abc import Callable

KEPT = 0.8
"""Weight that what was measured before keeps at each new measurement: the last few count."""

LEAST_STEPS = 2
"""Measured steps below which nothing is said."""


class Pace:
    """Steps a second of a job as a whole, whose calls may step together or one after another.

    Measured by rounds. A round is one step of each call that is under way; where calls run one after another, each step
    is one. Steps of one forward are told within microseconds of each other: the time between rounds has a meaning, that
    between their steps has none. Exponentially weighted, so that it follows a batch that grows or shrinks.

    Not safe to share between threads.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        """`clock` gives seconds that only grow."""
        self._clock = clock
        self._under_way: set[int] = set()
        self._round: set[int] = set()
        self._in_round = 0
        self._last = 0.0
        self._closed: float | None = None
        self._measured = 0
        self._steps = self._seconds = 0.0

    def begin_pass(self) -> None:
        """From here to the first step is no step's cost: encoding, or even loading another model."""
        self._under_way.clear()
        self._open_round()
        self._closed = None

    def add(self, call: int, steps: int, *, last: bool) -> None:
        """A call, by its number, has just made so many steps; `last` where it makes no more of them."""
        now = self._clock()
        if call in self._round:
            self._close_round(self._last)
        self._under_way.add(call)
        self._round.add(call)
        self._in_round += steps
        self._last = now
        if self._round >= self._under_way:
            self._close_round(now)
        if last:
            self._under_way.discard(call)

    def seconds_left(self, steps: int) -> float | None:
        """How long so many more steps, 0 or more, will take; None while too few were measured."""
        if self._measured < LEAST_STEPS:
            return None
        return round(steps * self._seconds / self._steps, 3)

    def _close_round(self, at: float) -> None:
        if self._closed is not None:
            self._steps = KEPT * self._steps + self._in_round
            self._seconds = KEPT * self._seconds + at - self._closed
            self._measured += self._in_round
        self._closed = at
        self._open_round()

    def _open_round(self) -> None:
        self._round.clear()
        self._in_round = 0
