"""Which jobs there were lately, for those who list them. Redis's, so gone when Redis loses its data."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from itertools import takewhile
from typing import Any, Self

from pydantic import AwareDatetime, ValidationError
from redis import Redis

from overpaint_common import wire
from overpaint_common.errors import InvalidJob
from overpaint_common.frozen import Frozen
from overpaint_common.job import JobId, ModelName, Priority
from overpaint_common.ledger import Request
from overpaint_common.live import Progress, broker_errors, moment_of
from overpaint_common.references import ObjectUri
from overpaint_common.tickets import milliseconds


class Summary(Frozen):
    """What a listing tells of a job beside where it is."""

    model: ModelName
    priority: Priority
    source: ObjectUri
    labels: dict[str, str]
    accepted_at: AwareDatetime

    @classmethod
    def of(cls, request: Request) -> Self:
        job = request.job
        return cls(
            model=job.model,
            priority=job.priority,
            source=job.source,
            labels=job.labels,
            accepted_at=request.accepted_at,
        )


@dataclass(frozen=True, slots=True)
class Entry:
    """One job of the index, with what Redis still knows of it."""

    job_id: JobId
    queued_at: datetime
    """When it was queued first, by Redis's clock."""
    summary: Summary | None
    moment: Progress | None


class JobIndex:
    """The jobs queued within `tickets.LISTED_FOR`. Every method raises BrokerUnavailable when Redis is down."""

    def __init__(self, redis: Redis) -> None:
        self._redis: Any = redis

    def newest(self, *, since: datetime, until: datetime | None, after: JobId | None, size: int) -> list[Entry]:
        """Up to `size` jobs, those queued last first: within `since` to `until`, and before the job `after`.

        Raises InvalidJob where `after` is not in the list.
        """
        with broker_errors():
            first = self._rank(until, after)
            found = self._redis.zrevrange(wire.JOBS_KEY, first, first + size - 1, withscores=True)
            recent = list(takewhile(lambda pair: pair[1] >= milliseconds(since), found))
            pipe = self._redis.pipeline(transaction=False)
            for job_id, _ in recent:
                pipe.hgetall(wire.status_key(job_id))
            statuses = pipe.execute()
        return [
            Entry(job_id, _moment(score), _summary(status), moment_of(status))
            for (job_id, score), status in zip(recent, statuses, strict=True)
        ]

    def _rank(self, until: datetime | None, after: JobId | None) -> int:
        """Place of the first job to tell."""
        if after is not None:
            place = self._redis.zrevrank(wire.JOBS_KEY, after)
            if place is None:
                raise InvalidJob(f"job {after} is not in the list, or no more; list again from the start")
            return int(place) + 1
        return 0 if until is None else int(self._redis.zcount(wire.JOBS_KEY, milliseconds(until), "+inf"))


def _moment(score: float) -> datetime:
    return datetime.fromtimestamp(0, UTC) + timedelta(milliseconds=score)


def _summary(status: Mapping[str, str]) -> Summary | None:
    try:
        return Summary.model_validate_json(status["about"], extra="ignore")
    except (KeyError, ValidationError):
        return None
