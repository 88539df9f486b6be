"""Tickets: the Celery messages that tell a worker to look at a job."""

from __future__ import annotations

import json
import uuid
from collections.abc import Iterable
from datetime import datetime
from typing import Literal

from kombu.entity import Exchange, Queue
from redis import Redis

from overpaint_common import wire
from overpaint_common.job import Job
from overpaint_common.live import broker_errors
from overpaint_common.scripts import script

TIME = "@queued@"
"""Stands in a message where Redis puts the ticket time."""

BATCH = 500
"""Tickets sent in one round trip."""

Condition = Literal["always", "absent", "move", "lost"]


def declaration(name: str) -> Queue:
    """A queue on the default exchange, which routes straight to the queue of that name: one round trip a ticket."""
    return Queue(name, Exchange(""), routing_key=name)


def message(task: str, arguments: str, queue: str) -> str:
    """A Celery message (protocol 2) as kombu's Redis transport keeps it in a list; `arguments` is a JSON array."""
    tag = str(uuid.uuid4())
    return json.dumps(
        {
            "body": f"[{arguments}, {{}}, {{}}]",
            "content-type": "application/json",
            "content-encoding": "utf-8",
            "headers": {"task": task, "id": tag, "lang": "py", "argsrepr": "-", "kwargsrepr": "-"},
            "properties": {
                "correlation_id": tag,
                "delivery_tag": tag,
                "delivery_info": {"exchange": "", "routing_key": queue},
                "body_encoding": "utf-8",
            },
        }
    )


def ticket(job_id: str, queue: str) -> str:
    """The message of a ticket, its time still to be put in."""
    return message(wire.RUN_TASK, f'["{job_id}", {TIME}]', queue)


def milliseconds(moment: datetime) -> int:
    """Since 1970, as Redis counts."""
    return int(moment.timestamp() * 1000)


class Tickets:
    """Sends tickets. A ticket is a hint: it may vanish or come twice, and ledger, lease and keeper make up for both.

    Every method raises BrokerUnavailable if Redis did not take the tickets, or did not say so.
    """

    def __init__(self, redis: Redis) -> None:
        self._redis = redis
        self._script = script(redis, "ticket")

    def send(self, job: Job, *, if_absent: bool = False) -> bool:
        """Queue a job; with `if_absent` only where no ticket waits and nobody holds it. Whether it was queued now."""
        deadline = "" if job.deadline is None else str(milliseconds(job.deadline))
        queue = wire.queue_name(job.model, job.priority)
        with broker_errors():
            return bool(self._push(queue, job.id, "absent" if if_absent else "always", deadline=deadline))

    def send_again(self, queue: str, job_id: str) -> None:
        """Queue a job that is given back by one who does not hold it."""
        with broker_errors():
            self._push(queue, job_id, "always")

    def send_missing(self, jobs: Iterable[tuple[str, str]]) -> int:
        """Queue those of (queue, job id) that have neither ticket nor holder; how many there were."""
        return self._send_all([(queue, job_id, "absent", "", "") for queue, job_id in jobs])

    def send_moved(self, jobs: Iterable[tuple[str, str, str, str]]) -> int:
        """Queue jobs (queue, job id, sorted set, member) that could be taken out of their sorted set."""
        return self._send_all([(queue, job_id, "move", member, origin) for queue, job_id, origin, member in jobs])

    def send_lost(self, jobs: Iterable[tuple[str, str, int]]) -> int:
        """Queue jobs (queue, job id, time of the lost ticket) that nobody has claimed meanwhile."""
        return self._send_all([(queue, job_id, "lost", str(time), "") for queue, job_id, time in jobs])

    def _send_all(self, jobs: list[tuple[str, str, Condition, str, str]]) -> int:
        sent = 0
        with broker_errors():
            for start in range(0, len(jobs), BATCH):
                pipe = self._redis.pipeline(transaction=False)
                for queue, job_id, condition, member, origin in jobs[start : start + BATCH]:
                    self._push(queue, job_id, condition, member=member, origin=origin, client=pipe)
                sent += sum(bool(time) for time in pipe.execute())
        return sent

    def _push(
        self,
        queue: str,
        job_id: str,
        condition: Condition,
        *,
        member: str = "",
        origin: str = "",
        deadline: str = "",
        client: Redis | None = None,
    ) -> int:
        keys = [queue, wire.queued_key(queue), wire.QUEUES_KEY, wire.LEASES_KEY, wire.DEADLINES_KEY, origin]
        time = self._script(
            keys=keys, args=[job_id, ticket(job_id, queue), queue, condition, member, deadline], client=client
        )
        return time if isinstance(time, int) else 0
