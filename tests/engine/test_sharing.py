"""Calls that run as a whole share the device step by step: which one gets on, and how much of the time is whose."""

from __future__ import annotations

import threading
from concurrent.futures import Future
from types import SimpleNamespace

import pytest

from overpaint_common.job import PRIORITIES, Priority
from overpaint_worker.engine.calls import Painted
from overpaint_worker.engine.policy import AGEING
from tests.engine.fakes import PATIENCE, GatedModel, Story


@pytest.fixture
def model(clock: SimpleNamespace, model: GatedModel) -> GatedModel:
    """Each step takes a second."""

    def pass_time(_: object) -> None:
        clock.now += 1

    model.before_step = pass_time
    return model


def test_an_interactive_call_starts_at_the_next_step_of_a_bulk_call(model: GatedModel, story: Story) -> None:
    """Given a bulk call in its first step with bulk behind it, when an interactive one comes, then it is next."""
    bulk = story.submit("bulk", "bulk", steps=3)
    assert model.entered.wait(PATIENCE)
    waiting = [story.submit(f"waiting{n}", "bulk", steps=1) for n in range(20)]
    urgent = story.submit("urgent", "interactive")
    model.gate.set()

    assert [future.result(PATIENCE).steps for future in (urgent, bulk)] == [2, 3]
    assert story.told[:8] == [
        *("bulk 0", "bulk 1"),
        *("urgent 0", "urgent 1", "urgent 2", "urgent done"),
        *("bulk 2", "bulk 3"),
    ]
    assert all(future.result(PATIENCE).steps == 1 for future in waiting)


def test_the_more_urgent_goes_first_as_deep_as_there_are_priorities(model: GatedModel, story: Story) -> None:
    model.gate.set()
    story.when["bulk 1"] = lambda: story.submit("standard", "standard")
    story.when["standard 1"] = lambda: story.submit("urgent", "interactive")

    story.submit("bulk", "bulk").result(PATIENCE)

    assert story.told == [
        *("bulk 0", "bulk 1", "standard 0", "standard 1", "urgent 0", "urgent 1", "urgent 2", "urgent done"),
        *("standard 2", "standard done", "bulk 2", "bulk done"),
    ]


@pytest.mark.parametrize(
    ("less", "more", "weight"),
    [("bulk", "standard", AGEING), ("standard", "interactive", AGEING), ("bulk", "interactive", AGEING**2)],
)
def test_less_urgent_calls_get_on_beside_urgent_ones_without_end(
    model: GatedModel, story: Story, less: Priority, more: Priority, weight: int
) -> None:
    """Given that each more urgent call that ends brings another, then a less urgent one still has its share of steps,
    which is as much smaller as their weights differ.
    """
    over = threading.Event()

    def another(_: object = None) -> None:
        if not over.is_set():
            story.submit("more", more, steps=3).add_done_callback(another)

    story.submit("less", less, steps=5).add_done_callback(lambda _: over.set())
    assert model.entered.wait(PATIENCE)
    another()
    # One is always there.
    another()
    model.gate.set()
    assert over.wait(PATIENCE)

    # The first step was there before all others.
    told = story.told[story.told.index("less 2") : story.told.index("less 5")]
    assert abs(sum(moment in ("more 1", "more 2", "more 3") for moment in told) - 3 * weight) <= 3


@pytest.mark.parametrize("priority", PRIORITIES)
def test_equals_run_one_after_another(model: GatedModel, story: Story, priority: Priority) -> None:
    model.gate.set()
    others: list[Future[Painted]] = []
    story.when["running 1"] = lambda: others.append(story.submit("waiting", priority))

    story.submit("running", priority).result(PATIENCE)
    others[0].result(PATIENCE)

    assert story.told == [
        *("running 0", "running 1", "running 2", "running done"),
        *("waiting 0", "waiting 1", "waiting 2", "waiting done"),
    ]


@pytest.mark.parametrize(("running", "waiting"), [("standard", "bulk"), ("interactive", "standard")])
def test_what_is_less_urgent_waits_for_its_share(
    model: GatedModel, story: Story, running: Priority, waiting: Priority
) -> None:
    """Given a call of few steps, when a less urgent one comes, then that begins when the first has ended."""
    model.gate.set()
    others: list[Future[Painted]] = []
    story.when["running 1"] = lambda: others.append(story.submit("waiting", waiting))

    story.submit("running", running).result(PATIENCE)
    others[0].result(PATIENCE)

    assert story.told[:4] == ["running 0", "running 1", "running 2", "running done"]
