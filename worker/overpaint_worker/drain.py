"""How a process stops: at once for the jobs that have not begun to paint, and in time for those that have."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager

from overpaint_common.errors import JobCancelled, WorkerStopping
from overpaint_worker.engine.engine import Engine
from overpaint_worker.operations.tracker import Tracker

log = logging.getLogger(__name__)

RESERVE = 10.0
"""Seconds at the end of the grace for handing jobs back; a third of it where that is less."""


class Drain:
    """Once `begun` is set, interrupts the jobs in hand, so that each is handed back before the process is killed."""

    def __init__(self, engine: Engine, grace: float) -> None:
        """`grace`: seconds from the order to stop to the kill."""
        self.begun = threading.Event()
        self._engine = engine
        self._patience = grace - min(RESERVE, grace / 3)
        self._lock = threading.Lock()
        self._trackers: set[Tracker] = set()
        self._thread = threading.Thread(target=self._run, name="drain", daemon=True)

    def start(self) -> None:
        self._thread.start()

    @contextmanager
    def covers(self, tracker: Tracker) -> Iterator[None]:
        """Raises WorkerStopping out of the block when the drain interrupts the job of `tracker`."""
        with self._lock:
            self._trackers.add(tracker)
        try:
            yield
        except JobCancelled:
            if not tracker.interrupted:
                raise
            raise WorkerStopping("the worker was told to stop; another one takes the job over") from None
        finally:
            with self._lock:
                self._trackers.discard(tracker)

    def _run(self) -> None:
        self.begun.wait()
        self._interrupt(also_begun=False)
        time.sleep(self._patience)
        self._interrupt(also_begun=True)

    def _interrupt(self, *, also_begun: bool) -> None:
        with self._lock:
            chosen = [tracker for tracker in self._trackers if also_begun or not tracker.begun]
        for tracker in chosen:
            tracker.interrupt()
        self._engine.sweep()
        log.info("draining interrupted=%d also_begun=%s", len(chosen), also_begun)
