"""Calls that share forwards: when they join and leave, what they cost, and that none takes another along."""

from __future__ import annotations

import gc
import logging
import threading
import weakref
from collections.abc import Iterator
from concurrent.futures import Future
from functools import partial
from types import SimpleNamespace
from typing import Any, NamedTuple

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from overpaint_common.errors import DeviceOutOfMemory, EngineDied, JobCancelled, PipelineFailed
from overpaint_common.job import PRIORITIES
from overpaint_worker.engine.calls import Painted
from overpaint_worker.engine.engine import Engine
from tests.engine.direct import call, noise_picture
from tests.engine.fakes import PATIENCE, Deaths, SteppedModel
from tests.support.stack import eventually

SIZE, OTHER_SIZE = (4, 4), (4, 8)
OUT_OF_MEMORY = torch.OutOfMemoryError("CUDA out of memory.")


class Stage:
    """An engine on a model whose every forward takes a second, and what is done to it."""

    def __init__(self, clock: SimpleNamespace, deaths: Deaths) -> None:
        self.model = SteppedModel()
        self.clock = clock
        self.engine = Engine(lambda _: self.model, on_death=deaths)
        self.calls: dict[str, Future[Painted]] = {}
        self.cancelled: dict[str, threading.Event] = {}
        self.told: dict[str, list[int]] = {}
        self.wrong: dict[str, Exception] = {}
        """What a forward raises in which such a call is."""
        self.largest = 1000
        """Calls of a forward that the device has memory for."""
        self.model.before_forward = self._pass

    def submit(self, *names: str, size: tuple[int, int] = SIZE, **changes: Any) -> None:
        for name in names:
            told = self.told.setdefault(name, [])
            asked = call(
                *("stepped", noise_picture(*size)),
                prompt=name,
                seed=ord(name),
                on_progress=partial(_tell, told),
                **changes,
            )
            self.cancelled[name] = asked.cancelled
            self.calls[name] = self.engine.submit(asked)

    def __getitem__(self, name: str) -> Painted:
        """What a call painted."""
        return self.calls[name].result(PATIENCE)

    def error(self, name: str) -> BaseException | None:
        return self.calls[name].exception(PATIENCE)

    @property
    def forwards(self) -> list[str]:
        return ["".join(prompts) for prompts in self.model.forwards]

    def _pass(self, prompts: list[str]) -> None:
        self.clock.now += 1
        for error in [self.wrong[name] for name in prompts if name in self.wrong]:
            raise error.with_traceback(None)
        if len(prompts) > self.largest:
            raise OUT_OF_MEMORY


def _tell(told: list[int], phase: str, steps: int) -> None:
    if phase == "denoise":
        told.append(steps)


def alone(name: str, *, size: tuple[int, int] = SIZE, **changes: Any) -> NDArray[np.float32]:
    """What a call paints that nothing runs beside."""
    asked = call("stepped", noise_picture(*size), prompt=name, seed=ord(name), **changes)
    return SteppedModel().run(asked, lambda _: None).pixels


@pytest.fixture
def stage(clock: SimpleNamespace, deaths: Deaths) -> Iterator[Stage]:
    """Not started yet, so that what is submitted begins together."""
    stage = Stage(clock, deaths)
    yield stage
    stage.engine.stop()


def test_calls_of_other_steps_and_guidance_share_forwards(stage: Stage) -> None:
    stage.submit("a", steps=4)
    stage.submit("b", steps=1)
    stage.submit("c", steps=3, guidance_scale=1.0)
    stage.engine.start()

    # The first begins before the others are taken in.
    assert [stage[name].steps for name in "abc"] == [4, 1, 3]
    assert stage.forwards == ["a", "abc", "ac", "ac"]
    assert np.array_equal(stage["a"].pixels, alone("a", steps=4))
    assert np.array_equal(stage["c"].pixels, alone("c", steps=3, guidance_scale=1.0))


def test_a_call_joins_at_the_next_forward(stage: Stage) -> None:
    stage.model.when[2] = lambda: stage.submit("b", steps=2)
    stage.submit("a", steps=5)
    stage.engine.start()

    assert stage["a"].steps == 5
    assert stage.forwards == ["a", "a", "ab", "ab", "a"]
    assert stage.told == {"a": [0, 1, 2, 3, 4, 5], "b": [0, 1, 2]}
    assert np.array_equal(stage["b"].pixels, alone("b", steps=2))


def test_what_differs_in_shape_shares_no_forward_and_takes_turns(stage: Stage) -> None:
    stage.submit("a", "b", steps=3)
    stage.submit("x", "y", size=OTHER_SIZE, steps=3)
    stage.engine.start()

    assert [stage[name].steps for name in "abxy"] == [3, 3, 3, 3]
    # Who began a second earlier is one ahead.
    assert stage.forwards == ["a", "x", "ab", "xy", "ab", "xy", "b", "y"]


def test_reproducible_calls_have_forwards_of_their_own(stage: Stage) -> None:
    stage.submit("a", "b", steps=2)
    stage.submit("r", "s", reproducible=True, steps=2)
    stage.engine.start()

    assert [stage[name].rows for name in "abrs"] == [4, 4, 2, 2]
    assert [forward for forward in stage.forwards if set(forward) & set("rs")] == ["r", "r", "s", "s"]


