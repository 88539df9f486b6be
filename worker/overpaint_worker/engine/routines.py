"""Routines: straight-line code that runs in turns, many beside each other, on the engine's one thread.

A diffusers pipeline is a loop that owns its steps. Run in a greenlet, it can stop in the middle of one, wherever it
calls a network, and hand out what it wants computed; the engine computes that together with what other routines want,
and lets each go on with its own result. The pipeline's own code runs unchanged.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from typing import Any, Generic, TypeVar, cast

from greenlet import getcurrent, greenlet

_Result = TypeVar("_Result")

Context = Callable[[], AbstractContextManager[Any]]


@dataclass(frozen=True, slots=True, eq=False)
class Turn:
    """What a routine wants computed before it goes on."""

    group: Hashable
    """Turns of one group may be computed together; the device's time is shared out among groups."""
    compute: Callable[[Sequence[Any]], Sequence[Any]]
    """Takes `wanted` of some turns of the group and returns a result for each; the same for all turns of a group."""
    wanted: Any = None
    rows: int = 1
    """Samples that it adds to the forward."""
    alone: bool = False
    """Computed by itself."""
    most: int = 1
    """Rows that turns of the group may have together; a turn with more is computed by itself."""
    bucket: Callable[[int], int] | None = None
    """For a forward of a denoiser: the rows that so many are filled up to."""


class Routine(Generic[_Result]):
    """Runs `run` up to its next turn, each time it is told to go on.

    All of its methods are for the thread that made it. What `run` raises comes out of the method that let it run.
    """

    def __init__(self, run: Callable[[], _Result]) -> None:
        self._fiber = _Fiber(run)
        self.turn: Turn | None = None
        """What it waits for."""
        self.ended = False

    def go_on(self, result: Any = None) -> _Result | None:
        """Start it, or hand it the result of its turn; what `run` returned, once it has `ended`."""
        return self._after(lambda: self._fiber.switch(result) if self._fiber else self._fiber.switch())

    def fail(self, error: BaseException) -> _Result | None:
        """Raise `error` in it, where it waits; one that never began ends at once."""
        return self._after(lambda: self._fiber.throw(error))

    def _after(self, let_run: Callable[[], Any]) -> _Result | None:
        self.turn = None
        try:
            given = let_run()
        finally:
            self.ended = self._fiber.dead
        self.turn = None if self.ended else given
        return cast("_Result", given) if self.ended else None


def wait(turn: Turn) -> Any:
    """Hand out a turn from within a routine, and return its result once it is computed; at once outside of any."""
    contexts = _contexts()
    if contexts is None:
        return turn.compute([turn.wanted])[0]
    contexts.leave()
    try:
        # Not by a local variable: a greenlet that its own frame refers to is never freed.
        return cast("greenlet", getcurrent().parent).switch(turn)
    finally:
        contexts.enter()


@contextmanager
def held(context: Context) -> Iterator[None]:
    """The block runs within the context, and nothing else does: it is left while the routine waits.

    For what is set on the thread or on parts that routines share. It is entered anew whenever the routine goes on.
    """
    contexts = _contexts()
    if contexts is None:
        with context():
            yield
        return
    contexts.push(context)
    try:
        yield
    finally:
        contexts.pop()


class _Fiber(greenlet):
    """A greenlet with what it holds while it runs."""

    def __init__(self, run: Callable[[], Any]) -> None:
        super().__init__(run)
        self.contexts = _Contexts()


class _Contexts:
    """Contexts that are entered and left together, the first one outermost."""

    def __init__(self) -> None:
        self._made: list[Context] = []
        self._entered: list[AbstractContextManager[Any]] = []

    def push(self, context: Context) -> None:
        self._enter(context)
        self._made.append(context)

    def pop(self) -> None:
        self._made.pop()
        self._entered.pop().__exit__(None, None, None)

    def enter(self) -> None:
        for context in self._made:
            self._enter(context)

    def leave(self) -> None:
        while self._entered:
            self._entered.pop().__exit__(None, None, None)

    def _enter(self, context: Context) -> None:
        entering = context()
        entering.__enter__()
        self._entered.append(entering)


def _contexts() -> _Contexts | None:
    """Those of the routine that runs; None outside of any."""
    current = getcurrent()
    return current.contexts if isinstance(current, _Fiber) else None
