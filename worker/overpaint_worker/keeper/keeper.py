"""The keeper: returns what workers and Redis lost, and ends what nobody else ends. Any number may run; one leads."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

from overpaint_common.errors import BrokerUnavailable, OverpaintError
from overpaint_common.leases import Lapsed, Leases
from overpaint_worker.keeper.backlog import Backlog
from overpaint_worker.keeper.endings import Endings
from overpaint_worker.keeper.leader import Leader
from overpaint_worker.keeper.rebuild import Rebuild

log = logging.getLogger(__name__)

EVERY = 0.5
"""Seconds between two rounds of the leader, and between two tries to lead."""

LIST_EVERY = 600.0
"""Seconds between two listings of all open markers: the net below all other nets."""

AGE_EVERY = 30.0
"""Seconds between two looks for jobs that have waited long."""

BATCH = 500
"""Jobs ended or returned in one round."""

THREADS = 16
"""Jobs whose storage is looked at side by side."""


@dataclass(frozen=True, slots=True)
class Parts:
    """What a keeper works with."""

    check: Callable[[], None]
    """Raises SettingsError or StorageError where the ledger cannot be kept."""
    leader: Leader
    leases: Leases
    backlog: Backlog
    endings: Endings
    rebuild: Rebuild
    chores: tuple[Callable[[], None], ...] = ()
    """What else the leader does each round; none may block."""


class Keeper:
    """Rounds of looking after all jobs, from `start` to `stop`. Survives every error of Redis and storage."""

    def __init__(self, parts: Parts, *, lease: float) -> None:
        """`lease`: seconds that a lease lasts."""
        self._parts = parts
        self._lease = lease
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self.run, name="keeper", daemon=True)
        self._pool = ThreadPoolExecutor(THREADS, thread_name_prefix="keeper")
        self._leads = False
        self._watch = _Watch(lease)
        self._listed = self._aged = float("-inf")

    def check(self) -> None:
        """Raises SettingsError or StorageError where the ledger cannot be kept."""
        self._parts.check()

    def start(self) -> None:
        """Run in a thread of its own."""
        self._thread.start()

    def stop(self) -> None:
        """End after the round under way; another keeper may lead at once."""
        self._stopping.set()
        if self._thread.ident is not None:
            self._thread.join()

    def run(self) -> None:
        """Run until stopped."""
        while not self._stopping.wait(EVERY):
            try:
                self._round()
            except BrokerUnavailable as error:
                log.warning("keeper waits for Redis: %s", error)
                self._watch.interrupted()
                self._parts.backlog.forget_marks()
                self._stopping.wait(1.0)
            except OverpaintError as error:
                log.warning("keeper goes on after code=%s: %s", error.code, error)
            except Exception:
                log.exception("keeper goes on after an unforeseen error")
        self._pool.shutdown(cancel_futures=True)
        try:
            self._parts.leader.resign()
        except BrokerUnavailable as error:
            log.warning("lead not given up, it ends by itself: %s", error)

    def _round(self) -> None:
        leads = self._parts.leader.lead()
        if leads != self._leads:
            log.info("keeper %s", "leads" if leads else "stands by")
            self._leads = leads
            self._watch.interrupted()
            self._parts.backlog.forget_marks()
        if not leads:
            return
        now = self._parts.leases.now_ms()
        self._watch.saw(now)
        if self._watch.living_had_time(now):
            self._return_lapsed()
            self._rebuild(now)
        self._parts.backlog.return_due(now)
        lost = self._parts.backlog.return_lost(now)
        if lost:
            log.warning("tickets lost and sent again count=%d", lost)
        self._each(self._parts.backlog.overdue(now), self._parts.endings.expire)
        self._each(self._parts.backlog.ended(), self._finish)
        if time.monotonic() - self._aged > AGE_EVERY:
            self._aged = time.monotonic()
            self._parts.backlog.age(now)
        for chore in self._parts.chores:
            chore()

    def _return_lapsed(self) -> None:
        self._each(self._parts.leases.lapsed(BATCH), self._return)

    def _return(self, lapsed: Lapsed) -> None:
        parts, job_id = self._parts, lapsed.job_id
        if parts.endings.finish(job_id):
            log.info("half-finished job completed job=%s", job_id)
            return
        queue = lapsed.queue or parts.rebuild.queue_of(job_id)
        if queue is None:
            log.warning("lapsed lease of a job that is not in the ledger job=%s", job_id)
            parts.leases.forget(job_id)
            return
        returned = parts.leases.give_lapsed_back(lapsed, queue)
        if returned is None:
            return
        log.warning("job returned job=%s from=%s to=%s", job_id, lapsed.worker, returned.what)
        if returned.what == "give_up":
            parts.endings.give_up(job_id, returned.attempts, lapsed.worker)

    def _finish(self, job_id: str) -> None:
        if not self._parts.endings.finish(job_id):
            self._parts.leases.forget(job_id)

    def _rebuild(self, now: int) -> None:
        """Look for open jobs that Redis does not know of: after it lost data, after an outage, and every while."""
        flushed = self._parts.rebuild.flushed(now)
        due = flushed or self._watch.outage or time.monotonic() - self._listed > LIST_EVERY
        if not due:
            return
        self._parts.rebuild.run(self._parts.backlog, self._parts.endings)
        if flushed:
            self._parts.rebuild.settle()
        self._watch.outage = False
        self._listed = time.monotonic()

    def _each(self, items: Iterable[object], action: Callable[..., object]) -> None:
        """Do `action` for each item; what fails is tried again in the next round, and holds nothing else up."""
        futures = [self._pool.submit(action, item) for item in items]
        for future in futures:
            try:
                future.result()
            except BrokerUnavailable:
                raise
            except OverpaintError as error:
                log.warning("not done, tried again code=%s: %s", error.code, error)


class _Watch:
    """Tells whether those who live have had time to renew their leases since Redis was last out of reach."""

    def __init__(self, lease: float) -> None:
        self._grace_ms = int(lease * 1000 / 2)
        self._gap_ms = int(lease * 1000 / 4)
        self._last = 0
        self._since = 0
        self.outage = False
        """Whether Redis was out of reach, or silent, since this was last set to False."""

    def saw(self, now_ms: int) -> None:
        """Redis answered at this time of its own."""
        if now_ms - self._last > self._gap_ms:
            self._since, self.outage = now_ms, True
        self._last = now_ms

    def interrupted(self) -> None:
        """Redis did not answer, or somebody else led."""
        self._last = 0

    def living_had_time(self, now_ms: int) -> bool:
        return now_ms - self._since >= self._grace_ms
