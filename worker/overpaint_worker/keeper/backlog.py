"""What Redis knows of jobs that wait: lost tickets, retries that are due, old bulk, deadlines."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from redis import Redis

from overpaint_common import wire
from overpaint_common.job import PRIORITIES
from overpaint_common.live import broker_errors
from overpaint_common.tickets import Tickets

BATCH = 1000
"""Jobs of one queue looked after at a time."""

MARGIN = 5.0
"""Seconds between fetching a ticket and claiming its job that no worker takes; what is later counts as lost."""

AGED = 600.0
"""Seconds after which a waiting job moves to the next more urgent queue."""


@dataclass(frozen=True, slots=True)
class _Mark:
    """How far a queue had been drained at some time."""

    seen_ms: int
    drained_ms: int
    """Tickets older than this had been fetched by then."""


class Backlog:
    """Looks after the tickets of all queues. Every method raises BrokerUnavailable when Redis is down."""

    def __init__(self, redis: Redis, tickets: Tickets, *, margin: float = MARGIN, aged: float = AGED) -> None:
        """`margin` and `aged` in seconds, see MARGIN and AGED."""
        self._redis: Any = redis
        self._tickets = tickets
        self._margin_ms = int(margin * 1000)
        self._aged_ms = int(aged * 1000)
        self._marks: dict[str, list[_Mark]] = {}

    def queues(self) -> list[str]:
        """All queues that ever got a ticket."""
        with broker_errors():
            return sorted(self._redis.smembers(wire.QUEUES_KEY))

    def return_lost(self, now_ms: int) -> int:
        """Send anew the tickets that have vanished; how many.

        A queue is drained in order, so a job whose ticket is older than one that was claimed should be claimed too,
        give or take the moment between fetching and claiming: judged is by how far the queue was MARGIN ago. A queue
        that is empty has been drained up to now.
        """
        lost: list[tuple[str, str, int]] = []
        for queue in self.queues():
            drained = self._drained_before(queue, now_ms)
            if drained is None:
                continue
            with broker_errors():
                found = self._redis.zrange(
                    wire.queued_key(queue), "-inf", f"({drained}", byscore=True, offset=0, num=BATCH, withscores=True
                )
            lost += [(queue, job_id, int(time)) for job_id, time in found]
        return self._tickets.send_lost(lost)

    def return_due(self, now_ms: int) -> int:
        """Queue the jobs whose pause is over; how many."""
        with broker_errors():
            members = self._redis.zrange(wire.DELAYED_KEY, "-inf", now_ms, byscore=True, offset=0, num=BATCH)
        return self._tickets.send_moved([(*_parted(member), wire.DELAYED_KEY, member) for member in members])

    def age(self, now_ms: int) -> int:
        """Move jobs that have waited long into the next more urgent queue; how many.

        Their old tickets stay where they are and are dropped when their turn comes.
        """
        moved: list[tuple[str, str, str, str]] = []
        for queue in self.queues():
            priority = wire.priority_of(queue)
            if priority is None or priority == PRIORITIES[0]:
                continue
            more_urgent = wire.queue_name(wire.model_of(queue), PRIORITIES[PRIORITIES.index(priority) - 1])
            key = wire.queued_key(queue)
            with broker_errors():
                jobs = self._redis.zrange(key, "-inf", now_ms - self._aged_ms, byscore=True, offset=0, num=BATCH)
            moved += [(more_urgent, job_id, key, job_id) for job_id in jobs]
        return self._tickets.send_moved(moved)

    def overdue(self, now_ms: int) -> list[str]:
        """Open jobs whose deadline has passed."""
        with broker_errors():
            jobs: list[str] = self._redis.zrange(wire.DEADLINES_KEY, "-inf", now_ms, byscore=True, offset=0, num=BATCH)
        return jobs

    def ended(self) -> list[str]:
        """Jobs whose end was decided outside a worker and that no worker has in hand: nobody else finishes them."""
        with broker_errors():
            jobs: list[str] = self._redis.zrange(wire.ENDED_KEY, 0, BATCH - 1)
            held = self._redis.zmscore(wire.LEASES_KEY, jobs) if jobs else []
        return [job_id for job_id, lease in zip(jobs, held, strict=True) if lease is None]

    def known(self) -> set[str]:
        """Every job that has a ticket, a pause, a lease or a place among the suspects."""
        with broker_errors():
            known = {_parted(member)[1] for member in self._all(wire.DELAYED_KEY)} | set(self._all(wire.LEASES_KEY))
            for queue in self.queues():
                known |= set(self._all(wire.queued_key(queue)))
                known |= set(self._all(wire.solo_key(wire.model_of(queue))))
        return known

    def remember_deadline(self, job_id: str, deadline_ms: int) -> None:
        with broker_errors():
            self._redis.zadd(wire.DEADLINES_KEY, {job_id: deadline_ms})

    def forget_marks(self) -> None:
        """Judge nobody by what was seen before an outage."""
        self._marks.clear()

    def _all(self, key: str) -> list[str]:
        return [member for member, _ in self._redis.zscan_iter(key, count=1000)]

    def _drained_before(self, queue: str, now_ms: int) -> int | None:
        with broker_errors():
            pipe = self._redis.pipeline()
            pipe.llen(queue)
            pipe.get(wire.newest_key(queue))
            waiting, newest = pipe.execute()
        marks, claimed_ms = self._marks.setdefault(queue, []), int(newest or 0)
        if claimed_ms > now_ms:  # Redis' clock was set back.
            claimed_ms = 0
        marks.append(_Mark(now_ms, now_ms if waiting == 0 else claimed_ms))
        old = [mark for mark in marks if mark.seen_ms <= now_ms - self._margin_ms]
        if not old:
            return None
        del marks[: len(old) - 1]
        return old[-1].drained_ms


def _parted(member: str) -> tuple[str, str]:
    queue, _, job_id = member.rpartition(" ")
    return queue, job_id
