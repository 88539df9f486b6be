"""How a worker that was told to stop parts with its jobs."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager

import pytest

from overpaint_common.errors import JobCancelled, WorkerStopping
from overpaint_common.leases import Claim, Leases
from overpaint_common.live import Attempts, connect
from overpaint_common.seeds import new_attempt_id
from overpaint_worker.drain import Drain
from overpaint_worker.engine.calls import Painted
from overpaint_worker.engine.engine import Engine
from overpaint_worker.holding import Hold, Holdings
from overpaint_worker.operations.tracker import Tracker
from tests.engine.direct import call
from tests.engine.fakes import PATIENCE, GatedModel
from tests.support.stack import eventually


@pytest.fixture
def threads() -> Iterator[ThreadPoolExecutor]:
    with ThreadPoolExecutor() as pool:
        yield pool


@pytest.fixture
def holdings() -> Holdings:
    """Not started: no lease is renewed, and no Redis needed."""
    leases = Leases(connect("redis://127.0.0.1:1/0"), seconds=30, worker="here")
    return Holdings(leases, seconds=30)


@contextmanager
def held(holdings: Holdings) -> Iterator[Hold]:
    attempt = new_attempt_id()
    with holdings.hold(Claim(f"job-{attempt}", attempt, "overpaint.gated.standard", Attempts(1, 0), 0)) as hold:
        yield hold


def paint(holdings: Holdings, gated: Engine) -> Painted:
    """What a job does between its transfers."""
    with held(holdings) as hold:
        return submit(gated, hold)


def submit(gated: Engine, hold: Hold) -> Painted:
    def report(phase: str, _: int) -> None:
        hold.begun = hold.begun or phase == "denoise"

    tracker = Tracker(report, hold.stopped)
    try:
        return gated.submit(call("gated", steps=4, cancelled=hold.stopped, on_progress=tracker.track(4))).result(
            PATIENCE
        )
    except JobCancelled:
        raise hold.reason from None


def test_only_what_has_begun_is_finished(
    gated: Engine, model: GatedModel, threads: ThreadPoolExecutor, holdings: Holdings
) -> None:
    """Given one job that paints and two that wait, when the drain begins, then the two leave at once and it ends."""
    drain = Drain(gated, holdings, grace=60)
    drain.start()
    painting = threads.submit(paint, holdings, gated)
    assert model.entered.wait(PATIENCE)
    waiting = [threads.submit(paint, holdings, gated) for _ in range(2)]
    eventually(lambda: len(list(holdings)) == 3, "all in hand")

    drain.begun.set()

    for future in waiting:
        with pytest.raises(WorkerStopping):
            future.result(PATIENCE)
    assert not painting.done()
    model.gate.set()
    assert painting.result(PATIENCE).steps == 4
    assert len(model.ran) == 1


def test_what_cannot_be_finished_in_time_is_interrupted(
    gated: Engine, model: GatedModel, threads: ThreadPoolExecutor, holdings: Holdings
) -> None:
    """Given a job whose steps outlast the grace, when two thirds of it have passed, then it stops at its next step."""
    drain = Drain(gated, holdings, grace=0.3)
    drain.start()
    painting = threads.submit(paint, holdings, gated)
    assert model.entered.wait(PATIENCE)
    (begun,) = holdings

    drain.begun.set()
    assert begun.stopped.wait(PATIENCE)
    model.gate.set()

    with pytest.raises(WorkerStopping):
        painting.result(PATIENCE)


def test_a_job_that_reaches_the_engine_late_does_not_wait_for_it(
    gated: Engine, model: GatedModel, holdings: Holdings
) -> None:
    """Given a job still being fetched as the drain begins, when it reaches the engine, then it is turned away."""
    drain = Drain(gated, holdings, grace=60)
    drain.start()
    with held(holdings) as fetched:
        drain.begun.set()
        assert fetched.stopped.wait(PATIENCE)
        with pytest.raises(WorkerStopping):
            submit(gated, fetched)
    assert not model.ran


def test_a_job_that_is_taken_late_is_given_back(gated: Engine, model: GatedModel, holdings: Holdings) -> None:
    """Given a ticket that arrived as the drain began, when its job is in hand, then it is stopped at once."""
    drain = Drain(gated, holdings, grace=60)
    with held(holdings) as early:
        drain.start()
        drain.begun.set()
        assert early.stopped.wait(PATIENCE)
        with pytest.raises(WorkerStopping):
            paint(holdings, gated)
    assert not model.ran


def test_a_cancelled_job_is_not_taken_for_an_interrupted_one(gated: Engine, holdings: Holdings) -> None:
    """Given a job that somebody cancelled, when the engine turns it away, then that is the reason."""
    with held(holdings) as cancelled:
        cancelled.stopped.set()
        with pytest.raises(JobCancelled):
            submit(gated, cancelled)
