"""Which models are loaded: the least recently used leave when another one needs their room. Torch-free."""

from __future__ import annotations

import gc
import logging
from collections.abc import Callable, Container, Iterable, Iterator
from dataclasses import dataclass

from overpaint_worker.engine.calls import Loader, Model

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Budget:
    """How many bytes of weights may be loaded, and how they are told."""

    total: int
    foretold: Callable[[str], int | None]
    """Of a model by name, before it is loaded; None where nobody knows."""
    held: Callable[[Model], int]
    """Of a loaded one."""


class Residents:
    """The loaded models of one device."""

    def __init__(self, loader: Loader, budget: Budget | None = None) -> None:
        """`budget` None has one model at a time."""
        self._loader = loader
        self._budget = budget
        self._loaded: dict[str, Model] = {}
        """Those used last at the end."""

    def __iter__(self) -> Iterator[Model]:
        return iter(self._loaded.values())

    def __contains__(self, name: str) -> bool:
        return name in self._loaded

    def use(self, name: str) -> Model:
        """A loaded model, which is the last to leave now."""
        model = self._loaded.pop(name)
        self._loaded[name] = model
        return model

    def has_room(self, name: str, busy: Container[str]) -> bool:
        """Whether a model is loaded or could be, with those left alone that are `busy`."""
        return name in self or self._fits(name, [model for other, model in self._loaded.items() if other in busy])

    def load(self, name: str, busy: Container[str]) -> Model:
        """Load a model, once what is not `busy` has left as far as it must. Raises what the loader raises."""
        for other in self._idle(busy):
            if self._fits(name, self._loaded.values()):
                break
            self._evict(other)
        self._loaded[name] = model = self._loader(name)
        # Files tell less than what they become.
        for other in self._idle(busy):
            if other == name or self._within(0, self._loaded.values()):
                break
            self._evict(other)
        return model

    def clear(self) -> None:
        for name in list(self._loaded):
            self._evict(name)

    def _idle(self, busy: Container[str]) -> list[str]:
        return [name for name in self._loaded if name not in busy]

    def _evict(self, name: str) -> None:
        del self._loaded[name]
        log.info("model evicted model=%s", name)
        gc.collect()

    def _fits(self, name: str, beside: Iterable[Model]) -> bool:
        beside = list(beside)
        foretold = self._budget.foretold(name) if beside and self._budget is not None else None
        return not beside or (foretold is not None and self._within(foretold, beside))

    def _within(self, more: int, beside: Iterable[Model]) -> bool:
        budget = self._budget
        return budget is None or more + sum(map(budget.held, beside)) <= budget.total
