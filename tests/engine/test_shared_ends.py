"""How calls end that run beside each other as a whole, and what each counts as its own."""

from __future__ import annotations

import gc
import threading
import weakref
from concurrent.futures import Future
from types import SimpleNamespace

import pytest
import torch

from overpaint_common.errors import DeviceOutOfMemory, EngineDied, JobCancelled, PipelineFailed
from overpaint_common.job import Priority
from overpaint_worker.engine.calls import Call, Painted
from tests.engine.direct import call, noise_picture
from tests.engine.fakes import PATIENCE, Deaths, GatedModel, Start, Story, kill


@pytest.mark.parametrize(
    ("raised", "expected"),
    [
        (ValueError("shapes differ"), PipelineFailed),
        (torch.OutOfMemoryError("CUDA out of memory."), DeviceOutOfMemory),
        (None, JobCancelled),
    ],
)
def test_a_call_that_does_not_end_well_ends_alone(
    model: GatedModel, story: Story, raised: Exception | None, expected: type[Exception]
) -> None:
    model.gate.set()
    urgent = call("gated", prompt="urgent", priority="interactive", steps=9)
    ended: list[Future[Painted]] = []
    story.when["bulk 1"] = lambda: ended.append(story.run(urgent))

    def trouble(running: Call) -> None:
        if running is urgent:
            urgent.cancelled.set()
            if raised is not None:
                raise raised

    model.before_step = trouble

    assert story.submit("bulk", "bulk").result(PATIENCE).steps == 2
    assert type(ended[0].exception(0)) is expected
    assert story.told == ["bulk 0", "bulk 1", "urgent done", "bulk 2", "bulk done"]


def test_a_call_cancelled_before_it_began_holds_up_no_other(model: GatedModel, story: Story) -> None:
    model.gate.set()
    gone = call("gated", prompt="gone", priority="interactive")

    def arrive() -> None:
        story.run(gone)
        gone.cancelled.set()
        story.submit("urgent", "interactive")

    story.when["bulk 1"] = arrive
    story.submit("bulk", "bulk").result(PATIENCE)

    assert story.told.index("urgent done") < story.told.index("bulk 2")
    assert "gone" not in model.ran


def test_a_call_cancelled_while_another_has_its_turn_leaves_at_once(model: GatedModel, story: Story) -> None:
    model.gate.set()
    bulk = call("gated", prompt="bulk", priority="bulk", on_progress=story.tells("bulk"))
    story.when["bulk 1"] = lambda: story.submit("urgent", "interactive")
    story.when["urgent 1"] = bulk.cancelled.set

    with pytest.raises(JobCancelled, match="cancelled at step 1"):
        story.run(bulk).result(PATIENCE)

    story.submit("last", "bulk", steps=1).result(PATIENCE)
    assert story.told[:6] == ["bulk 0", "bulk 1", "urgent 0", "urgent 1", "bulk done", "urgent 2"]


def test_a_call_cancelled_in_its_own_step_ends_with_it(model: GatedModel, story: Story) -> None:
    """Given a bulk call cancelled in the very step at which an interactive one comes, then it does not wait."""
    model.gate.set()
    bulk = call("gated", prompt="bulk", priority="bulk", on_progress=story.tells("bulk"))

    def arrive() -> None:
        story.submit("urgent", "interactive")
        bulk.cancelled.set()

    story.when["bulk 1"] = arrive

    assert isinstance(story.run(bulk).exception(PATIENCE), JobCancelled)
    assert story.told[:3] == ["bulk 0", "bulk 1", "bulk done"]


@pytest.mark.parametrize("how", ["poisoned device", "killed thread"])
def test_an_engine_that_dies_in_one_call_ends_every_call(
    model: GatedModel, deaths: Deaths, start: Start, how: str
) -> None:
    story = Story(start())
    model.gate.set()
    futures: list[Future[Painted]] = []

    def arrive() -> None:
        futures.extend([story.submit("urgent", "interactive"), story.submit("waiting", "bulk")])

    def die(running: Call) -> None:
        if running.prompt == "urgent":
            if how == "killed thread":
                kill(story.engine)
            else:
                raise torch.AcceleratorError("CUDA error: an illegal memory access was encountered")

    story.when["bulk 1"] = arrive
    model.before_step = die
    bulk = story.submit("bulk", "bulk")

    assert isinstance(bulk.exception(PATIENCE), EngineDied)
    assert deaths.happened.wait(PATIENCE)
    assert [type(future.exception(PATIENCE)) for future in futures] == [EngineDied, EngineDied]
    assert len(deaths.reasons) == 1
    assert "bulk 2" not in story.told


