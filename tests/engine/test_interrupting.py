"""A more urgent call runs within the running one, at its next step: which one, when and how often."""

from __future__ import annotations

import threading
from concurrent.futures import Future

import pytest

from overpaint_common.job import Priority
from overpaint_worker.engine.calls import Painted
from overpaint_worker.engine.policy import AGEING
from tests.engine.fakes import PATIENCE, GatedModel, Start, Story


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


def test_an_interrupted_call_makes_a_step_between_any_two(model: GatedModel, story: Story) -> None:
    """Given more interactive calls than a bulk call has steps, then one runs at each and the bulk call ends."""
    model.gate.set()
    story.when["bulk 1"] = lambda: [story.submit(f"urgent{n}", "interactive", steps=1) for n in range(4)]

    assert story.submit("bulk", "bulk", steps=3).result(PATIENCE).steps == 3
    story.submit("last", "bulk").result(PATIENCE)

    ends = [moment for moment in story.told if moment.startswith("bulk") or moment.endswith("done")]
    assert ends == [
        *("bulk 0", "bulk 1", "urgent0 done", "bulk 2", "urgent1 done", "bulk 3", "urgent2 done", "bulk done"),
        *("urgent3 done", "last done"),
    ]


def test_bulk_gets_on_beside_interactive_work_without_end(model: GatedModel, story: Story) -> None:
    """Given that each interactive call that ends brings another, when two bulk calls wait, then both end."""
    numbers = iter(range(1000))
    over = threading.Event()

    def another() -> None:
        if not over.is_set():
            name = f"urgent{next(numbers)}"
            story.when[f"{name} 0"] = another
            story.submit(name, "interactive", steps=1)

    story.submit("running", "interactive", steps=1)
    assert model.entered.wait(PATIENCE)
    another()
    bulk = [story.submit(f"bulk{n}", "bulk", steps=3) for n in range(2)]
    model.gate.set()

    assert [future.result(PATIENCE).steps for future in bulk] == [3, 3]
    over.set()
    done = [moment.removesuffix(" done") for moment in story.told if moment.endswith("done")]
    # The first waits for its turn; interruptions of the first, one a step, count as the second's wait.
    assert done.index("bulk0") <= 2 + AGEING + 3
    assert done.index("bulk1") - done.index("bulk0") <= 1 + AGEING + 3


def test_interrupting_goes_as_deep_as_there_are_priorities(model: GatedModel, story: Story) -> None:
    model.gate.set()
    story.when["bulk 1"] = lambda: story.submit("standard", "standard")
    story.when["standard 1"] = lambda: story.submit("urgent", "interactive")

    story.submit("bulk", "bulk").result(PATIENCE)

    assert story.told == [
        *("bulk 0", "bulk 1", "standard 0", "standard 1", "urgent 0", "urgent 1", "urgent 2", "urgent done"),
        *("standard 2", "standard done", "bulk 2", "bulk done"),
    ]


@pytest.mark.parametrize(("running", "waiting"), [("bulk", "bulk"), ("standard", "bulk"), ("interactive", "standard")])
def test_what_is_not_more_urgent_waits_for_the_end(
    model: GatedModel, story: Story, running: Priority, waiting: Priority
) -> None:
    model.gate.set()
    others: list[Future[Painted]] = []
    story.when["running 1"] = lambda: others.append(story.submit("waiting", waiting))

    story.submit("running", running).result(PATIENCE)
    others[0].result(PATIENCE)

    assert story.told[:4] == ["running 0", "running 1", "running 2", "running done"]


def test_a_call_for_another_model_waits_for_the_end_and_holds_up_no_other(model: GatedModel, start: Start) -> None:
    """Given a running bulk call, when interactive ones come for another model and for its own, then its own gets in."""
    model.gate.set()
    loaded: list[str] = []

    def load(name: str) -> GatedModel:
        loaded.append(name)
        return model

    story = Story(start(load))
    futures: list[Future[Painted]] = []

    def arrive() -> None:
        futures.append(story.submit("other", "interactive", model="other"))
        futures.append(story.submit("urgent", "interactive"))

    story.when["bulk 1"] = arrive
    futures.append(story.submit("bulk", "bulk"))
    futures[0].result(PATIENCE)
    for future in list(futures):
        future.result(PATIENCE)

    assert [moment for moment in story.told if moment.endswith("done")] == ["urgent done", "bulk done", "other done"]
    assert loaded == ["gated", "other"]
