"""Delivering webhooks: from the hand-over in the ledger until they are answered, or lie among the dead letters."""

from __future__ import annotations

import logging
import random
import threading
import traceback
from collections import deque
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from itertools import islice
from typing import Any

from redis import Redis

from overpaint_common import wire
from overpaint_common.errors import BrokerUnavailable, StorageError
from overpaint_common.ledger import Ledger
from overpaint_common.live import broker_errors
from overpaint_common.webhooks import DeadWebhook, PendingWebhook
from overpaint_worker.keeper.sender import Outcome, Sender

log = logging.getLogger(__name__)

PAUSES: tuple[float, ...] = (5, 30, 120, 600, 1800, 3600, *[7200.0] * 11)
"""Seconds between the tries, about a day in all; after the last of them a webhook is given up."""

JITTER = 0.2
"""Pauses are longer or shorter by up to this share, so that a receiver that is back is not met by all at once."""

LONGEST_RETRY_AFTER = 3600.0
"""Seconds: what a receiver asks for beyond is cut."""

CLAIM = 60.0
"""Seconds after which a webhook that was taken up, and of which nothing was heard, is taken up again."""

READERS, SENDERS = 8, 32
"""Threads that read from the ledger, and threads that wait for receivers."""

READING = 128
"""Webhooks taken up and not read yet, at most."""

PER_RECEIVER = 8
"""Requests to one receiver at once; one that did not answer the last gets a single one."""

WAITING, WAITING_FOR_SILENT = 256, 8
"""Webhooks that wait in memory for one receiver; what comes beyond is put off."""

GIVE_UP_WAITING = timedelta(days=1)
"""After so long a webhook whose turn never comes, because its receiver does not answer others, is given up."""

RECOVERED_PER_SECOND = 200
"""Webhooks that Redis had forgotten are spread over time, so that new ones pass between them."""

BATCH = 500
"""Of them, told to Redis in one round trip."""

Policy = Callable[[int, float | None], float | None]
"""From the tries so far, at least 1, and the seconds of a Retry-After, to seconds until the next; None gives up."""


def pause(tries: int, retry_after: float | None, chance: float) -> float | None:
    """The default policy; `chance` in 0..1 decides the jitter."""
    if tries > len(PAUSES):
        return None
    own = PAUSES[tries - 1] * (1 - JITTER + 2 * JITTER * chance)
    return max(own, min(retry_after or 0.0, LONGEST_RETRY_AFTER))


def _by_chance(tries: int, retry_after: float | None) -> float | None:
    return pause(tries, retry_after, random.random())


@dataclass(slots=True, eq=False)
class _Receiver:
    waiting: deque[PendingWebhook] = field(default_factory=deque)
    running: int = 0
    silent: bool = False
    """The last request was not answered."""
    put_off: int = 0

    @property
    def full(self) -> bool:
        return len(self.waiting) >= (WAITING_FOR_SILENT if self.silent else WAITING)


