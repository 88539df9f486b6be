"""Leases: who works on which job, on Redis's own clock, and how often each was tried."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

from redis import Redis

from overpaint_common import wire
from overpaint_common.live import STATUS_TTL, Attempts, broker_errors
from overpaint_common.scripts import script
from overpaint_common.seeds import new_attempt_id
from overpaint_common.tickets import ticket

ATTEMPTS_TTL = 7 * STATUS_TTL
"""Seconds that a job's counts stay after its last attempt."""

SUSPECT_AT = 2
"""Crashes after which a job runs alone."""

GIVE_UP_AT = 3
"""Crashes after which a job is recorded as failed."""

Counted = Literal["", "outages", "crashes"]
"""What an attempt that did not finish counts as; "" is a clean try of the job's own."""


@dataclass(frozen=True, slots=True)
class Claim:
    """A lease as it was when it was taken."""

    job_id: str
    attempt: str
    """Random id of the attempt that the lease is for."""
    queue: str
    attempts: Attempts
    """This attempt included."""
    now_ms: int
    """Redis's time."""


@dataclass(frozen=True, slots=True)
class Refusal:
    """Why a ticket is dropped."""

    why: Literal["held", "finished"]
    holder: str
    """The worker that holds the job, where one does."""


@dataclass(frozen=True, slots=True)
class Lapsed:
    """A job whose holder has fallen silent."""

    job_id: str
    attempt: str
    worker: str
    queue: str
    """Any of the three may be empty where Redis lost them."""


@dataclass(frozen=True, slots=True)
class Returned:
    """What became of a lapsed job."""

    what: Literal["queued", "solo", "give_up"]
    attempts: Attempts


