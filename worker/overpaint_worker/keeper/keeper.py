"""The keeper: returns what workers and Redis lost, and ends what nobody else ends. Any number may run; one leads."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial

from overpaint_common.errors import OverpaintError, StorageDenied, StorageUnavailable
from overpaint_common.leases import Lapsed, Leases
from overpaint_worker.keeper.backlog import Backlog
from overpaint_worker.keeper.endings import Endings
from overpaint_worker.keeper.leader import Leader
from overpaint_worker.keeper.pulse import Pulse
from overpaint_worker.keeper.rebuild import Rebuild

log = logging.getLogger(__name__)

EVERY = 0.5
"""Seconds between two rounds."""

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
    """What else the leader does each round, in little time."""
    recover: tuple[Callable[[], object], ...] = ()
    """What else there is to find in the ledger after Redis lost its data."""
    close: tuple[Callable[[], None], ...] = ()
    """What to end with the keeper."""


class Keeper:
    """Rounds of looking after all jobs, from `start` to `stop`. Survives every error of Redis and storage."""

    def __init__(self, parts: Parts, *, lease: float) -> None:
        """`lease`: seconds that a lease lasts."""
        self._parts = parts
        self._pulse = Pulse(parts.leader, parts.leases.now_ms, lease=lease)
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._run, name="keeper", daemon=True)
        self._pool = ThreadPoolExecutor(THREADS, thread_name_prefix="keeper")
        self._listed = self._aged = float("-inf")
        self._outage = False
        self._failed = False

    def check(self) -> None:
        """Raises SettingsError or StorageError where the ledger cannot be kept."""
        self._parts.check()

    def start(self) -> None:
        self._pulse.start()
        self._thread.start()

    def stop(self) -> None:
        """Let another keeper lead at once, and end after what is under way."""
        self._stopping.set()
        self._pulse.stop()
        self._thread.join()
        self._pool.shutdown(cancel_futures=True)
        for close in self._parts.close:
            close()

    def _run(self) -> None:
        while not self._stopping.wait(EVERY):
            if not self._pulse.leads:
                continue
            if self._pulse.was_interrupted():
                self._outage = True
                self._parts.backlog.forget_marks()
            self._failed = False
            for duty in (
                self._return_lapsed,
                self._return_waiting,
                self._end_overdue,
                self._finish_ended,
                self._age,
                self._rebuild,
                *self._parts.chores,
            ):
                if self._stopping.is_set():
                    return
                self._do(duty)
            if not self._failed:
                self._pulse.worked()

    def _do(self, duty: Callable[[], object]) -> bool:
        """One duty, and whether it was done; what fails is tried again in the next round, and holds no other one up."""
        try:
            duty()
            return True
        except OverpaintError as error:
            self._failed = self._failed or isinstance(error, StorageUnavailable | StorageDenied)
            log.warning("keeper goes on after code=%s: %s", error.code, error)
        except Exception:
            log.exception("keeper goes on after an unforeseen error")
        return False

    def _return_lapsed(self) -> None:
        seen = self._pulse.seen_ms
        if seen is not None and self._pulse.living_had_time(seen):
            self._each(self._parts.leases.lapsed(BATCH, seen), self._return)

    def _return_waiting(self) -> None:
        now = self._now()
        self._parts.backlog.return_due(now)
        lost = self._parts.backlog.return_lost(now)
        if lost:
            log.warning("tickets lost and sent again count=%d", lost)

    def _end_overdue(self) -> None:
        self._each(self._parts.backlog.overdue(self._now()), self._parts.endings.expire)

    def _finish_ended(self) -> None:
        self._each(self._parts.backlog.ended(), self._finish)

    def _age(self) -> None:
        if time.monotonic() - self._aged > AGE_EVERY:
            self._parts.backlog.age(self._now())
            self._aged = time.monotonic()

    def _now(self) -> int:
        return self._parts.leases.now_ms()

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

    def _rebuild(self) -> None:
        """Look for open jobs that Redis does not know of: after it lost data, after an outage, and every while."""
        now = self._now()
        if not self._pulse.living_had_time(now):
            return
        flushed = self._parts.rebuild.flushed(now)
        due = flushed or self._outage or time.monotonic() - self._listed > LIST_EVERY
        if not due:
            return
        self._parts.rebuild.run(self._parts.backlog, self._parts.endings, flushed=flushed)
        for recover in self._parts.recover:
            recover()
        if flushed:
            self._parts.rebuild.settle()
        self._outage = False
        self._listed = time.monotonic()

    def _each(self, items: Iterable[object], action: Callable[..., object]) -> None:
        """Do `action` for each item side by side; one that fails holds no other up."""

        def do(item: object) -> None:
            if not self._stopping.is_set() and self._do(partial(action, item)):
                self._pulse.worked()

        for future in [self._pool.submit(do, item) for item in items]:
            future.result()
