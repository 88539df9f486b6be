"""Which waiting call runs next. Torch-free, so that it can be tested without a model."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from typing import Generic, TypeVar

from overpaint_common.job import PRIORITIES, Priority

_Item = TypeVar("_Item")

AGEING = 8
"""More urgent items that arrived later and may go before the first in line of a priority."""


@dataclass(slots=True, eq=False)
class _Place(Generic[_Item]):
    item: _Item
    rank: int
    """Of its priority; 0 is the most urgent."""
    arrival: int
    overtaken: int = 0
    """By more urgent ones that arrived later, since it is the first in line of its priority."""


class PriorityQueue(Generic[_Item]):
    """The most urgent first, in order of arrival among equals; and nobody waits for ever.

    The first in line of a priority is due once AGEING more urgent items that arrived after it went before it. What is
    due is taken next, whatever else waits; of several, the one that arrived first. So, however many more urgent items
    keep arriving, `pop` takes the n-th in line of a priority after at most n * AGEING of those that arrived after it.
    """

    def __init__(self) -> None:
        self._lines: tuple[deque[_Place[_Item]], ...] = tuple(deque() for _ in PRIORITIES)
        self._arrivals = 0

    def push(self, item: _Item, priority: Priority) -> None:
        rank = PRIORITIES.index(priority)
        self._lines[rank].append(_Place(item, rank, self._arrivals))
        self._arrivals += 1

    def first(self) -> _Item | None:
        """What `pop` would return."""
        place = self._next(lambda _: True)
        return None if place is None else place.item

    def pop(self, wanted: Callable[[_Item], bool] = lambda _: True) -> _Item | None:
        """Remove and return what is next among the `wanted`; None where none waits."""
        place = self._next(wanted)
        if place is None:
            return None
        self._lines[place.rank].remove(place)
        for line in self._lines[place.rank + 1 :]:
            if line and line[0].arrival < place.arrival:
                line[0].overtaken += 1
        return place.item

    def take(self, wanted: Callable[[_Item], bool]) -> list[_Item]:
        """Remove and return all items that are `wanted`."""
        taken = [place for line in self._lines for place in line if wanted(place.item)]
        for place in taken:
            self._lines[place.rank].remove(place)
        return [place.item for place in taken]

    def __len__(self) -> int:
        return sum(map(len, self._lines))

    def _next(self, wanted: Callable[[_Item], bool]) -> _Place[_Item] | None:
        due = (line[0] for line in self._lines if line and line[0].overtaken >= AGEING and wanted(line[0].item))
        by_urgency = (place for line in self._lines for place in line if wanted(place.item))
        return min(due, key=lambda it: it.arrival, default=None) or next(by_urgency, None)
