"""Which waiting call runs next. Torch-free, so that it can be tested without a model."""

from __future__ import annotations

import heapq
from collections.abc import Callable
from typing import Generic, TypeVar

from overpaint_common.job import PRIORITIES, Priority

_Item = TypeVar("_Item")


class PriorityQueue(Generic[_Item]):
    """The most urgent first; in order of arrival among equals."""

    def __init__(self) -> None:
        self._heap: list[tuple[int, int, _Item]] = []
        self._arrivals = 0

    def push(self, item: _Item, priority: Priority) -> None:
        heapq.heappush(self._heap, (PRIORITIES.index(priority), self._arrivals, item))
        self._arrivals += 1

    def pop(self) -> _Item | None:
        return heapq.heappop(self._heap)[2] if self._heap else None

    def take(self, wanted: Callable[[_Item], bool]) -> list[_Item]:
        """Remove and return all items that are `wanted`."""
        taken = [entry for entry in self._heap if wanted(entry[2])]
        if taken:
            self._heap = [entry for entry in self._heap if entry not in taken]
            heapq.heapify(self._heap)
        return [item for _, _, item in taken]

    def __len__(self) -> int:
        return len(self._heap)