def test_the_rows_and_the_seconds_of_each_call_are_its_own(stage: Stage) -> None:
    """Given a guided call of two rows and an unguided one, when they share forwards of a second, then each has its
    share of it by rows, and the engine's count is that of all forwards.
    """
    stage.submit("a", steps=4)
    stage.submit("b", steps=2, guidance_scale=1.0)
    stage.engine.start()

    assert [stage[name].rows for name in "ab"] == [3, 3]
    assert stage["a"].seconds == pytest.approx(2 + 2 * 2 / 3)
    assert stage["b"].seconds == pytest.approx(2 * 1 / 3)
    assert stage.forwards == ["a", "ab", "ab", "a"]
    eventually(lambda: stage.engine.statistics().busy >= 4, "the last step is counted")
    told = stage.engine.statistics()
    assert (told.forwards, told.rows, told.padded) == (4, 2 + 3 + 3 + 2, 2)
    assert told.busy == pytest.approx(4)


def test_a_call_that_is_cancelled_in_a_forward_leaves_the_next(stage: Stage) -> None:
    stage.submit("a", "b", steps=4)
    stage.model.when[3] = lambda: stage.cancelled["b"].set()
    stage.engine.start()

    assert isinstance(stage.error("b"), JobCancelled)
    assert str(stage.error("b")) == "cancelled at step 2"
    assert stage["a"].steps == 4
    assert stage.forwards == ["a", "ab", "ab", "a"]
    assert stage.engine.statistics().rows == 2 + 4 + 4 + 2
    assert np.array_equal(stage["a"].pixels, alone("a", steps=4))


def test_a_call_that_is_cancelled_while_it_waits_for_its_turn_has_none(stage: Stage) -> None:
    stage.submit("a", steps=4)
    stage.submit("x", size=OTHER_SIZE, steps=4)
    stage.model.when[3] = lambda: stage.cancelled["x"].set()
    stage.engine.start()

    assert stage["a"].steps == 4
    assert isinstance(stage.error("x"), JobCancelled)
    assert stage.forwards == ["a", "x", "a", "a", "a"]


def test_a_forward_without_memory_is_halved_until_it_fits(stage: Stage) -> None:
    """Given eight calls on a device that has memory for two, then each paints what it paints alone."""
    stage.largest = 2
    stage.submit(*"abcdefgh", steps=2)
    stage.engine.start()

    assert all(np.array_equal(stage[name].pixels, alone(name, steps=2)) for name in "abcdefgh")
    assert [len(forward) for forward in stage.forwards[:4]] == [1, 8, 4, 2]
    # Of those that did not fail, two calls of two rows.
    assert {stage[name].rows for name in "abcdefgh"} == {4}


def test_what_a_group_learnt_of_memory_holds_for_later_calls(stage: Stage) -> None:
    stage.largest = 2
    stage.submit(*"abcd", steps=2)
    stage.engine.start()
    assert all(stage[name].steps == 2 for name in "abcd")
    before = len(stage.forwards)
    stage.model.when[before + 1] = lambda: stage.submit(*"fghi", steps=1)
    stage.submit("e", steps=3)

    assert all(stage[name].steps for name in "efghi")
    assert max(map(len, stage.forwards[before:])) == 2


def test_a_call_that_has_no_memory_even_alone_fails_alone(stage: Stage) -> None:
    stage.wrong["b"] = OUT_OF_MEMORY
    stage.submit(*"abc", steps=3)
    stage.engine.start()

    assert isinstance(stage.error("b"), DeviceOutOfMemory)
    assert all(np.array_equal(stage[name].pixels, alone(name, steps=3)) for name in "ac")


def test_a_call_that_makes_forwards_fail_fails_alone(stage: Stage) -> None:
    """Given a call whose forwards raise, when others share one with it, then theirs is computed once more."""
    stage.wrong["b"] = ValueError("shapes differ")
    stage.submit(*"abc", steps=3)
    stage.engine.start()

    assert isinstance(stage.error("b"), PipelineFailed)
    assert "shapes differ" in str(stage.error("b"))
    assert all(np.array_equal(stage[name].pixels, alone(name, steps=3)) for name in "ac")
    assert stage.forwards == ["a", "abc", "a", "b", "c", "ac", "c"]
    # Those that failed computed nothing.
    assert stage.engine.statistics().forwards == 5


