"""What an engine did since it started."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field


@dataclass(frozen=True, slots=True)
class CacheUse:
    """Of one cache, since its model was loaded."""

    hits: int = 0
    misses: int = 0
    bytes: int = 0
    """Held now."""

    def __add__(self, other: CacheUse) -> CacheUse:
        return CacheUse(self.hits + other.hits, self.misses + other.misses, self.bytes + other.bytes)


@dataclass(frozen=True, slots=True)
class Statistics:
    """Counts and seconds on the engine's thread."""

    forwards: int = 0
    """Of denoisers, in the stepped lane."""
    rows: int = 0
    """That calls had in those forwards."""
    padded: int = 0
    """Rows added to fill a bucket."""
    busy: float = 0.0
    """Seconds in which it loaded, computed or ran a pipeline's own code."""
    idle: float = 0.0
    """Seconds in which it waited for a call, from the first one's end to the last one's arrival."""
    caches: Mapping[str, CacheUse] = field(default_factory=dict)
    """Of the loaded models together, by name: "prompts", "posteriors"."""
