"""The keeper's heartbeat: who leads, and whether Redis was there all the time, however long a round takes."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable

from overpaint_common.errors import BrokerUnavailable
from overpaint_worker.keeper.leader import Leader

log = logging.getLogger(__name__)

BEATS = 10
"""Beats in the time that a lease lasts."""

SLOWEST = 1.0
"""Seconds between two beats at most."""


class Pulse:
    """Beats in a thread of its own from `start` to `stop`."""

    def __init__(self, leader: Leader, now_ms: Callable[[], int], *, lease: float) -> None:
        """`now_ms` asks Redis for its time; `lease`: seconds that a lease lasts."""
        self.leads = False
        self._leader = leader
        self._now_ms = now_ms
        self._every = min(SLOWEST, lease / BEATS)
        # Who lives renews three times in a lease.
        self._gap_ms = max(lease * 1000 / 4, 2.5 * self._every * 1000)
        self._grace_ms = lease * 1000 / 2
        self._lock = threading.Lock()
        self._last: int | None = None
        self._since = 0
        self._interrupted = True
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._loop, name="keeper-pulse", daemon=True)

    def start(self) -> None:
        self._thread.start()

    def stop(self) -> None:
        """End, and let another keeper lead at once."""
        self._stopping.set()
        self._thread.join()
        try:
            self._leader.resign()
        except BrokerUnavailable as error:
            log.warning("lead not given up, it ends by itself: %s", error)

    def living_had_time(self, now_ms: int) -> bool:
        """Whether those who live have had time to renew their leases since Redis was last away, or this one led."""
        with self._lock:
            return self._last is not None and now_ms - self._since >= self._grace_ms

    def was_interrupted(self) -> bool:
        """Whether Redis was away, or somebody else led, since this was last asked."""
        with self._lock:
            interrupted, self._interrupted = self._interrupted, False
        return interrupted

    def _loop(self) -> None:
        while not self._stopping.wait(self._every):
            try:
                leads, now = self._leader.lead(), self._now_ms()
            except BrokerUnavailable as error:
                if self._last is not None:
                    log.warning("keeper waits for Redis: %s", error)
                self._miss()
            else:
                self._beat(leads, now)

    def _miss(self) -> None:
        with self._lock:
            self._last = None
            self.leads = False

    def _beat(self, leads: bool, now: int) -> None:
        if leads != self.leads:
            log.info("keeper %s", "leads" if leads else "stands by")
        with self._lock:
            gap = self._last is None or now - self._last > self._gap_ms
            if gap or not leads or not self.leads:
                self._since, self._interrupted = now, True
            self._last, self.leads = now, leads
