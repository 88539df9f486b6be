"""The keeper's heartbeat: who leads, and whether Redis was there all the time, however long a round takes."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable

from overpaint_common.errors import BrokerUnavailable
from overpaint_worker.keeper.leader import Leader

log = logging.getLogger(__name__)

BEATS = 10
"""Beats in the time that a lease lasts."""

SLOWEST = 1.0
"""Seconds between two beats at most."""

PATIENCE = 60.0
"""Seconds that storage may fail a leader, or hold it up, before another one is given the chance to lead."""

WAY = 3.0
"""Seconds of that chance: several beats of the others."""


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
        self._server = ""
        self._worked = 0.0
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

    @property
    def seen_ms(self) -> int | None:
        """Redis's time at the last beat, while this one leads: what lapsed by then lapsed in no pause since."""
        return self._last if self.leads else None

    def worked(self) -> None:
        """To be called when storage has done what the leader asked of it, or the leader had nothing to ask."""
        self._worked = time.monotonic()

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
                if self.leads and time.monotonic() - self._worked > PATIENCE:
                    self._make_way()
                leads, now, server = self._leader.lead(), self._now_ms(), self._leader.server()
            except BrokerUnavailable as error:
                if self._last is not None:
                    log.warning("keeper waits for Redis: %s", error)
                self._miss()
            except Exception:
                log.exception("keeper waits for Redis")
                self._miss()
            else:
                self._beat(leads, now, server)

    def _miss(self) -> None:
        with self._lock:
            self._last = None
            self.leads = False

    def _make_way(self) -> None:
        log.warning("keeper lets another one lead: storage has failed it for %.0f s", PATIENCE)
        self._leader.resign()
        self._miss()
        self._stopping.wait(WAY)

    def _beat(self, leads: bool, now: int, server: str = "") -> None:
        if leads != self.leads:
            log.info("keeper %s", "leads" if leads else "stands by")
        with self._lock:
            # Neither may Redis' clock go back, nor another process be in its place, with less than it knew.
            gap = self._last is None or not 0 <= now - self._last <= self._gap_ms or server != self._server
            if leads and not self.leads:
                self._worked = time.monotonic()
            if gap or not leads or not self.leads:
                self._since, self._interrupted = now, True
            self._last, self.leads, self._server = now, leads, server
