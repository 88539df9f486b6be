"""The time that the bench may take, and its end by then whatever hangs."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import psutil


class Clock:
    """Counts from the start of this process."""

    def __init__(self, minutes: float) -> None:
        self.seconds = minutes * 60
        self._began = float(psutil.Process().create_time())

    @property
    def passed(self) -> float:
        return time.time() - self._began

    @property
    def left(self) -> float:
        return self.seconds - self.passed

    def until(self, share: float) -> float:
        """Seconds until that share of the time has passed; negative afterwards."""
        return self.seconds * share - self.passed


@contextmanager
def bounded(clock: Clock, end: Callable[[], None]) -> Iterator[None]:
    """Where the block is not done when the time is over, `end` is called, in another thread."""
    timer = threading.Timer(max(0.0, clock.left), end)
    timer.daemon = True
    timer.start()
    try:
        yield
    finally:
        timer.cancel()
