"""Ending in order when told to."""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

AGAIN = 1.0
"""Seconds."""


@contextmanager
def insistent() -> Iterator[None]:
    """Ctrl-C raises KeyboardInterrupt again if the block is not left soon: Python drops one that meets a finalizer."""
    again: list[threading.Timer] = []

    def interrupt(_number: int, _frame: FrameType | None) -> None:
        timer = threading.Timer(AGAIN, os.kill, (os.getpid(), signal.SIGINT))
        timer.daemon = True
        timer.start()
        again.append(timer)
        raise KeyboardInterrupt

    before = signal.signal(signal.SIGINT, interrupt)
    try:
        yield
    finally:
        for timer in again:
            timer.cancel()
        signal.signal(signal.SIGINT, before)


@contextmanager
def interruptible() -> Iterator[None]:
    """SIGTERM and a closed terminal raise KeyboardInterrupt here, as Ctrl-C does, so that `with` blocks clean up."""

    def interrupt(_number: int, _frame: FrameType | None) -> None:
        raise KeyboardInterrupt

    before = {number: signal.signal(number, interrupt) for number in (signal.SIGTERM, signal.SIGHUP)}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