def test_a_call_whose_own_code_fails_leaves_its_neighbours(stage: Stage) -> None:
    stage.submit("a", steps=3)
    broken = call("stepped", noise_picture(*SIZE), prompt="b", on_progress=lambda _, steps: 1 // (2 - steps))
    stage.calls["b"] = stage.engine.submit(broken)
    stage.engine.start()

    assert isinstance(stage.error("b"), PipelineFailed)
    assert np.array_equal(stage["a"].pixels, alone("a", steps=3))


def test_a_forward_that_poisons_the_device_ends_every_call(stage: Stage, deaths: Deaths) -> None:
    stage.wrong["b"] = torch.AcceleratorError("CUDA error: an illegal memory access was encountered")
    stage.submit(*"abc")
    stage.submit("x", size=OTHER_SIZE)
    stage.engine.start()

    assert [type(stage.error(name)) for name in "abcx"] == [EngineDied] * 4
    assert deaths.happened.wait(PATIENCE)
    assert len(deaths.reasons) == 1
    assert "illegal memory access" in deaths.reasons[0]
    assert stage.forwards[-1] == "abc"


def test_stop_finishes_what_has_begun_and_refuses_the_rest(stage: Stage) -> None:
    """Given calls that share forwards, one that was taken in and has not begun, and one that waits, when the engine
    stops, then the first two end well and the others with EngineDied.
    """
    stopping = threading.Thread(target=stage.engine.stop)

    def stop() -> None:
        stage.submit("w")
        stopping.start()
        while not stage.engine._stopping:
            threading.Event().wait(0.001)

    stage.submit("a", "b", priority="interactive", steps=4)
    stage.submit("x", size=OTHER_SIZE, priority="bulk", steps=4)
    stage.model.when[3] = stop
    stage.engine.start()

    assert [stage[name].steps for name in "ab"] == [4, 4]
    assert [type(stage.error(name)) for name in "xw"] == [EngineDied, EngineDied]
    stopping.join(PATIENCE)
    assert stage.forwards == ["a", "ab", "ab", "ab", "b"]
    assert stage.told["x"] == []


def test_a_drained_engine_keeps_no_picture(stage: Stage, monkeypatch: pytest.MonkeyPatch) -> None:
    """Given calls that end well, fail or are cancelled, when the engine is idle, then it holds nothing of them."""
    # Log records hold errors, and those the frames that they came through; pytest keeps records.
    for name in ("failures", "loop"):
        monkeypatch.setattr(logging.getLogger(f"overpaint_worker.engine.{name}"), "disabled", True)
    pictures = []
    stage.wrong["b"] = ValueError("no")
    for name in "abc":
        picture = noise_picture(*SIZE)
        pictures.append(weakref.ref(picture))
        asked = call("stepped", picture, prompt=name, steps=3)
        stage.cancelled[name] = asked.cancelled
        stage.calls[name] = stage.engine.submit(asked)
    stage.model.when[4] = stage.cancelled["c"].set
    del picture, asked
    stage.engine.start()
    pixels = weakref.ref(stage["a"].pixels)
    ends = [type(stage.error(name)) for name in "bc"]
    stage.calls.clear()
    stage.wrong.clear()
    eventually(lambda: stage.engine._moment[0] == "idle", "it is idle")
    gc.collect()

    assert ends == [PipelineFailed, JobCancelled]
    assert [picture() for picture in pictures] == [None] * 3
    assert pixels() is None


class Plan(NamedTuple):
    """What happens to a call."""

    joins: int
    """At that forward, or when there is no more."""
    cancelled: int | None
    fails: bool
    changes: dict[str, Any]


PLANS = st.builds(
    Plan,
    joins=st.integers(0, 12),
    cancelled=st.none() | st.integers(1, 20),
    fails=st.sampled_from([False, False, False, True]),
    changes=st.fixed_dictionaries(
        {
            "size": st.sampled_from([SIZE, OTHER_SIZE]),
            "priority": st.sampled_from(PRIORITIES),
            "steps": st.integers(1, 6),
            "guidance_scale": st.sampled_from([1.0, 4.0]),
            "reproducible": st.booleans(),
        }
    ),
)


@settings(deadline=None, max_examples=40, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(plans=st.lists(PLANS, min_size=1, max_size=8), largest=st.integers(1, 8))
def test_whatever_comes_and_goes_each_call_ends_as_it_would_alone(
    clock: SimpleNamespace, plans: list[Plan], largest: int
) -> None:
    """Given calls that join, are cancelled or fail at any time, on a device with little memory, then each other one
    paints what it paints alone, and none waits for ever.
    """
    stage = Stage(clock, Deaths())
    stage.largest = largest
    named = dict(zip("abcdefgh", plans, strict=False))
    stage.wrong = {name: ValueError("no") for name, plan in named.items() if plan.fails}

    one_at_a_time = threading.Lock()

    def happen(number: int) -> None:
        with one_at_a_time:
            for name, plan in named.items():
                if plan.joins <= number and name not in stage.calls:
                    stage.submit(name, **plan.changes)
                if plan.cancelled == number and name in stage.calls:
                    stage.cancelled[name].set()

    stage.model.when = {number: partial(happen, number) for number in range(1, 200)}
    happen(0)
    stage.engine.start()
    for name, plan in named.items():
        if name not in stage.calls:
            happen(plan.joins)
        error = stage.error(name)
        if plan.fails:
            assert isinstance(error, PipelineFailed | JobCancelled)
        elif plan.cancelled is None or error is None:
            assert np.array_equal(stage[name].pixels, alone(name, **plan.changes))
            assert stage[name].steps == plan.changes["steps"]
        else:
            assert isinstance(error, JobCancelled)
    stage.engine.stop()
    assert stage.engine.dead == "stopped"
