"""Values kept for later, within a number of bytes. Torch-free."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Hashable
from typing import Generic, TypeVar

from overpaint_worker.engine.statistics import CacheUse

_Value = TypeVar("_Value")


class ByteCache(Generic[_Value]):
    """Keeps the values used last; one that is larger than the whole cache is not kept."""

    def __init__(self, limit: int, size_of: Callable[[_Value], int]) -> None:
        """`limit` in bytes; `size_of` gives those of a value."""
        self._limit = limit
        self._size_of = size_of
        self._values: OrderedDict[Hashable, tuple[_Value, int]] = OrderedDict()
        self._bytes = self._hits = self._misses = 0

    def __contains__(self, key: Hashable) -> bool:
        return key in self._values

    def get(self, key: Hashable) -> _Value | None:
        """The value, counted as a hit, or None, counted as a miss."""
        found = self._values.get(key)
        if found is None:
            self._misses += 1
            return None
        self._hits += 1
        self._values.move_to_end(key)
        return found[0]

    def put(self, key: Hashable, value: _Value) -> None:
        size = self._size_of(value)
        self._bytes -= self._values.pop(key, (value, 0))[1]
        if size > self._limit:
            return
        self._values[key] = value, size
        self._bytes += size
        while self._bytes > self._limit:
            self._bytes -= self._values.popitem(last=False)[1][1]

    def clear(self) -> None:
        self._values.clear()
        self._bytes = 0

    @property
    def use(self) -> CacheUse:
        return CacheUse(self._hits, self._misses, self._bytes)
