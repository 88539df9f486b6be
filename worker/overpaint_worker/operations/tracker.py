"""Adds the steps of all of a job's calls up to one progress."""

from __future__ import annotations

import threading
from collections.abc import Callable


class Tracker:
    """Counts steps over passes and variants and tells `report` the phase and the sum."""

    def __init__(self, report: Callable[[str, int], None], cancelled: threading.Event) -> None:
        """`cancelled` is what the job's calls look at: once set, they leave the engine."""
        self.cancelled = cancelled
        self._report = report
        self._lock = threading.Lock()
        self._done = 0

    def track(self, steps: int) -> Callable[[str, int], None]:
        """The progress callback of one call that runs `steps` steps."""
        before = 0

        def on_progress(phase: str, done: int) -> None:
            nonlocal before
            with self._lock:
                # Some pipelines run more steps than a strength leaves, such as those of latent consistency models.
                done = min(done, steps)
                self._done += done - before
                before = done
                # Inside the lock, so that sums are told in order; `report` must not block.
                self._report(phase, self._done)

        return on_progress

    def abandon(self) -> None:
        """Let the job's other calls leave the engine at their next step: nobody waits for them any more."""
        self.cancelled.set()
