"""Methods for asyncio made of those that block: the same parameters, run in a few threads."""

from __future__ import annotations

import asyncio
import functools
from collections.abc import Callable, Coroutine
from concurrent.futures import ThreadPoolExecutor
from contextvars import copy_context
from threading import Event
from typing import Any, Concatenate, ParamSpec, TypeVar

P = ParamSpec("P")
R = TypeVar("R")
S = TypeVar("S")
Owner = TypeVar("Owner")


class Threads:
    """The threads of one producer, for any number of event loops."""

    def __init__(self, calls: int, looks: int) -> None:
        """At most `calls` of what callers ask for run at once, and `looks` of what waiting asks for by itself."""
        self._calls = ThreadPoolExecutor(calls, thread_name_prefix="overpaint-call")
        self._looks = ThreadPoolExecutor(looks, thread_name_prefix="overpaint-look")
        self._closed = Event()

    async def call(self, function: Callable[P, R], /, *args: P.args, **kwargs: P.kwargs) -> R:
        """What the function returns. Where the awaiting task is cancelled, a function that runs already runs on.

        Raises RuntimeError where it has not begun by the time of `close`.
        """
        return await self._run(self._calls, functools.partial(function, *args, **kwargs))

    async def look(self, function: Callable[P, R], /, *args: P.args, **kwargs: P.kwargs) -> R:
        """The same in threads of their own, so that no call ever stands behind the looks of many that wait."""
        return await self._run(self._looks, functools.partial(function, *args, **kwargs))

    def spawn(self, function: Callable[[], object]) -> None:
        """Run something whose end nobody waits for."""
        self._looks.submit(self._unless_closed, function)

    def close(self) -> None:
        """Wait for what runs, begin nothing of what has to wait for its turn, and take nothing more."""
        self._closed.set()
        self._calls.shutdown()
        self._looks.shutdown()

    async def _run(self, pool: ThreadPoolExecutor, function: Callable[[], R]) -> R:
        self._check_open()
        # As asyncio.to_thread does: log records and traces made in there belong to whoever called.
        run = functools.partial(copy_context().run, self._unless_closed, function)
        return await asyncio.get_running_loop().run_in_executor(pool, run)

    def _unless_closed(self, function: Callable[[], R]) -> R:
        self._check_open()
        return function()

    def _check_open(self) -> None:
        if self._closed.is_set():
            raise RuntimeError("the producer was closed before this call began; close it afterwards")


class Offloading:
    """Something for asyncio that stands for an object whose methods block."""

    def __init__(self, blocking: object, threads: Threads) -> None:
        self._offloaded = blocking
        self._threads = threads


def offloaded(
    method: Callable[Concatenate[Any, P], R],
) -> Callable[Concatenate[Any, P], Coroutine[Any, Any, R]]:
    """The method of an `Offloading` that calls `method` of what it stands for, in a thread."""

    @functools.wraps(method)
    async def call(self: Offloading, /, *args: P.args, **kwargs: P.kwargs) -> R:
        # By its name, so that a subclass's own is called.
        bound: Callable[P, R] = getattr(self._offloaded, method.__name__)
        return await self._threads.call(bound, *args, **kwargs)

    return call


def offloaded_into(
    method: Callable[Concatenate[Any, P], R], wrap: Callable[[Owner, R], S]
) -> Callable[Concatenate[Owner, P], Coroutine[Any, Any, S]]:
    """The same, where what comes back is for threads too: `wrap` makes it one for asyncio."""
    run = offloaded(method)

    @functools.wraps(method)
    async def call(self: Owner, /, *args: P.args, **kwargs: P.kwargs) -> S:
        return wrap(self, await run(self, *args, **kwargs))

    return call
