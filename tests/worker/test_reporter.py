"""Progress and cancelling over a real Redis."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from overpaint_common import wire
from overpaint_common.live import Live, Progress, connect
from overpaint_producer.local.redis import EmbeddedRedis
from overpaint_worker.reporter import Reporter
from tests.support.stack import eventually


@pytest.fixture
def redis(tmp_path: Path) -> Iterator[EmbeddedRedis]:
    with EmbeddedRedis(tmp_path / "redis", append_only=False) as running:
        yield running


@pytest.fixture
def live(redis: EmbeddedRedis) -> Iterator[Live]:
    client = Live(connect(redis.url, patience=1))
    yield client
    client.close()


@pytest.fixture
def reporter(live: Live) -> Iterator[Reporter]:
    running = Reporter(live)
    running.start()
    yield running
    running.stop()


def moment(step: int) -> Progress:
    return Progress(state="running", phase="denoise", step=step, steps=100)


def test_a_cancelled_job_is_learned_of_and_no_other(redis: EmbeddedRedis, reporter: Reporter) -> None:
    """Given two jobs in hand, when one is cancelled and tells its progress, then its event alone is set."""
    cancelled, other = threading.Event(), threading.Event()
    reporter.watch("job-1234", cancelled)
    reporter.watch("job-5678", other)

    with connect(redis.url) as client:
        client.hset(wire.status_key("job-1234"), "cancel", 1)
    reporter.post("job-5678", moment(1))
    reporter.post("job-1234", moment(1))

    assert cancelled.wait(10)
    assert not other.is_set()


def test_moments_come_in_order_and_none_is_lost(live: Live, reporter: Reporter) -> None:
    """Given many moments posted at once, when they are read back, then all are there in their order."""
    for step in range(500):
        reporter.post("job-1234", moment(step))

    told: list[int] = []
    after = "0"
    while len(told) < 500:
        after, moments = live.events("job-1234", after, block=5)
        assert moments
        told += [each.step for each in moments]

    assert told == list(range(500))
    newest = live.progress("job-1234")
    assert newest is not None
    assert newest.step == 499


def test_progress_made_while_redis_is_down_is_told_afterwards(
    redis: EmbeddedRedis, live: Live, reporter: Reporter
) -> None:
    """Given a Redis that is away, when progress is made, then nobody waits, and it is told once Redis is back."""
    redis.stop()
    for step in range(5):
        reporter.post("job-1234", moment(step))
    redis.start()

    def told() -> list[int]:
        return [each.step for each in live.events("job-1234", "0", block=0.1)[1]]

    eventually(lambda: told() == [0, 1, 2, 3, 4], "moments told after the outage")
