"""A worker that paints nothing: it ends jobs as it is told, by the same keys, records and events as a real one."""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Callable, Sequence
from contextlib import suppress
from datetime import UTC, datetime
from functools import wraps
from threading import RLock
from typing import Any, Concatenate, ParamSpec, TypeVar

from PIL import Image
from redis import Redis

from overpaint_common import wire
from overpaint_common.dead import DeadLetters
from overpaint_common.errors import BrokerUnavailable, LeaseLost, OverpaintError
from overpaint_common.finish import Finish
from overpaint_common.fleet import ModelCard, WorkerCard, settle, total_steps
from overpaint_common.job import PRIORITIES, Job, JobId
from overpaint_common.leases import Claim, Leases, Refusal
from overpaint_common.ledger import Ledger, Request
from overpaint_common.live import Attempts, Live, Progress, broker_errors, last_moment
from overpaint_common.result import Failure, Result
from overpaint_common.seeds import new_attempt_id
from overpaint_common.storage import ObjectStore
from overpaint_producer.testing.pictures import NONE, fitted, models_run, read_source, store_variants, untouched

LEASE = 86_400.0
"""Seconds: nobody takes a job over."""

P = ParamSpec("P")
R = TypeVar("R")

Paint = Callable[[Job, Image.Image], Image.Image]
"""What to make of a source for a job; called once for each variant."""


def _one_at_a_time(method: Callable[Concatenate[StandIn, P], R]) -> Callable[Concatenate[StandIn, P], R]:
    @wraps(method)
    def call(self: StandIn, /, *args: P.args, **kwargs: P.kwargs) -> R:
        with self.lock:
            return method(self, *args, **kwargs)

    return call