def test_a_call_that_hangs_ends_every_call_and_no_step_follows(model: GatedModel, deaths: Deaths, start: Start) -> None:
    story = Story(start(step=0.2))
    model.gate.set()
    urgent: list[Future[Painted]] = []
    story.when["bulk 1"] = lambda: urgent.append(story.submit("urgent", "interactive"))
    story.when["urgent 0"] = model.gate.clear
    bulk = story.submit("bulk", "bulk")

    assert isinstance(bulk.exception(PATIENCE), EngineDied)
    assert isinstance(urgent[0].exception(PATIENCE), EngineDied)
    assert deaths.happened.wait(PATIENCE)
    model.gate.set()
    story.engine._thread.join(PATIENCE)

    assert deaths.reasons == ["phase 'denoise' took longer than 0.2 s"]
    assert [moment for moment in story.told if not moment.endswith("done")] == [
        *("bulk 0", "bulk 1", "urgent 0", "urgent 1"),
    ]


def test_stop_finishes_all_that_have_begun_and_lets_no_other_in(model: GatedModel, start: Start) -> None:
    story = Story(start())
    model.gate.set()
    stopping = threading.Thread(target=story.engine.stop)
    urgent: list[Future[Painted]] = []

    def stop() -> None:
        urgent.append(story.submit("late", "interactive"))
        stopping.start()
        while not story.engine._stopping:
            threading.Event().wait(0.001)

    story.when["bulk 1"] = lambda: urgent.append(story.submit("urgent", "interactive"))
    story.when["urgent 1"] = stop
    bulk = story.submit("bulk", "bulk")

    assert bulk.result(PATIENCE).steps == 2
    stopping.join(PATIENCE)
    assert urgent[0].result(0).steps == 2
    assert isinstance(urgent[1].exception(0), EngineDied)
    assert story.engine.dead == "stopped"


def test_the_seconds_of_each_call_are_its_own(model: GatedModel, clock: SimpleNamespace, start: Start) -> None:
    """Given steps of 1, 10 and 100 s, when calls take turns, then each counts only its own."""
    story = Story(start(step=1e9))
    model.gate.set()
    seconds = {"bulk": 1, "standard": 10, "urgent": 100, "urgent2": 100}
    futures: dict[str, Future[Painted]] = {}

    def pass_time(running: Call) -> None:
        clock.now += seconds[running.prompt]

    def submit(name: str, priority: Priority) -> None:
        futures[name] = story.submit(name, priority)

    model.before_step = pass_time
    story.when["bulk 1"] = lambda: submit("standard", "standard")
    story.when["standard 1"] = lambda: submit("urgent", "interactive")
    story.when["bulk 2"] = lambda: submit("urgent2", "interactive")
    submit("bulk", "bulk")
    futures["bulk"].result(PATIENCE)

    assert {name: future.result(0).seconds for name, future in futures.items()} == {
        name: pytest.approx(2 * each) for name, each in seconds.items()
    }


def test_each_step_is_timed_from_the_end_of_the_one_before(
    model: GatedModel, clock: SimpleNamespace, start: Start
) -> None:
    """Given another call's end and a step, each within the limit and not together, then the engine lives."""
    story = Story(start(step=0.04))
    model.gate.set()

    def be_long(running: Call) -> None:
        if running.prompt == "bulk" and "urgent done" in story.told:
            clock.now += 0.03
            # Several times the pause between two looks of the watch.
            threading.Event().wait(0.1)

    def take_long() -> None:
        clock.now += 0.03

    model.before_step = be_long
    story.when["bulk 1"] = lambda: story.submit("urgent", "interactive", steps=1)
    story.when["urgent done"] = take_long

    assert story.submit("bulk", "bulk").result(PATIENCE).steps == 2
    assert story.engine.dead is None


def test_nothing_is_kept_of_a_call_that_ended_while_others_run(model: GatedModel, story: Story) -> None:
    model.gate.set()
    kept: list[bool] = []
    pictures: list[weakref.ref[object]] = []

    def arrive() -> None:
        given = call("gated", noise_picture(16, 16), prompt="urgent", priority="interactive")
        pictures.append(weakref.ref(given.picture))
        story.engine.submit(given)

    def look() -> None:
        gc.collect()
        kept.append(pictures[0]() is not None)

    story.when["bulk 1"] = arrive
    story.when["bulk 2"] = look
    story.submit("bulk", "bulk").result(PATIENCE)

    assert model.ran == ["bulk", "urgent"]
    assert kept == [False]
