"""What Redis knows of jobs and workers right now. None of it is the truth: Redis may be wiped at any moment."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Annotated, Any, Literal

from pydantic import Field, ValidationError
from redis import Redis
from redis.backoff import NoBackoff
from redis.client import NEVER_DECODE
from redis.exceptions import ConnectionError as RedisConnectionError
from redis.exceptions import RedisError
from redis.retry import Retry

from overpaint_common import wire
from overpaint_common.errors import BrokerUnavailable
from overpaint_common.fleet import ModelCard, WorkerCard
from overpaint_common.frozen import Frozen
from overpaint_common.job import PRIORITIES
from overpaint_common.result import Result

STATUS_TTL = 24 * 3600
"""Seconds that a job's live status stays after its last change; its preview likewise."""

WORKER_TTL = 15
"""Seconds after which a silent worker no longer counts as alive."""

EVENTS_KEPT = 10_000
"""Newest events kept of one job; a job has one for each step."""

NUDGE_TTL = 60
"""Seconds that a nudge stays: whom it was for has long seen it, or is gone."""

JobState = Literal["accepted", "queued", "running", "succeeded", "failed", "cancelled", "expired"]
FINAL_STATES: frozenset[str] = frozenset({"succeeded", "failed", "cancelled", "expired"})


class Progress(Frozen):
    """One moment of a job."""

    state: JobState
    """accepted: in the ledger, but Redis knows nothing of it; queued: a ticket waits for a worker."""
    phase: str = ""
    """While running: fetch, prepare, wait (for the device), load, denoise, encode, upload."""
    step: int = 0
    """Denoising steps done over all passes and variants."""
    steps: int = 0
    """Denoising steps that will run in all; 0 where not known yet."""
    worker: str = ""
    detail: str = ""
    """For people, such as "no worker serves this model"."""
    seconds_left: Annotated[float, Field(ge=0)] | None = None
    """While denoising: until the last step, at the pace that the job's own steps had up to this moment. None until two
    of them were measured. Encoding and storing the pictures come on top."""

    @property
    def finished(self) -> bool:
        return self.state in FINAL_STATES


@dataclass(frozen=True, slots=True)
class Attempts:
    """How often a job was begun, as far as Redis remembers."""

    started: int
    outages: int
    """Of those, how many were lost to an outage of storage or Redis, to a worker that was told to stop, or to one that
    died while this job only waited."""
    crashes: int = 0
    """Of those, how many ended with the death of a worker or an engine that was working on the job."""


def last_moment(record: Result) -> Progress:
    """What a finished job's progress ends with."""
    failure = record.failure
    steps = sum(p.effective_steps for variant in record.variants for p in variant.passes)
    return Progress(
        state=record.status,
        step=steps,
        steps=steps,
        worker=record.worker or "",
        detail=f"{failure.code}: {failure.message}" if failure else "",
    )


def connect(url: str, *, patience: float = 15.0) -> Redis:
    """A client that gives up on a silent Redis after about `patience` seconds; no connection is made yet."""
    return Redis.from_url(
        url,
        decode_responses=True,
        protocol=2,
        socket_timeout=patience,
        socket_connect_timeout=min(patience, 5.0),
        socket_keepalive=True,
        health_check_interval=15,
        # One more try at once, for a pooled connection that a restart of Redis has closed.
        retry=Retry(NoBackoff(), 1, supported_errors=(RedisConnectionError,)),
    )


