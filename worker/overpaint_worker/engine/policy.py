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
    `pop_above` takes nothing but what is more urgent than a running item: those count too, but the running item may
    let more than AGEING of them pass before the next `pop`.
    """

    def __init__(self) -> None:
        self._lines: tuple[deque[_Place[_Item]], ...] = tuple(deque() for _ in PRIORITIES)
        self._arrivals = 0

    def push(self, item: _Item, priority: Priority) -> None:
        rank = PRIORITIES.index(priority)
        self._lines[rank].append(_Place(item, rank, self._arrivals))
        self._arrivals += 1

    def pop(self) -> _Item | None:
        """Remove and return what is next; None where nothing waits."""
        return self._pop(len(PRIORITIES), lambda _: True)

    def pop_above(self, priority: Priority, wanted: Callable[[_Item], bool]) -> _Item | None:
        """Remove and return what is next among the `wanted` that are strictly more urgent than `priority`."""
        return self._pop(PRIORITIES.index(priority), wanted)

    def take(self, wanted: Callable[[_Item], bool]) -> list[_Item]:
        """Remove and return all items that are `wanted`."""
        taken = [place for line in self._lines for place in line if wanted(place.item)]
        for place in taken:
            self._lines[place.rank].remove(place)
        return [place.item for place in taken]

    def __len__(self) -> int:
        return sum(map(len, self._lines))

    def _pop(self, below: int, wanted: Callable[[_Item], bool]) -> _Item | None:
        """What is next among the `wanted` of a rank `below` this one."""
        lines = self._lines[:below]
        due = (line[0] for line in lines if line and line[0].overtaken >= AGEING and wanted(line[0].item))
        by_urgency = (place for line in lines for place in line if wanted(place.item))
        place = min(due, key=lambda it: it.arrival, default=None) or next(by_urgency, None)
        if place is None:
            return None
        self._lines[place.rank].remove(place)
        for line in self._lines[place.rank + 1 :]:
            if line and line[0].arrival < place.arrival:
                line[0].overtaken += 1
        return place.item
