"""Following many jobs at once: one thread reads the events of all of them and hands them to the event loops."""

from __future__ import annotations

import asyncio
import heapq
import logging
import secrets
import time
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from functools import partial
from threading import Event, Lock, Thread

from overpaint_common.errors import BrokerUnavailable
from overpaint_common.live import Live, Progress

log = logging.getLogger(__name__)

BLOCK = 1.0
"""Seconds that one read waits for events; jobs that join meanwhile end it."""

GATHER = 0.05
"""Seconds between two reads of which the first found something: what happens meanwhile comes together."""

OUTAGE_PAUSE = 0.5
"""Seconds before Redis is asked again after it did not answer."""

EVENTS_AT_ONCE = 500
"""Of one job and in one read."""

LOOKS_PER_SECOND = 50.0
"""Looks at the ledger by all that wait together, each kind of look for itself."""

_Found = Mapping[str, list[tuple[str, Progress | None]]]


class Watch:
    """The moments of one job, for one coroutine of one event loop."""

    def __init__(self, job_id: str, loop: asyncio.AbstractEventLoop) -> None:
        self.job_id = job_id
        self.loop = loop
        self.position = "0"
        """After which the watcher reads on; its own, as is everything that its thread touches."""
        self._moments: list[Progress] = []
        self._news = asyncio.Event()
        self._closed = False

    async def next(self, until: float) -> list[Progress]:
        """What came since the last call, as soon as there is something; nothing at the monotonic time `until`.

        Raises RuntimeError once the watcher is closed.
        """
        with suppress(TimeoutError):
            async with asyncio.timeout(None if until == float("inf") else max(0.0, until - time.monotonic())):
                await self._news.wait()
        if self._closed:
            raise RuntimeError(f"the producer was closed while job {self.job_id} was waited for; close it afterwards")
        self._news.clear()
        moments, self._moments = self._moments, []
        return moments

    def deliver(self, moments: list[Progress]) -> None:
        """To be called in the loop."""
        self._moments += moments
        self._news.set()

    def close(self) -> None:
        """To be called in the loop."""
        self._closed = True
        self._news.set()


class Turns:
    """Spreads over time what many would do at the same moment. Safe to share between threads."""

    def __init__(self, per_second: float) -> None:
        self._pause = 1 / per_second
        self._free = 0.0
        """From when on nothing is reserved; before it are the times that came back."""
        self._returned: list[float] = []
        self._lock = Lock()

    def reserve(self, earliest: float) -> float:
        """A monotonic time at or after `earliest` that nobody else has."""
        with self._lock:
            while self._returned:
                at = heapq.heappop(self._returned)
                if at >= earliest:
                    return at
            at = max(earliest, self._free)
            self._free = at + self._pause
        return at

    def give_back(self, at: float) -> None:
        """Leave a reserved time to others."""
        with self._lock:
            heapq.heappush(self._returned, at)


class Look:
    """When one that waits is to look at the ledger next: at a time of its own, until it gives that back."""

    def __init__(self, turns: Turns, earliest: float) -> None:
        self._turns = turns
        self.at = turns.reserve(earliest)

    def move(self, turns: Turns, earliest: float) -> None:
        """Look at a time of these turns instead, at or after `earliest`."""
        self.give_back()
        self._turns = turns
        self.at = turns.reserve(earliest)

    def give_back(self) -> None:
        """Look no more."""
        self._turns.give_back(self.at)