class Live:
    """Statuses, progress events, attempts and the fleet. Every method raises BrokerUnavailable when Redis is down."""

    def __init__(self, redis: Redis) -> None:
        self._redis: Any = redis

    def ping(self) -> None:
        with broker_errors():
            self._redis.ping()

    def close(self) -> None:
        self._redis.close()

    def now(self) -> datetime:
        """Redis's time, by which deadlines pass."""
        with broker_errors():
            seconds, microseconds = self._redis.time()
        return datetime.fromtimestamp(seconds, UTC) + timedelta(microseconds=microseconds)

    def models(self) -> dict[str, ModelCard]:
        """Every model that a worker has announced, by name."""
        with broker_errors():
            cards: Mapping[str, str] = self._redis.hgetall(wire.MODELS_KEY)
        return {name: ModelCard.model_validate_json(text, extra="ignore") for name, text in cards.items()}

    def workers(self) -> list[WorkerCard]:
        """The workers that are alive."""
        with broker_errors():
            now = self._redis.time()[0]
            names = self._redis.zrangebyscore(wire.FLEET_KEY, now - WORKER_TTL, "+inf")
            texts = self._redis.mget([wire.worker_key(name) for name in names]) if names else []
        return [WorkerCard.model_validate_json(text, extra="ignore") for text in texts if text]

    def kept(self) -> bool:
        """Whether a keeper leads."""
        with broker_errors():
            return bool(self._redis.exists(wire.KEEPER_KEY))

    def announce(self, worker: WorkerCard, cards: list[ModelCard]) -> None:
        """Say that a worker is alive and what it serves; to be repeated well within WORKER_TTL."""
        with broker_errors():
            now = self._redis.time()[0]
            pipe = self._redis.pipeline(transaction=False)
            pipe.hset(wire.MODELS_KEY, mapping={card.name: card.model_dump_json() for card in cards})
            pipe.set(wire.worker_key(worker.name), worker.model_dump_json(), ex=WORKER_TTL)
            pipe.zadd(wire.FLEET_KEY, {worker.name: now})
            pipe.zremrangebyscore(wire.FLEET_KEY, "-inf", now - 3600)
            pipe.execute()

    def withdraw(self, worker: str) -> None:
        """Say that a worker has left."""
        with broker_errors():
            pipe = self._redis.pipeline(transaction=False)
            pipe.delete(wire.worker_key(worker))
            pipe.zrem(wire.FLEET_KEY, worker)
            pipe.execute()

    def report(self, updates: Mapping[str, list[Progress]]) -> set[str]:
        """Publish each job's new moments in order, and return the jobs of them that somebody asked to cancel."""
        with broker_errors():
            pipe = self._redis.pipeline(transaction=False)
            for job_id, moments in updates.items():
                status, events, newest = wire.status_key(job_id), wire.events_key(job_id), moments[-1]
                for moment in moments:
                    pipe.xadd(events, _fields(moment), maxlen=EVENTS_KEPT, approximate=True)
                pipe.hset(status, mapping=_fields(newest))
                pipe.expire(events, STATUS_TTL)
                pipe.expire(status, STATUS_TTL)
                if newest.state != "running" or newest.phase == "fetch":
                    # The job has ended, or a new attempt has nothing to show yet.
                    pipe.delete(wire.preview_key(job_id))
            for job_id in updates:
                pipe.hexists(wire.status_key(job_id), "cancel")
            flags = pipe.execute()[-len(updates) :]
        return {job_id for job_id, flag in zip(updates, flags, strict=True) if flag}

    def show(self, previews: Mapping[str, bytes]) -> None:
        """Put each job's newest preview, a picture file, in the place of the one before."""
        with broker_errors():
            pipe = self._redis.pipeline(transaction=False)
            for job_id, preview in previews.items():
                pipe.set(wire.preview_key(job_id), preview, ex=STATUS_TTL)
            pipe.execute()

    def preview(self, job_id: str) -> bytes | None:
        """The newest preview of a job that is being painted, if there is one."""
        with broker_errors():
            found: bytes | None = self._redis.execute_command("GET", wire.preview_key(job_id), **{NEVER_DECODE: True})
        return found

    def end(self, record: Result) -> None:
        """Publish an end that no worker decided: a worker that runs the job stops at its next step, the keeper tidies.

        The end itself is the record, not this.
        """
        job_id, moment = record.job_id, last_moment(record)
        status, events = wire.status_key(job_id), wire.events_key(job_id)
        with broker_errors():
            now = self._redis.time()[0] * 1000
            pipe = self._redis.pipeline()
            pipe.zadd(wire.ENDED_KEY, {job_id: now})
            pipe.zrem(wire.DEADLINES_KEY, job_id)
            pipe.xadd(events, _fields(moment), maxlen=EVENTS_KEPT, approximate=True)
            pipe.hset(status, mapping={**_fields(moment), "cancel": "1"})
            pipe.delete(wire.preview_key(job_id))
            pipe.expire(events, STATUS_TTL)
            pipe.expire(status, STATUS_TTL)
            pipe.execute()

    def progress(self, job_id: str) -> Progress | None:
        """The newest moment, or None where Redis knows nothing of the job."""
        with broker_errors():
            return moment_of(self._redis.hgetall(wire.status_key(job_id)))

    def has_ticket(self, model: str, job_id: str) -> bool:
        """Whether a ticket waits for a job, perhaps in a more urgent queue than its own, however old it is."""
        with broker_errors():
            pipe = self._redis.pipeline(transaction=False)
            for priority in PRIORITIES:
                pipe.zscore(wire.queued_key(wire.queue_name(model, priority)), job_id)
            return any(score is not None for score in pipe.execute())

    def waiting(self, queues: Sequence[str]) -> int:
        """The tickets that wait in these queues."""
        with broker_errors():
            pipe = self._redis.pipeline(transaction=False)
            for queue in queues:
                pipe.llen(queue)
            return sum(pipe.execute())

    def events(self, job_id: str, after: str, *, block: float) -> tuple[str, list[Progress]]:
        """Moments newer than the position `after` ("0" for all that are kept), waiting up to `block` seconds.

        Returns the position to go on from and the moments, none if the wait was in vain.
        """
        with broker_errors():
            reply = self._redis.xread({wire.events_key(job_id): after}, block=max(1, int(block * 1000)))
        entries = [entry for _, batch in reply or [] for entry in batch]
        moments = [moment for _, fields in entries if (moment := moment_of(fields)) is not None]
        return (entries[-1][0] if entries else after), moments

    def events_of(
        self, after: Mapping[str, str], *, block: float, limit: int
    ) -> dict[str, list[tuple[str, Progress | None]]]:
        """The moments of many jobs, as `events` gives those of one; `after` has each job's position by its id.

        Of each job at most `limit` come at once. Returns, for the jobs that have any, positions and moments in order;
        None is an event that says nothing, such as a nudge.
        """
        streams = {wire.events_key(job_id): job_id for job_id in after}
        positions = {stream: after[job_id] for stream, job_id in streams.items()}
        with broker_errors():
            reply = self._redis.xread(positions, count=limit, block=max(1, int(block * 1000)))
        return {
            streams[stream]: [(position, moment_of(fields)) for position, fields in entries]
            for stream, entries in reply or []
        }

    def nudge(self, name: str) -> None:
        """Add an event that says nothing where those of a job called `name` would be, to wake whoever waits for it."""
        with broker_errors():
            pipe = self._redis.pipeline(transaction=False)
            pipe.xadd(wire.events_key(name), {"nudge": ""}, maxlen=1, approximate=False)
            pipe.expire(wire.events_key(name), NUDGE_TTL)
            pipe.execute()


def _fields(moment: Progress) -> dict[str, str | int | float]:
    """As Redis holds them: what is None is empty there, so that it takes the place of what was before."""
    return {name: "" if value is None else value for name, value in moment.model_dump().items()}


def moment_of(fields: Mapping[str, str]) -> Progress | None:
    """What a status or an event in Redis says; None where that is nothing, or of a later release's making."""
    given = {name: value for name, value in fields.items() if value != ""}
    try:
        # Beside them may be "cancel", and what a worker of a later release tells.
        return Progress.model_validate(given, extra="ignore") if given else None
    except ValidationError:
        return None


@contextmanager
def broker_errors() -> Iterator[None]:
    """Turn what redis-py raises into BrokerUnavailable."""
    try:
        yield
    except (RedisError, OSError) as error:
        raise BrokerUnavailable(
            f"Redis did not answer ({type(error).__name__}: {error}); check that it runs and OVERPAINT_REDIS_URL"
        ) from error
