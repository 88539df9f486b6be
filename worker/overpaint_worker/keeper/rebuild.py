"""Making Redis know every open job again, from the markers in the ledger."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import Any

from redis import Redis

from overpaint_common import wire
from overpaint_common.errors import ObjectNotFound, OverpaintError
from overpaint_common.ledger import Ledger
from overpaint_common.live import broker_errors
from overpaint_common.seeds import new_attempt_id
from overpaint_common.tickets import Tickets, milliseconds
from overpaint_worker.keeper.backlog import Backlog
from overpaint_worker.keeper.endings import Endings

log = logging.getLogger(__name__)

BATCH = 1000
"""Markers compared with Redis at a time."""

READERS = 8
"""Requests read side by side afterwards."""


class Rebuild:
    """Compares the ledger's open markers with what Redis knows. Raises StorageError and BrokerUnavailable."""

    def __init__(self, redis: Redis, ledger: Ledger, tickets: Tickets, *, lease: float) -> None:
        """`lease`: seconds to wait after a flush, in which living workers take their leases again."""
        self._redis: Any = redis
        self._ledger = ledger
        self._tickets = tickets
        self._lease_ms = int(lease * 1000)
        self._missing_since: int | None = None
        self._reading = threading.Lock()
        self._closed = threading.Event()

    def flushed(self, now_ms: int) -> bool:
        """Whether Redis has lost its data, and those who live have had their time to come back to it."""
        with broker_errors():
            if self._redis.exists(wire.EPOCH_KEY):
                self._missing_since = None
                return False
        if self._missing_since is None or now_ms < self._missing_since:
            log.warning("Redis is empty: open jobs are queued again in %.0f s", self._lease_ms / 1000)
            self._missing_since = now_ms
        return now_ms - self._missing_since >= self._lease_ms

    def settle(self) -> None:
        """Say that Redis knows everything now."""
        with broker_errors():
            self._redis.set(wire.EPOCH_KEY, new_attempt_id(), nx=True)
        self._missing_since = None

    def run(self, backlog: Backlog, endings: Endings, *, flushed: bool = False) -> int:
        """Queue every open job that Redis knows nothing of; how many there were.

        Afterwards, in the background, each of them is finished if it has a record, and its deadline is remembered.
        After a flush so are the deadlines of the others, whose leases were taken again.
        """
        began, known, batch, found = time.monotonic(), backlog.known(), list[tuple[str, str]](), list[str]()
        others: list[str] = []
        for marker in self._ledger.open_jobs():
            if marker.job_id not in known:
                batch.append((wire.queue_name(marker.model, marker.priority), marker.job_id))
                found.append(marker.job_id)
            elif flushed:
                others.append(marker.job_id)
            if len(batch) == BATCH:
                self._tickets.send_missing(batch)
                batch = []
        self._tickets.send_missing(batch)
        if found:
            log.warning("open jobs queued again count=%d seconds=%.1f", len(found), time.monotonic() - began)
        if found or others:
            arguments = (found, others, backlog, endings)
            threading.Thread(target=self._read, args=arguments, name="rebuild", daemon=True).start()
        return len(found)

    def close(self) -> None:
        """Look no further into the jobs that were queued again."""
        self._closed.set()
        with self._reading:
            pass

    def queue_of(self, job_id: str) -> str | None:
        """The queue of a job whose lease has lost its own; None where the ledger has no such job."""
        try:
            job = self._ledger.request(job_id).job
        except ObjectNotFound:
            return None
        return wire.queue_name(job.model, job.priority)

    def _read(self, found: Sequence[str], others: Sequence[str], backlog: Backlog, endings: Endings) -> None:
        def finish(job_id: str) -> None:
            if not endings.finish(job_id):
                remember(job_id)

        def remember(job_id: str) -> None:
            deadline = self._ledger.request(job_id).job.deadline
            if deadline is not None and self._ledger.record(job_id) is None:
                backlog.remember_deadline(job_id, milliseconds(deadline))

        def look(action: Callable[[str], None], job_id: str) -> None:
            if self._closed.is_set():
                return
            try:
                action(job_id)
            except OverpaintError as error:
                log.warning("open job not looked into job=%s code=%s: %s", job_id, error.code, error)
            except Exception:
                log.exception("open job not looked into job=%s", job_id)

        with self._reading, ThreadPoolExecutor(READERS, thread_name_prefix="rebuild") as pool:
            for action, jobs in ((finish, found), (remember, others)):
                for _ in pool.map(partial(look, action), jobs):
                    pass
