"""How long a job of a killed worker waits until another worker works on it."""

from __future__ import annotations

import statistics
import threading
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any

from redis.exceptions import RedisError

from overpaint_common import wire
from overpaint_common.live import FINAL_STATES


@dataclass
class Kill:
    """A worker's death, and the jobs that it had in hand."""

    at: float
    """Wall clock, in seconds."""
    worker: str
    jobs: list[str]
    returned: dict[str, float] = field(default_factory=dict)
    """Seconds until its lease was no longer the dead worker's, by job; see `watch_returns`."""


@dataclass(frozen=True)
class Recovery:
    """What became of a job that a killed worker had in hand."""

    job: str
    seconds: float
    """Since the kill."""
    running: bool
    """Another worker reported on it; else it had ended: it was already recorded, was cancelled or was given up."""


LOOK_EVERY = 0.05
"""Seconds between two looks at the leases of killed workers."""


def watch_returns(redis: Any, kills: Sequence[Kill], enough: threading.Event) -> None:
    """Note when the jobs of killed workers were taken from them; means nothing where Redis loses leases."""
    while not enough.wait(LOOK_EVERY):
        with suppress(RedisError):
            for kill in list(kills):
                for job in kill.jobs:
                    if job not in kill.returned and redis.hget(wire.lease_key(job), "worker") != kill.worker:
                        kill.returned[job] = time.time() - kill.at


Moments = Iterable[tuple[str, Mapping[str, str]]]
"""Entries of a job's stream of events, with their ids."""


def recovery(kill: Kill, job: str, moments: Moments) -> Recovery | None:
    """The first of these moments, since the kill, that says what became of the job; None where none does."""
    for entry, moment in moments:
        seconds = int(entry.split("-")[0]) / 1000 - kill.at
        if moment["state"] in FINAL_STATES:
            return Recovery(job, seconds, running=False)
        if moment["state"] == "running" and moment["worker"] != kill.worker:
            return Recovery(job, seconds, running=True)
    return None


def recoveries(redis: Any, kills: Iterable[Kill]) -> Iterator[Recovery]:
    """Of every job in hand of a killed worker, as far as Redis has kept its events."""
    for kill in kills:
        for job in kill.jobs:
            if found := recovery(kill, job, redis.xrange(wire.events_key(job), min=int(kill.at * 1000))):
                yield found


def spread(seconds: Sequence[float]) -> dict[str, float]:
    """Count, median, 95th percentile and greatest; zeros where there is none."""
    ordered = sorted(seconds) or [0.0]
    figures = {"median": statistics.median(ordered), "p95": ordered[int(len(ordered) * 0.95)], "max": ordered[-1]}
    return {"count": len(seconds), **{name: round(value, 2) for name, value in figures.items()}}