class Leases:
    """Takes, prolongs and ends leases. Every method raises BrokerUnavailable when Redis is down."""

    def __init__(self, redis: Redis, *, seconds: float, worker: str) -> None:
        """`seconds` that a lease lasts unless it is renewed; `worker` is whose name stands in it."""
        self._redis: Any = redis
        self._lease_ms = int(seconds * 1000)
        self._worker = worker
        self._claim = script(redis, "claim")
        self._suspect = script(redis, "suspect")
        self._renew = script(redis, "renew")
        self._release = script(redis, "release")
        self._lapse = script(redis, "lapse")

    def claim(self, job_id: str, queue: str, ticket_ms: int) -> Claim | Refusal:
        """Take the lease of a job whose ticket, queued at `ticket_ms`, was fetched from `queue`, and count the attempt.

        A lease that lapsed unnoticed is counted against the job first.
        """
        attempt = new_attempt_id()
        keys = [*_lease_keys(job_id), wire.queued_key(queue), wire.newest_key(queue)]
        with broker_errors():
            verdict, now, started, outages, crashes, holder = self._claim(
                keys=keys,
                args=[job_id, attempt, self._worker, queue, self._lease_ms, ticket_ms, ATTEMPTS_TTL, STATUS_TTL],
            )
        if verdict != "claimed":
            return Refusal(verdict, holder)
        return Claim(job_id, attempt, queue, Attempts(started, outages, crashes), now)

    def claim_suspect(self, model: str) -> Claim | None:
        """Take the suspect of `model` that is due the longest; None where there is none."""
        attempt, queue = new_attempt_id(), wire.queue_name(model, "standard")
        prefixes = [wire.lease_key(""), wire.attempts_key(""), wire.status_key("")]
        with broker_errors():
            found = self._suspect(
                keys=[wire.solo_key(model), wire.LEASES_KEY],
                args=[attempt, self._worker, queue, self._lease_ms, ATTEMPTS_TTL, *prefixes, STATUS_TTL],
            )
        if found is None:
            return None
        job_id, now, started, outages, crashes = found
        return Claim(job_id, attempt, queue, Attempts(started, outages, crashes), now)

    def renew(self, claims: Sequence[Claim]) -> list[Claim]:
        """Prolong these leases, taking those again that are gone; returns those that another attempt holds by now."""
        with broker_errors():
            pipe = self._redis.pipeline(transaction=False)
            for claim in claims:
                self._renew(
                    keys=[wire.LEASES_KEY, wire.lease_key(claim.job_id)],
                    args=[claim.job_id, claim.attempt, self._worker, claim.queue, self._lease_ms],
                    client=pipe,
                )
            kept = pipe.execute()
        return [claim for claim, ours in zip(claims, kept, strict=True) if not ours]

    def done(self, claim: Claim) -> None:
        """End the lease of a job that has ended."""
        self._end(claim, "done")

    def give_back(self, claim: Claim, *, counted: Counted, delay: float = 0, alone: bool = False) -> None:
        """End the lease of a job that is to be tried again, after `delay` seconds, or `alone` among the suspects.

        Does nothing where another attempt holds the job by now.
        """
        becomes = "solo" if alone else "delay" if delay > 0 else "queue"
        self._end(claim, becomes, counted=counted, delay=delay)

    def lapsed(self, limit: int, now_ms: int) -> list[Lapsed]:
        """Jobs whose lease had lapsed by `now_ms`, the longest silent first."""
        with broker_errors():
            jobs = self._redis.zrange(wire.LEASES_KEY, "-inf", now_ms, byscore=True, offset=0, num=limit)
            pipe = self._redis.pipeline(transaction=False)
            for job_id in jobs:
                pipe.hmget(wire.lease_key(job_id), "attempt", "worker", "queue")
            found = pipe.execute()
        return [Lapsed(job_id, *(value or "" for value in values)) for job_id, values in zip(jobs, found, strict=True)]

    def give_lapsed_back(self, lapsed: Lapsed, queue: str) -> Returned | None:
        """Return a lapsed job to `queue` or to the suspects; None if it lives after all.

        One that has crashed too often becomes the caller's, to record its end.
        """
        job_id = lapsed.job_id
        model = wire.model_of(queue)
        with broker_errors():
            found = self._lapse(
                keys=[
                    *(*_lease_keys(job_id), queue, wire.queued_key(queue), wire.QUEUES_KEY, wire.solo_key(model)),
                    wire.events_key(job_id),
                ],
                args=[
                    *(job_id, lapsed.attempt, ATTEMPTS_TTL, ticket(job_id, queue), queue, SUSPECT_AT, GIVE_UP_AT),
                    *(new_attempt_id(), self._worker, self._lease_ms, STATUS_TTL),
                ],
            )
        if found is None:
            return None
        what, started, outages, crashes = found
        return Returned(what, Attempts(started, outages, crashes))

    def forget(self, job_id: str) -> None:
        """Remove what is known of a job that has ended, whoever held it."""
        with broker_errors():
            pipe = self._redis.pipeline()
            pipe.delete(wire.lease_key(job_id))
            for key in (wire.LEASES_KEY, wire.DEADLINES_KEY, wire.ENDED_KEY):
                pipe.zrem(key, job_id)
            pipe.execute()

    def now_ms(self) -> int:
        """Redis's time."""
        with broker_errors():
            seconds, microseconds = self._redis.time()
        return int(seconds) * 1000 + int(microseconds) // 1000

    def _end(self, claim: Claim, becomes: str, *, counted: Counted = "", delay: float = 0) -> None:
        job_id, queue = claim.job_id, claim.queue
        keys = [
            *(wire.LEASES_KEY, wire.lease_key(job_id), wire.attempts_key(job_id), wire.DEADLINES_KEY),
            *(queue, wire.queued_key(queue), wire.QUEUES_KEY, wire.DELAYED_KEY),
            *(wire.solo_key(wire.model_of(queue)), wire.ENDED_KEY),
        ]
        delay_ms = int(delay * 1000)
        args = [job_id, claim.attempt, ATTEMPTS_TTL, counted, becomes, ticket(job_id, queue), queue, delay_ms]
        with broker_errors():
            self._release(keys=keys, args=args)


def _lease_keys(job_id: str) -> list[str]:
    return [wire.LEASES_KEY, wire.lease_key(job_id), wire.attempts_key(job_id), wire.status_key(job_id)]
