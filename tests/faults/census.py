"""What each crew's worker was doing while faults were played."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Any, Literal

import psutil
from redis import Redis
from redis.backoff import NoBackoff
from redis.exceptions import RedisError
from redis.retry import Retry

from overpaint_common import wire
from tests.faults.crew import Crew

EVERY = 0.2
"""Seconds between two looks."""

State = Literal["serving", "starting", "stopped", "dead"]


@dataclass
class Span:
    """A time in which one crew's worker did one thing; seconds since the run began."""

    crew: int
    state: State
    began: float
    ended: float


class Census:
    """Looks at the worker processes again and again, whatever Redis is going through."""

    def __init__(self, redis_url: str, crews: Callable[[], Sequence[Crew]], began: float) -> None:
        """`crews` are the crews of this moment; `began` is the monotonic time at which the run began."""
        self.spans: list[Span] = []
        self._crews = crews
        self._began = began
        self._announced: set[int] = set()
        self._redis: Any = Redis.from_url(
            redis_url,
            socket_timeout=0.2,
            socket_connect_timeout=0.2,
            decode_responses=True,
            retry=Retry(NoBackoff(), 0),
        )

    def watch(self, enough: threading.Event) -> None:
        """Look until told that it is enough."""
        with self._redis:
            while not enough.wait(EVERY):
                with suppress(RedisError):
                    self._ask()
                now = time.monotonic() - self._began
                for number, crew in enumerate(list(self._crews())):
                    self.note(number, self._state(crew), now)

    def note(self, crew: int, state: State, now: float) -> None:
        """At `now` that crew's worker was in that state; it had been since the last look at which it was in another."""
        last = next((span for span in reversed(self.spans) if span.crew == crew), None)
        if last is not None:
            last.ended = now
        if last is None or last.state != state:
            self.spans.append(Span(crew, state, now, now))

    def _ask(self) -> None:
        names = self._redis.zrange(wire.FLEET_KEY, 0, -1)
        cards = self._redis.mget([wire.worker_key(name) for name in names]) if names else []
        self._announced |= {json.loads(card)["pid"] for card in cards if card}

    def _state(self, crew: Crew) -> State:
        with suppress(psutil.NoSuchProcess):
            child = crew.child
            if child is not None:
                if child.status() == psutil.STATUS_STOPPED:
                    return "stopped"
                return "serving" if child.pid in self._announced else "starting"
        return "dead"
