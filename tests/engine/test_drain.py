"""How a worker that was told to stop parts with its jobs."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import pytest

from overpaint_common.errors import JobCancelled, WorkerStopping
from overpaint_worker.drain import Drain
from overpaint_worker.engine.calls import Painted
from overpaint_worker.engine.engine import Engine
from overpaint_worker.in_hand import InHand
from overpaint_worker.operations.tracker import Tracker
from tests.engine.direct import call
from tests.engine.fakes import PATIENCE, GatedModel


@pytest.fixture
def threads() -> Iterator[ThreadPoolExecutor]:
    with ThreadPoolExecutor() as pool:
        yield pool


def paint(drain: Drain, gated: Engine, tracker: Tracker) -> Painted:
    """What a task does between its transfers."""
    with drain.covers(tracker):
        return gated.submit(call("gated", steps=4, cancelled=tracker.cancelled, on_progress=tracker.track(4))).result(
            PATIENCE
        )


def tracker() -> Tracker:
    return Tracker(lambda *_: None, threading.Event())


def test_only_what_has_begun_is_finished(gated: Engine, model: GatedModel, threads: ThreadPoolExecutor) -> None:
    """Given one job that paints and two that wait, when the drain begins, then the two leave at once and it ends."""
    drain = Drain(gated, grace=60)
    drain.start()
    painting = threads.submit(paint, drain, gated, tracker())
    assert model.entered.wait(PATIENCE)
    waiting = [threads.submit(paint, drain, gated, tracker()) for _ in range(2)]

    drain.begun.set()

    for future in waiting:
        with pytest.raises(WorkerStopping):
            future.result(PATIENCE)
    assert not painting.done()
    model.gate.set()
    assert painting.result(PATIENCE).steps == 4
    assert len(model.ran) == 1


def test_what_cannot_be_finished_in_time_is_interrupted(
    gated: Engine, model: GatedModel, threads: ThreadPoolExecutor
) -> None:
    """Given a job whose steps outlast the grace, when two thirds of it have passed, then it stops at its next step."""
    drain = Drain(gated, grace=0.3)
    drain.start()
    begun = tracker()
    painting = threads.submit(paint, drain, gated, begun)
    assert model.entered.wait(PATIENCE)

    drain.begun.set()
    assert begun.cancelled.wait(PATIENCE)
    model.gate.set()

    with pytest.raises(WorkerStopping):
        painting.result(PATIENCE)


def test_a_job_that_reaches_the_engine_late_does_not_wait_for_it(gated: Engine, model: GatedModel) -> None:
    """Given a job still being fetched as the drain begins, when it reaches the engine, then it is turned away."""
    drain = Drain(gated, grace=60)
    drain.start()
    fetched = tracker()
    with drain.covers(tracker()), drain.covers(fetched):
        drain.begun.set()
        assert fetched.cancelled.wait(PATIENCE)
    with pytest.raises(WorkerStopping):
        paint(drain, gated, fetched)
    assert not model.ran


def test_a_cancelled_job_is_not_taken_for_an_interrupted_one(gated: Engine) -> None:
    drain, cancelled = Drain(gated, grace=60), tracker()
    cancelled.cancelled.set()
    with pytest.raises(JobCancelled):
        paint(drain, gated, cancelled)


def test_a_job_is_in_hand_once() -> None:
    """Given two tickets of one job, when both are taken, then the second has to go until the first is done."""
    in_hand = InHand()
    with in_hand.claim("job-1234") as first, in_hand.claim("job-5678") as other:
        with in_hand.claim("job-1234") as second:
            assert (first, other, second) == (True, True, False)
        with in_hand.claim("job-1234") as third:
            assert not third
    with in_hand.claim("job-1234") as again:
        assert again