class StandIn:
    """Plays one worker. Its models are announced once and for all: it never falls silent."""

    def __init__(self, name: str, cards: Sequence[ModelCard], ledger: Ledger, store: ObjectStore, redis: Redis) -> None:
        self._name = name
        self._cards = {card.name: card for card in cards}
        self._ledger = ledger
        self._store = store
        self._redis: Any = redis
        self._live = Live(redis)
        self._leases = Leases(redis, seconds=LEASE, worker=name)
        self._finish = Finish(ledger, DeadLetters(store, ledger.keys.root), store, redis)
        self._claims: dict[str, Claim] = {}
        self._tickets: dict[str, dict[JobId, list[str]]] = {}
        """The messages of each queue when it was read last, by their jobs, without those taken since."""
        self.lock = RLock()

    def announce(self) -> None:
        """Say which models are served; raises BrokerUnavailable."""
        card = WorkerCard(
            name=self._name, device=NONE, models=tuple(self._cards), slots=1, pid=0, started_at=datetime.now(UTC)
        )
        self._live.announce(card, list(self._cards.values()))
        with broker_errors():
            self._redis.persist(wire.worker_key(self._name))
            self._redis.zadd(wire.FLEET_KEY, {self._name: "+inf"})

    def waiting(self) -> list[JobId]:
        """The jobs that were begun by a report, then those whose tickets wait, the most urgent first."""
        queues = [wire.queue_name(model, priority) for priority in PRIORITIES for model in self._cards]
        with broker_errors():
            queued = [job_id for queue in queues for job_id in self._redis.zrange(wire.queued_key(queue), 0, -1)]
        return [*self._claims, *queued]

    @_one_at_a_time
    def report(self, job_id: JobId, step: int, *, phase: str = "denoise", preview: bytes | None = None) -> bool:
        """Tell that a job has got so far; whether it goes on, which is not so once somebody has ended it.

        Raises ObjectNotFound for an unknown job, BrokerUnavailable.
        """
        request = self._ledger.request(job_id)
        if self._ledger.record(job_id) is not None:
            return False
        self._claim(request)
        job = settle(request.job, self._cards)
        moment = Progress(
            state="running", phase=phase, step=step, steps=total_steps(job, self._cards), worker=self._name
        )
        stopped = self._live.report({job_id: [moment]})
        if preview is not None:
            self._live.show({job_id: preview})
        return not stopped

    @_one_at_a_time
    def succeed(self, job_id: JobId, pictures: Sequence[Image.Image] | None, paint: Paint | None) -> Result:
        """Store the pictures, one for each variant, and record that the job succeeded; returns the record that counts.

        Without pictures those that `paint` makes of the source; without it the source as it is, scaled as the job asks.
        An OverpaintError that `paint` raises, or the source not being a picture, makes the job fail.
        """
        request, found = self._opened(job_id)
        if found is not None:
            return found
        claim, job = self._claim(request), settle(request.job, self._cards)
        steps = total_steps(job, self._cards)
        try:
            card = self._cards[job.model]
            source = read_source(self._store, job, card.native_size)
            if pictures is None and paint is None:
                pictures = [fitted(job, source.picture, card)] * job.variants
            elif pictures is None and paint is not None:
                pictures = [paint(job, source.picture) for _ in range(job.variants)]
            self._tell(job_id, Progress(state="running", phase="upload", step=steps, steps=steps, worker=self._name))
            variants = store_variants(self._store, job, claim.attempt, pictures or [], self._cards)
        except OverpaintError as error:
            return self._end(request, claim, "failed", failure=Failure.of(error))
        models = models_run(job, self._cards)
        return self._end(
            request,
            claim,
            "succeeded",
            job=job,
            variants=variants,
            source=source.info,
            passthrough=untouched(job),
            model=next(iter(models), None),
            models=models,
            batch_rows=1 if models else None,
        )

    @_one_at_a_time
    def fail(self, job_id: JobId, error: OverpaintError) -> Result:
        """Record that the job failed for this reason; returns the record that counts."""
        request, found = self._opened(job_id)
        if found is not None:
            return found
        return self._end(request, self._claim(request), "failed", failure=Failure.of(error))

    @_one_at_a_time
    def expire(self, job_id: JobId) -> Result:
        """Record that the job's deadline has passed; returns the record that counts."""
        request, found = self._opened(job_id)
        return found or self._end(request, self._claim(request), "expired")

    def _opened(self, job_id: JobId) -> tuple[Request, Result | None]:
        request = self._ledger.request(job_id)
        record = self._ledger.record(job_id)
        if record is not None:
            # Once more after it is complete, it would hand the webhook over again.
            if self._ledger.is_open(request.job):
                self._finish(request, record, worker=self._name)
            self._claims.pop(job_id, None)
        return request, record

    def _claim(self, request: Request) -> Claim:
        """The lease; while Redis is down, one that only this object knows of."""
        job = request.job
        if job.id in self._claims:
            return self._claims[job.id]
        queue = wire.queue_name(job.model, job.priority)
        try:
            self._take_ticket(queue, job.id)
            claim = self._leases.claim(job.id, queue, self._leases.now_ms())
        except BrokerUnavailable:
            return Claim(job.id, new_attempt_id(), queue, Attempts(1, 0), 0)
        if isinstance(claim, Refusal):
            raise LeaseLost(f"job {job.id} is {claim.why}; worker {claim.holder or 'unknown'} has it")
        self._claims[job.id] = claim
        return claim

    def _take_ticket(self, queue: str, job_id: JobId) -> None:
        if not self._took(queue, job_id):
            self._tickets[queue] = self._read(queue)
            self._took(queue, job_id)

    def _took(self, queue: str, job_id: JobId) -> bool:
        with broker_errors():
            # From the old end, where most that are taken lie.
            found = [self._redis.lrem(queue, -1, it) for it in self._tickets.get(queue, {}).pop(job_id, ())]
        return any(found)

    def _read(self, queue: str) -> dict[JobId, list[str]]:
        tickets = defaultdict(list)
        with broker_errors():
            messages = self._redis.lrange(queue, 0, -1)
        for message in messages:
            tickets[json.loads(json.loads(message)["body"])[0][0]].append(message)
        return dict(tickets)

    def _tell(self, job_id: JobId, moment: Progress) -> None:
        with suppress(BrokerUnavailable):
            self._live.report({job_id: [moment]})

    def _end(self, request: Request, claim: Claim, status: str, **fields: Any) -> Result:
        record = self._ledger.commit(
            Result.model_validate(
                {
                    "job_id": claim.job_id,
                    "status": status,
                    "attempt": claim.attempt,
                    "attempts": claim.attempts.started,
                    "job": request.job,
                    "device": NONE,
                    "worker": self._name,
                    "accepted_at": request.accepted_at,
                    "started_at": datetime.now(UTC),
                    "finished_at": datetime.now(UTC),
                    **fields,
                }
            )
        )
        self._tell(claim.job_id, last_moment(record))
        self._finish(request, record, worker=self._name)
        with suppress(BrokerUnavailable):
            self._leases.done(claim)
        self._claims.pop(claim.job_id, None)
        return record
