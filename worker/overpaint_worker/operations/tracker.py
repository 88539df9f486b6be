"""Adds the steps of all of a job's calls up to one progress, and hands its previews on."""

from __future__ import annotations

import threading
from collections.abc import Callable

from overpaint_worker.operations.pace import Pace
from overpaint_worker.operations.work import ShowPreview


class Tracker:
    """Counts steps over passes and variants and tells `report` the phase and the sum."""

    def __init__(
        self,
        report: Callable[[str, int], None],
        cancelled: threading.Event,
        *,
        pace: Pace | None = None,
        show: ShowPreview = lambda *_: None,
    ) -> None:
        """`cancelled` is what the job's calls look at: once set, they leave the engine.

        `pace` is told each step before `report` is; `show` is given the previews of a job that asks for them.
        """
        self.cancelled = cancelled
        self.show = show
        self._report = report
        self._pace = pace or Pace()
        self._lock = threading.Lock()
        self._calls = 0
        self._done = 0

    def track(self, steps: int) -> Callable[[str, int], None]:
        """The progress callback of one call that runs `steps` steps; a pass begins once all its calls are tracked."""
        with self._lock:
            number, before = self._calls, 0
            self._calls += 1
            self._pace.begin_pass()

        def on_progress(phase: str, done: int) -> None:
            nonlocal before
            with self._lock:
                # Some pipelines run more steps than a strength leaves, such as those of latent consistency models.
                done = min(done, steps)
                if done > before:
                    self._pace.add(number, done - before, last=done == steps)
                self._done += done - before
                before = done
                # Inside the lock, so that sums are told in order; `report` must not block.
                self._report(phase, self._done)

        return on_progress

    def abandon(self) -> None:
        """Let the job's other calls leave the engine at their next step: nobody waits for them any more."""
        self.cancelled.set()
