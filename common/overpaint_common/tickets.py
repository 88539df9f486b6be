"""Tickets: the Celery messages that tell a worker to look at a job."""

from __future__ import annotations

import json
import uuid
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Literal

from kombu.entity import Exchange, Queue
from redis import Redis

from overpaint_common import wire
from overpaint_common.job import Job
from overpaint_common.live import STATUS_TTL, broker_errors
from overpaint_common.scripts import script

TIME = "@queued@"
"""Stands in a message where Redis puts the ticket time."""

LISTED_FOR = 7 * 24 * 3600
"""Seconds that a job can be listed after it was first queued."""

BATCH = 500
"""Tickets sent in one round trip."""

Condition = Literal["always", "absent", "move", "lost"]


@dataclass(frozen=True, slots=True)
class _Ticket:
    queue: str
    job_id: str
    condition: Condition
    member: str = ""
    origin: str = ""
    deadline: str = ""
    about: str = ""
    new: bool = False


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

    def send_accepted(self, jobs: Iterable[tuple[Job, str, bool]]) -> int:
        """Queue jobs (job, what listings tell of it, whether it is new) and say so; how many there were.

        One that was accepted before is queued only where no ticket waits and nobody holds it.
        """
        return self._send_all(
            [
                _Ticket(
                    wire.queue_name(job.model, job.priority),
                    job.id,
                    "always" if new else "absent",
                    deadline="" if job.deadline is None else str(milliseconds(job.deadline)),
                    about=about,
                    new=new,
                )
                for job, about, new in jobs
            ]
        )

    def send_again(self, queue: str, job_id: str) -> None:
        """Queue a job that is given back by one who does not hold it."""
        self._send_all([_Ticket(queue, job_id, "always")])

    def send_missing(self, jobs: Iterable[tuple[str, str]]) -> int:
        """Queue those of (queue, job id) that have neither ticket nor holder; how many there were."""
        return self._send_all([_Ticket(queue, job_id, "absent") for queue, job_id in jobs])

    def send_moved(self, jobs: Iterable[tuple[str, str, str, str]]) -> int:
        """Queue jobs (queue, job id, sorted set, member) that could be taken out of their sorted set."""
        return self._send_all(
            [_Ticket(queue, job_id, "move", member, origin) for queue, job_id, origin, member in jobs]
        )

    def send_lost(self, jobs: Iterable[tuple[str, str, int]]) -> int:
        """Queue jobs (queue, job id, time of the lost ticket) that nobody has claimed meanwhile."""
        return self._send_all([_Ticket(queue, job_id, "lost", str(time)) for queue, job_id, time in jobs])

    def _send_all(self, tickets: Sequence[_Ticket]) -> int:
        sent = 0
        with broker_errors():
            for start in range(0, len(tickets), BATCH):
                pipe = self._redis.pipeline(transaction=False)
                for each in tickets[start : start + BATCH]:
                    self._push(each, pipe)
                sent += sum(bool(time) for time in pipe.execute())
        return sent

    def _push(self, it: _Ticket, client: Redis) -> None:
        queued, status, events = wire.queued_key(it.queue), wire.status_key(it.job_id), wire.events_key(it.job_id)
        fixed = (wire.QUEUES_KEY, wire.LEASES_KEY, wire.DEADLINES_KEY)
        keys = [it.queue, queued, *fixed, it.origin, wire.JOBS_KEY, status, events]
        args = [it.job_id, ticket(it.job_id, it.queue), it.queue, it.condition, it.member, it.deadline]
        args += [it.about, str(int(it.new)), str(LISTED_FOR * 1000), str(STATUS_TTL)]
        self._script(keys=keys, args=args, client=client)
