"""Progress and cancelling over a real Redis."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path

import pytest

from overpaint_common import wire
from overpaint_common.job import Job, Output
from overpaint_common.live import STATUS_TTL, Live, Progress, connect
from overpaint_common.passes import Img2Img
from overpaint_common.result import Result
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


@pytest.fixture
def record() -> Result:
    """That somebody cancelled the job."""
    now = datetime.now(UTC)
    job = Job(
        id="job-1234",
        source="s3://inbox/cat.png",
        model="m",
        passes=(Img2Img(),),
        output=Output(prefix="s3://outbox/", previews=True),
    )
    return Result(
        job_id=job.id, status="cancelled", attempt="abc", attempts=0, job=job, accepted_at=now, finished_at=now
    )


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


@pytest.fixture
def watched(reporter: Reporter) -> Reporter:
    """A reporter that knows of a job in hand."""
    reporter.watch("job-1234", threading.Event())
    return reporter


def told(reporter: Reporter, moment: Progress) -> None:
    """Post a moment of that job, and wait until Redis has it."""
    reporter.post("job-1234", moment)
    reporter.flush("job-1234", 10)


def shown(live: Live, reporter: Reporter, preview: bytes) -> None:
    """Show a preview of that job, and wait until Redis has it."""
    reporter.show("job-1234", lambda: preview)
    eventually(lambda: live.preview("job-1234") == preview, "preview shown")


def test_an_estimate_goes_with_its_moment_and_is_gone_with_the_next(live: Live, reporter: Reporter) -> None:
    """Given a moment with an estimate, when one without comes after it, then status and stream have none either."""
    for left in (12.5, 0.0, None):
        told(reporter, moment(1).model_copy(update={"seconds_left": left}))
        newest = live.progress("job-1234")
        assert newest is not None
        assert newest.seconds_left == left

    assert [each.seconds_left for each in live.events("job-1234", "0", block=5)[1]] == [12.5, 0.0, None]


def test_what_a_later_release_tells_of_a_job_does_no_harm(redis: EmbeddedRedis, live: Live, reporter: Reporter) -> None:
    told(reporter, moment(3))
    with connect(redis.url) as client:
        client.hset(wire.status_key("job-1234"), "mood", "cheerful")

    assert live.progress("job-1234") == moment(3)


def test_only_the_newest_preview_is_kept(redis: EmbeddedRedis, live: Live, watched: Reporter) -> None:
    """Given two previews that are no text, when both were shown, then the second one is there, for as long as the
    status is."""
    for preview in (b"\xff\xd8\x00one", b"\x00\xfe\xfftwo"):
        shown(live, watched, preview)

    with connect(redis.url) as client:
        assert 0 < client.ttl(wire.preview_key("job-1234")) <= STATUS_TTL


@pytest.mark.parametrize(
    "after",
    [
        Progress(state="succeeded"),
        Progress(state="queued", detail="given back"),
        Progress(state="running", phase="fetch"),
    ],
    ids=["ended", "given back", "begun anew"],
)
def test_a_preview_goes_when_the_painting_it_shows_is_over(live: Live, watched: Reporter, after: Progress) -> None:
    shown(live, watched, b"one")
    told(watched, moment(2))
    assert live.preview("job-1234") == b"one"

    told(watched, after)

    assert live.preview("job-1234") is None


def test_a_preview_goes_when_its_job_is_cancelled_from_outside(live: Live, watched: Reporter, record: Result) -> None:
    shown(live, watched, b"one")

    live.end(record)

    assert live.preview("job-1234") is None


def test_a_preview_that_cannot_be_made_costs_no_progress(live: Live, watched: Reporter) -> None:
    """Given a preview that raises, when progress is posted after it, then it is told, and the next preview shown."""

    def broken() -> bytes:
        raise ZeroDivisionError("on purpose")

    watched.show("job-1234", broken)
    told(watched, moment(7))

    newest = live.progress("job-1234")
    assert newest is not None
    assert newest.step == 7
    shown(live, watched, b"two")


def test_a_job_that_is_no_longer_in_hand_is_not_shown(live: Live, watched: Reporter) -> None:
    """Given a job that was let go, when a call of it that goes on shows something, then nobody sees it."""
    watched.watch("job-5678", threading.Event())
    watched.forget("job-1234")
    watched.show("job-1234", lambda: b"late")

    watched.show("job-5678", lambda: b"another")
    eventually(lambda: live.preview("job-5678") == b"another", "the other job's preview shown")

    assert live.preview("job-1234") is None


def test_nobody_who_shows_waits_for_a_redis_that_is_away(redis: EmbeddedRedis, live: Live, watched: Reporter) -> None:
    """Given a Redis that is away, when a preview is shown, then it is forgotten, and a later one is there."""
    redis.stop()
    watched.show("job-1234", lambda: b"lost")
    watched.post("job-1234", moment(1))
    redis.start()

    watched.flush("job-1234", 30)
    shown(live, watched, b"later")