class Deliveries:
    """Delivers what is due in threads of its own. Two at once do no harm but send some webhooks twice."""

    def __init__(self, redis: Redis, ledger: Ledger, sender: Sender, *, policy: Policy = _by_chance) -> None:
        self._redis: Any = redis
        self._ledger = ledger
        self._sender = sender
        self._policy = policy
        self._lock = threading.Lock()
        self._in_hand: set[str] = set()
        self._receivers: dict[str, _Receiver] = {}
        self._reading = self._running = 0
        self._closed = False
        self._readers = ThreadPoolExecutor(READERS, thread_name_prefix="webhook-read")
        self._senders = ThreadPoolExecutor(SENDERS, thread_name_prefix="webhook-send")

    def tick(self) -> None:
        """Take up what is due, without waiting for storage or a receiver; to be called about every second.

        Raises BrokerUnavailable.
        """
        with self._lock:
            room = 0 if self._closed else READING - self._reading
        for job_id in self._take_up(room) if room > 0 else ():
            with self._lock:
                if self._closed or job_id in self._in_hand:
                    continue
                self._in_hand.add(job_id)
                self._reading += 1
                self._readers.submit(self._read, job_id).add_done_callback(_tell)

    def recover(self) -> int:
        """Have Redis know every webhook of the ledger, and return how many it did not; for now and then, and after a
        flush. Lists the ledger, a thousand a request, before it returns.

        Raises StorageUnavailable, BrokerUnavailable.
        """
        found, listing = 0, self._ledger.webhooks()
        while batch := list(islice(listing, BATCH)):
            with broker_errors():
                now = self._now_ms()
                times = {job: now + (found + i) * 1000 // RECOVERED_PER_SECOND for i, job in enumerate(batch)}
                found += self._redis.zadd(wire.WEBHOOKS_KEY, times, nx=True)
        if found:
            log.warning("webhooks recovered from the ledger count=%d", found)
        return found

    def close(self) -> None:
        """Begin nothing more, and wait for the requests under way: about as long as one may take."""
        with self._lock:
            self._closed = True
        self._readers.shutdown(cancel_futures=True)
        self._senders.shutdown(cancel_futures=True)

    def _take_up(self, room: int) -> list[str]:
        """Claim some of what is due: the newest too, so that a pile for one receiver keeps nobody else waiting."""
        with broker_errors():
            now = self._now_ms()
            pipe = self._redis.pipeline(transaction=False)
            pipe.zrevrangebyscore(wire.WEBHOOKS_KEY, now, "-inf", start=0, num=(room + 1) // 2)
            pipe.zrangebyscore(wire.WEBHOOKS_KEY, "-inf", now, start=0, num=room // 2)
            newest, oldest = pipe.execute()
            due = list(dict.fromkeys([*newest, *oldest]))
            if due:
                self._redis.zadd(wire.WEBHOOKS_KEY, dict.fromkeys(due, now + int(CLAIM * 1000)), xx=True)
        return due

    def _read(self, job_id: str) -> None:
        """Put a webhook among those that wait for its receiver."""
        waits = False
        try:
            pending = self._ledger.webhook(job_id)
            if pending is None:
                self._forget(job_id)
            elif not (waits := self._enqueue(pending)):
                self._put_off(pending)
        except (StorageError, BrokerUnavailable) as error:
            log.warning("webhook not read, tried again in %.0f s job=%s: %s", CLAIM, job_id, error)
        finally:
            with self._lock:
                self._reading -= 1
                if not waits:
                    self._in_hand.discard(job_id)

    def _enqueue(self, pending: PendingWebhook) -> bool:
        with self._lock:
            receiver = self._receivers.setdefault(pending.receiver, _Receiver())
            if receiver.full:
                receiver.put_off += 1
                return False
            receiver.waiting.append(pending)
            self._start()
            return True

    def _start(self) -> None:
        """Begin the requests that may begin. The lock is held."""
        for receiver in self._receivers.values():
            while receiver.waiting and not self._closed and self._may_start(receiver):
                receiver.running += 1
                self._running += 1
                future = self._senders.submit(self._deliver, receiver, receiver.waiting.popleft())
                future.add_done_callback(_tell)

    def _may_start(self, receiver: _Receiver) -> bool:
        """Half of the threads are for receivers that have no request under way, so that a few take none from others."""
        if receiver.running == 0:
            return True
        return not receiver.silent and receiver.running < PER_RECEIVER and self._running < SENDERS // 2

    def _put_off(self, pending: PendingWebhook) -> None:
        """Leave a webhook to Redis for about as long as the queue of its receiver will take."""
        with self._lock:
            receiver = self._receivers.get(pending.receiver, _Receiver())
            silent, position = receiver.silent, receiver.put_off
        if silent and datetime.now(UTC) - pending.handed_over_at > GIVE_UP_WAITING:
            self._bury(pending.evolve(error="its receiver has not answered the webhooks before it for a day"))
            return
        seconds = min(max(position * (10.0 if silent else 0.05), 5.0), 600.0)
        self._schedule(pending.event.job_id, seconds * random.uniform(0.5, 1.5))

    def _deliver(self, receiver: _Receiver, pending: PendingWebhook) -> None:
        try:
            outcome = self._sender.send(pending)
            receiver.silent = not outcome.answered
            self._settle(pending, outcome)
        except (StorageError, BrokerUnavailable) as error:
            log.warning("webhook sent but not settled, sent again job=%s: %s", pending.event.job_id, error)
        finally:
            with self._lock:
                self._in_hand.discard(pending.event.job_id)
                receiver.running -= 1
                self._running -= 1
                if not receiver.running and not receiver.waiting:
                    self._receivers.pop(pending.receiver, None)
                self._start()

    def _settle(self, pending: PendingWebhook, outcome: Outcome) -> None:
        job_id, tries = pending.event.job_id, pending.tries + 1
        if outcome.what == "delivered":
            self._ledger.drop_webhook(job_id)
            self._forget(job_id)
            log.info("webhook delivered job=%s receiver=%s tries=%d", job_id, pending.receiver, tries)
            return
        failed = pending.evolve(tries=tries, error=outcome.error)
        seconds = None if outcome.what == "gone" else self._policy(tries, outcome.retry_after)
        if seconds is None:
            self._bury(failed)
            return
        self._ledger.keep_webhook(failed)
        self._schedule(job_id, seconds)
        log.warning(
            "webhook not delivered job=%s receiver=%s tries=%d again_in=%.0f: %s",
            *(job_id, pending.receiver, tries, seconds, outcome.error),
        )

    def _bury(self, pending: PendingWebhook) -> None:
        job_id = pending.event.job_id
        letter = DeadWebhook.of(pending, datetime.now(UTC))
        self._ledger.bury("webhooks", job_id, letter.model_dump_json(indent=2, exclude_none=True).encode())
        self._ledger.drop_webhook(job_id)
        self._forget(job_id)
        log.error(
            "webhook given up job=%s receiver=%s tries=%d: %s",
            *(job_id, pending.receiver, pending.tries, pending.error),
        )

    def _schedule(self, job_id: str, seconds: float) -> None:
        """Have a webhook tried in so many seconds."""
        with broker_errors():
            self._redis.zadd(wire.WEBHOOKS_KEY, {job_id: self._now_ms() + int(seconds * 1000)})

    def _forget(self, job_id: str) -> None:
        with broker_errors():
            self._redis.zrem(wire.WEBHOOKS_KEY, job_id)

    def _now_ms(self) -> int:
        seconds, micros = self._redis.time()
        return int(seconds * 1000 + micros // 1000)


def _tell(future: Future[None]) -> None:
    """Log what nobody foresaw, by kind and place only: its text may quote the URL."""
    error = None if future.cancelled() else future.exception()
    if error is not None:
        place = "".join(traceback.format_tb(error.__traceback__))
        log.error("unforeseen %s at a webhook, tried again in %.0f s\n%s", type(error).__name__, CLAIM, place)
