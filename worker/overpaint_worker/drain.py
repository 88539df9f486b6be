"""How a process stops: at once for the jobs that have not begun to paint, and in time for those that have."""

from __future__ import annotations

import logging
import threading
import time

from overpaint_common.errors import WorkerStopping
from overpaint_worker.engine.engine import Engine
from overpaint_worker.holding import Hold, Holdings

log = logging.getLogger(__name__)

RESERVE = 10.0
"""Seconds at the end of the grace for handing jobs back; a third of it where that is less."""


def _stopping() -> WorkerStopping:
    return WorkerStopping("the worker was told to stop; another one takes the job over")


class Drain:
    """Once `begun` is set, interrupts the jobs in hand, so that each is handed back before the process is killed."""

    def __init__(self, engine: Engine, holdings: Holdings, grace: float) -> None:
        """`grace`: seconds from the order to stop to the kill."""
        self.begun = threading.Event()
        self._engine = engine
        self._holdings = holdings
        self._patience = grace - min(RESERVE, grace / 3)
        self._thread = threading.Thread(target=self._run, name="drain", daemon=True)

    def start(self) -> None:
        self._thread.start()

    def _run(self) -> None:
        self.begun.wait()
        self._holdings.refuse(_stopping)
        held = list(self._holdings)
        waiting = [hold for hold in held if not hold.begun]
        left = len(held) - len(waiting)
        log.info("draining handed_back=%d finishing=%d seconds=%.0f", len(waiting), left, self._patience)
        self._interrupt(waiting)
        time.sleep(self._patience)
        late = list(self._holdings)
        if late:
            log.warning("drained too slowly handed_back=%d", len(late))
        self._interrupt(late)

    def _interrupt(self, chosen: list[Hold]) -> None:
        for hold in chosen:
            hold.stop(_stopping())
        self._engine.sweep()