class Watcher:
    """Follows the events of all jobs that are waited for. Its thread lives while there are any."""

    def __init__(self, live: Live, spawn: Callable[[Callable[[], object]], object]) -> None:
        """`spawn` runs a function in some other thread: what asks Redis must not run in an event loop."""
        self.later_looks = Turns(LOOKS_PER_SECOND)
        self._first_looks = Turns(LOOKS_PER_SECOND)
        self._live = live
        self._spawn = spawn
        self._lock = Lock()
        self._watches: dict[str, list[Watch]] = defaultdict(list)
        self._thread: Thread | None = None
        self._closed = Event()
        self._name = f"watcher-{secrets.token_hex(8)}"
        """Of the job that never is, whose events end a read."""
        self._nudged_at = "0"
        self._nudged = False

    @property
    def watched(self) -> int:
        """How many watches there are."""
        with self._lock:
            return sum(map(len, self._watches.values()))

    @contextmanager
    def watch(self, job_id: str) -> Iterator[Watch]:
        """The moments of a job in the running loop, all that are kept first, until the block ends."""
        watch = Watch(job_id, asyncio.get_running_loop())
        self._add(watch)
        try:
            yield watch
        finally:
            self._remove(watch)

    @contextmanager
    def look(self, earliest: float) -> Iterator[Look]:
        """The looks at the ledger until the block ends, the first one at or after the monotonic time `earliest`."""
        look = Look(self._first_looks, earliest)
        try:
            yield look
        finally:
            look.give_back()

    def close(self) -> None:
        """End the thread and whatever still waits; to be called outside of event loops."""
        with self._lock:
            self._closed.set()
            thread = self._thread
            left = [watch for watches in self._watches.values() for watch in watches]
        for watch in left:
            _call(watch.loop, watch.close)
        if thread is not None:
            self._nudge()
            thread.join()

    def _add(self, watch: Watch) -> None:
        with self._lock:
            if self._closed.is_set():
                raise RuntimeError(f"the producer is closed; wait for job {watch.job_id} with an open one")
            self._watches[watch.job_id].append(watch)
            nudge = self._thread is not None and not self._nudged
            self._nudged = self._nudged or nudge
            if self._thread is None:
                self._thread = Thread(target=self._run, name="overpaint-watch", daemon=True)
                self._thread.start()
        if nudge:
            self._spawn(self._nudge)

    def _remove(self, watch: Watch) -> None:
        with self._lock:
            self._watches[watch.job_id].remove(watch)
            if not self._watches[watch.job_id]:
                del self._watches[watch.job_id]

    def _run(self) -> None:
        while (positions := self._begin()) is not None:
            try:
                found = self._live.events_of(positions, block=BLOCK, limit=EVENTS_AT_ONCE)
            except BrokerUnavailable as error:
                log.warning("waiting goes on without Redis: %s", error)
                self._closed.wait(OUTAGE_PAUSE)
                continue
            self._hand_over(positions, found)
            if found:
                self._closed.wait(GATHER)

    def _begin(self) -> dict[str, str] | None:
        """Where to read on; None where there is nothing left to read, and the thread ends."""
        with self._lock:
            if self._closed.is_set() or not self._watches:
                self._thread = None
                return None
            self._nudged = False
            # One that has just joined wants what the others of its job have seen.
            positions = {
                job_id: min((watch.position for watch in watches), key=_order)
                for job_id, watches in self._watches.items()
            }
            return {**positions, self._name: self._nudged_at}

    def _hand_over(self, began: Mapping[str, str], found: _Found) -> None:
        arrived: dict[asyncio.AbstractEventLoop, list[tuple[Watch, list[Progress]]]] = defaultdict(list)
        with self._lock:
            for job_id, events in found.items():
                last, read_from = events[-1][0], _order(began[job_id])
                if job_id == self._name:
                    self._nudged_at = last
                for watch in self._watches.get(job_id, ()):
                    seen = _order(watch.position)
                    if seen < read_from:
                        continue  # It has joined during the read, which lacks what came before; the next one has all.
                    news = [moment for position, moment in events if moment is not None and _order(position) > seen]
                    watch.position = max(watch.position, last, key=_order)
                    if news:
                        arrived[watch.loop].append((watch, news))
        for loop, batch in arrived.items():
            _call(loop, partial(_deliver, batch))

    def _nudge(self) -> None:
        # Without it the job that has joined is read once the read that goes on has ended.
        with suppress(BrokerUnavailable):
            self._live.nudge(self._name)


def _deliver(batch: list[tuple[Watch, list[Progress]]]) -> None:
    for watch, moments in batch:
        watch.deliver(moments)


def _order(position: str) -> tuple[int, int]:
    milliseconds, _, number = position.partition("-")
    return int(milliseconds), int(number or 0)


def _call(loop: asyncio.AbstractEventLoop, function: Callable[[], object]) -> None:
    # Its watches end with the loop.
    with suppress(RuntimeError):
        loop.call_soon_threadsafe(function)
