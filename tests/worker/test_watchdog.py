"""A worker that no longer takes tickets is noticed, and one that has its reasons is left alone."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from celery import signals
from redis import Redis

from overpaint_common.errors import BrokerUnavailable
from overpaint_common.live import Live
from overpaint_worker.watchdog import Stall, Watchdog
from tests.support.celery_worker import INTERACTIVE, PATIENCE, connected, serving


def test_only_the_time_counts_in_which_tickets_waited_and_none_was_taken() -> None:
    """Given looks every five seconds, when a ticket is taken or none waits, then the clock starts again."""
    stall = Stall(longest_gap=10)
    looks = [(0, 0, 3), (5, 0, 3), (10, 0, 2), (15, 1, 2), (20, 1, 2), (25, 1, 0), (30, 1, 1)]
    assert [stall.look(now, received=received, waiting=waiting) for now, received, waiting in looks] == [
        *(0, 5, 10),
        *(0, 5),
        *(0, 5),
    ]


def test_the_time_of_a_paused_process_does_not_count() -> None:
    """Given a process that was stopped for an hour, when it goes on, then one longest gap is all that counts."""
    stall = Stall(longest_gap=10)
    stall.look(0, received=0, waiting=1)
    assert stall.look(3600, received=0, waiting=1) == 10


def test_a_consumer_that_hangs_is_reported_once(tmp_path: Path) -> None:
    """Given a real worker whose consumer hangs, when tickets wait and slots are free, then the reason says so."""
    reasons: list[str] = []
    stuck, go_on = threading.Event(), threading.Event()

    def on_stuck(reason: str) -> None:
        reasons.append(reason)
        stuck.set()

    def hang(**_: Any) -> None:
        go_on.wait(PATIENCE)

    with serving(tmp_path) as worker, Redis.from_url(worker.redis.url) as redis, connected(signals.task_received, hang):
        watchdog = Watchdog(
            worker.consumption,
            waiting=Live(redis).waiting,
            on_stuck=on_stuck,
            leaving=worker.leaving,
            patience=0.3,
            interval=0.05,
        )
        watchdog.start()
        worker.send(INTERACTIVE, 3)
        assert stuck.wait(PATIENCE)
        watchdog.join()
        go_on.set()
    assert len(reasons) == 1
    assert f"2 waiting in overpaint.submit, {INTERACTIVE}" in reasons[0]


@dataclass
class Idle:
    """A consumer that takes nothing."""

    queues: list[str]
    received: int = 0
    looks: int = 0
    enough: threading.Event = field(default_factory=threading.Event)

    def open_queues(self) -> list[str]:
        self.looks += 1
        if self.looks > 20:
            self.enough.set()
        return self.queues


def waits(_: Sequence[str]) -> int:
    return 5


def no_redis(_: Sequence[str]) -> int:
    raise BrokerUnavailable("down")


@pytest.mark.parametrize(("queues", "waiting"), [([], waits), (["q"], no_redis), (["q"], len), (["q"], waits)])
def test_who_may_not_take_anything_is_not_stuck(queues: list[str], waiting: Any) -> None:
    """Given no open queue or no Redis, when nothing is taken for long, then nobody is to blame; else somebody is."""
    consumer, leaving = Idle(queues), threading.Event()
    reasons: list[str] = []
    watchdog = Watchdog(
        consumer, waiting=waiting, on_stuck=reasons.append, leaving=leaving, patience=0.02, interval=0.005
    )
    watchdog.start()
    blamed = bool(queues) and waiting is not no_redis
    if not blamed:
        assert consumer.enough.wait(PATIENCE)
        leaving.set()
    watchdog.join()
    assert bool(reasons) is blamed
