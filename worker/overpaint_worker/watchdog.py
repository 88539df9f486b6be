"""Notices a worker that lives but no longer takes tickets."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Sequence
from typing import Protocol

from overpaint_common.errors import BrokerUnavailable

log = logging.getLogger(__name__)


class Consumer(Protocol):
    """What the watchdog looks at."""

    @property
    def received(self) -> int:
        """Tickets that have arrived."""

    def open_queues(self) -> list[str]:
        """The queues that a ticket may be taken from at this moment; none where that is not to be."""


class Stall:
    """For how long tickets have waited that could have been taken, as far as it was looked at."""

    def __init__(self, longest_gap: float) -> None:
        """`longest_gap`: seconds between two looks beyond which the process was paused, which is nobody's fault."""
        self._longest_gap = longest_gap
        self._seconds = 0.0
        self._looked: float | None = None
        self._received = 0

    def look(self, now: float, *, received: int, waiting: int) -> float:
        """Seconds that `waiting` was above zero while `received` stayed the same; `now` in monotonic seconds."""
        since = 0.0 if self._looked is None else min(now - self._looked, self._longest_gap)
        stalled = waiting > 0 and received == self._received and self._looked is not None
        self._looked, self._received = now, received
        self._seconds = self._seconds + since if stalled else 0.0
        return self._seconds


class Watchdog:
    """Reports once that nothing was taken for `patience` seconds although there was something to take.

    While Redis does not answer, all slots are taken, a job has the worker alone or the worker is leaving, the clock
    stands at zero.
    """

    def __init__(
        self,
        consumer: Consumer,
        *,
        waiting: Callable[[Sequence[str]], int],
        on_stuck: Callable[[str], None],
        leaving: threading.Event,
        patience: float = 60.0,
        interval: float = 5.0,
    ) -> None:
        """`waiting` counts the tickets in queues, and raises BrokerUnavailable without Redis.

        `on_stuck` gets the reason, for people. `patience` must exceed the half minute that Celery may wait before it
        connects again.
        """
        self._consumer = consumer
        self._waiting = waiting
        self._on_stuck = on_stuck
        self._leaving = leaving
        self._patience = patience
        self._interval = interval
        self._thread = threading.Thread(target=self._loop, name="watchdog", daemon=True)

    def start(self) -> None:
        self._thread.start()

    def join(self) -> None:
        """Wait for its end, which follows at once when the worker is leaving."""
        self._thread.join()

    def _loop(self) -> None:
        stall = Stall(longest_gap=2 * self._interval)
        while not self._leaving.wait(self._interval):
            queues = self._consumer.open_queues()
            waiting = self._count(queues)
            seconds = stall.look(time.monotonic(), received=self._consumer.received, waiting=waiting)
            if seconds >= self._patience:
                named = ", ".join(queues)
                self._on_stuck(f"no ticket taken for {seconds:.0f} s with free slots and {waiting} waiting in {named}")
                return

    def _count(self, queues: Sequence[str]) -> int:
        try:
            return self._waiting(queues) if queues else 0
        except BrokerUnavailable as error:
            log.debug("cannot tell how many tickets wait: %s", error)
            return 0
