"""Which models are loaded, which of them leave for another, and when the engine changes over."""

from __future__ import annotations

import gc
import weakref
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from types import SimpleNamespace
from typing import Any

import pytest

from overpaint_common.errors import JobCancelled, ModelLoadFailed
from overpaint_worker.engine.calls import Model, Painted
from overpaint_worker.engine.engine import SWITCH_PATIENCE, Engine
from overpaint_worker.engine.residents import Budget, Residents
from tests.engine.direct import call, noise_picture
from tests.engine.fakes import PATIENCE, SteppedModel
from tests.support.stack import eventually

NOBODY: frozenset[str] = frozenset()


class Shelf:
    """Loads models of so many bytes."""

    def __init__(self, **sizes: int) -> None:
        self.sizes = sizes
        self.loaded: list[str] = []
        self.grown = 0
        """Bytes that loaded models take besides."""

    def __call__(self, name: str) -> Model:
        if name not in self.sizes:
            raise ModelLoadFailed(f"no {name}")
        self.loaded.append(name)
        return SteppedModel(name)

    def budget(self, total: int) -> Budget:
        return Budget(total, self.sizes.get, lambda model: self.sizes[model.info.name] + self.grown)


def names(residents: Residents) -> list[str]:
    return [model.info.name for model in residents]


def filled(shelf: Shelf, total: int, *loaded: str) -> Residents:
    residents = Residents(shelf, shelf.budget(total))
    for name in loaded:
        residents.load(name, NOBODY)
    return residents


def test_without_a_budget_there_is_one_model_at_a_time() -> None:
    residents = Residents(Shelf(a=1, b=1))
    residents.load("a", NOBODY)
    residents.load("b", NOBODY)

    assert names(residents) == ["b"]
    assert "a" not in residents


def test_models_stay_as_long_as_they_fit() -> None:
    assert names(filled(Shelf(a=4, b=3, c=3), 10, "a", "b", "c")) == ["a", "b", "c"]


def test_the_least_recently_used_leaves_first_and_no_more_than_must() -> None:
    residents = filled(Shelf(a=4, b=3, c=3, d=3), 10, "a", "b", "c")
    residents.use("a")
    residents.load("d", NOBODY)

    assert names(residents) == ["c", "a", "d"]


def test_what_is_busy_stays_and_others_leave_for_it() -> None:
    residents = filled(Shelf(a=4, b=3, c=3, d=5), 10, "a", "b", "c")

    assert residents.has_room("d", {"a"})
    residents.load("d", {"a"})

    assert names(residents) == ["a", "d"]


def test_there_is_no_room_beside_what_is_busy_and_too_large() -> None:
    residents = filled(Shelf(a=4, b=3, c=7), 10, "a", "b")

    assert not residents.has_room("c", {"a", "b"})
    assert not residents.has_room("c", {"a"})
    assert residents.has_room("c", {"b"})
    assert residents.has_room("a", {"a", "b"})


def test_a_model_that_fits_nowhere_is_loaded_by_itself() -> None:
    residents = filled(Shelf(a=4, b=100), 10, "a")

    assert not residents.has_room("b", {"a"})
    residents.load("b", NOBODY)
    assert names(residents) == ["b"]


def test_a_model_of_unknown_size_is_loaded_by_itself() -> None:
    shelf = Shelf(a=1, b=1)
    residents = Residents(shelf, Budget(10, {"a": 1}.get, lambda _: 1))
    residents.load("a", NOBODY)

    assert not residents.has_room("b", {"a"})
    residents.load("b", NOBODY)
    assert names(residents) == ["b"]


def test_models_that_become_larger_than_was_foretold_make_room_afterwards() -> None:
    shelf = Shelf(a=3, b=3, c=3)
    residents = filled(shelf, 10, "a", "b")
    shelf.grown = 1
    residents.load("c", {"a"})

    assert names(residents) == ["a", "c"]


def test_a_model_that_leaves_is_freed_before_another_is_loaded() -> None:
    alive: weakref.WeakSet[Model] = weakref.WeakSet()
    seen: list[int] = []

    def load(name: str) -> Model:
        seen.append(len(alive))
        model = SteppedModel(name)
        # As pipelines do, it refers to itself.
        model.when[1] = model.when.clear
        alive.add(model)
        return model

    residents = Residents(load)
    gc.disable()
    try:
        residents.load("a", NOBODY)
        residents.load("b", NOBODY)
    finally:
        gc.enable()

    assert seen == [0, 0]


def test_a_load_that_fails_takes_no_room() -> None:
    shelf = Shelf(a=4)
    residents = filled(shelf, 4, "a")

    with pytest.raises(ModelLoadFailed):
        residents.load("missing", NOBODY)
    residents.load("a", NOBODY)

    assert names(residents) == ["a"]
    assert shelf.loaded == ["a", "a"]


# Changing over

LOADING = 10
"""Seconds that loading a model takes; a forward takes one."""


class Stage:
    """An engine that changes between models, and what it did second by second."""

    def __init__(self, clock: SimpleNamespace, budget: Callable[[Shelf], Budget] | None = None) -> None:
        self.shelf = Shelf(a=5, b=5, c=5)
        self.clock = clock
        self.engine = Engine(self._load, budget=budget(self.shelf) if budget is not None else None)
        self.forwards: list[str] = []
        """The calls of each."""
        self.when: dict[int, Callable[[], object]] = {}
        """What the test does at the beginning of a forward, of the first as 1, on the engine's thread."""

    def submit(self, model: str, name: str, **changes: Any) -> Future[Painted]:
        return self.engine.submit(call(model, noise_picture(4, 4), prompt=name, **changes))

    def _load(self, name: str) -> Model:
        self.clock.now += LOADING
        loaded = self.shelf(name)
        assert isinstance(loaded, SteppedModel)
        loaded.before_forward = self._pass
        return loaded

    def _pass(self, prompts: list[str]) -> None:
        self.clock.now += 1
        self.forwards.append("".join(prompts))
        self.when.pop(len(self.forwards), lambda: None)()


@pytest.fixture
def stage(clock: SimpleNamespace) -> Iterator[Stage]:
    stage = Stage(clock)
    yield stage
    stage.engine.stop()


def test_a_model_without_room_waits_for_a_fair_share_of_what_loading_costs(stage: Stage) -> None:
    """Given calls for one model without end, when one comes for another, then others begin before it for
    SWITCH_PATIENCE times as long as loading takes, what has begun ends, and then it is its turn.
    """
    other: list[Future[Painted]] = []

    def again(_: object = None) -> None:
        if not (other and other[0].done()):
            stage.submit("a", "s", steps=3).add_done_callback(again)

    stage.when[2] = lambda: other.append(stage.submit("b", "b", steps=2))
    stage.submit("a", "l", steps=60)
    again()
    stage.engine.start()
    eventually(lambda: bool(other) and other[0].done(), "the other's turn has come")

    patience = round(SWITCH_PATIENCE * LOADING)
    assert all("s" in forward for forward in stage.forwards[1 : 2 + patience])
    assert stage.forwards[2 + patience + 3 : 62] == ["l"] * (60 - patience - 5) + ["b", "b"]
    # The one that was held back meanwhile.
    assert stage.submit("a", "z", steps=1).result(PATIENCE).steps == 1
    assert stage.shelf.loaded == ["a", "b", "a"]


def test_a_more_urgent_call_for_another_model_is_next_once_those_begun_have_ended(stage: Stage) -> None:
    """Given bulk calls for one model, when an interactive one comes for another, then no further bulk call begins."""
    urgent: list[Future[Painted]] = []
    late: list[Future[Painted]] = []

    def arrive() -> None:
        urgent.append(stage.submit("b", "u", steps=1, priority="interactive"))
        late.append(stage.submit("a", "l", steps=1, priority="bulk"))

    stage.when[2] = arrive
    bulk = stage.submit("a", "a", steps=4, priority="bulk")
    stage.engine.start()

    assert bulk.result(PATIENCE).steps == 4
    assert urgent[0].result(PATIENCE).model.name == "b"
    assert late[0].result(PATIENCE).model.name == "a"
    assert stage.forwards == ["a", "a", "a", "a", "u", "l"]


def test_while_it_waits_calls_behind_it_for_the_model_in_use_begin(stage: Stage) -> None:
    others: list[Future[Painted]] = []

    def arrive() -> None:
        others.append(stage.submit("b", "b", steps=1))
        others.append(stage.submit("a", "c", steps=2))

    stage.when[2] = arrive
    first = stage.submit("a", "a", steps=5)
    stage.engine.start()

    assert first.result(PATIENCE).steps == 5
    assert [future.result(PATIENCE).steps for future in others] == [1, 2]
    assert stage.forwards == ["a", "a", "ac", "ac", "a", "b"]


def test_one_that_is_cancelled_while_it_waits_causes_no_change(stage: Stage) -> None:
    gone = call("b", noise_picture(4, 4), prompt="b")
    ended: list[Future[Painted]] = []
    stage.when[2] = lambda: ended.append(stage.engine.submit(gone))
    stage.when[3] = gone.cancelled.set
    bulk = stage.submit("a", "a", steps=5)
    stage.engine.start()

    assert bulk.result(PATIENCE).steps == 5
    assert isinstance(ended[0].exception(PATIENCE), JobCancelled)
    assert stage.shelf.loaded == ["a"]


def test_models_that_fit_beside_each_other_share_the_device(clock: SimpleNamespace) -> None:
    """Given room for two models, when calls for both are there, then they take turns, and a third one waits."""
    stage = Stage(clock, lambda shelf: shelf.budget(10))
    futures = [stage.submit("a", "a", steps=3), stage.submit("b", "b", steps=3), stage.submit("c", "c", steps=1)]
    stage.engine.start()

    assert [future.result(PATIENCE).steps for future in futures] == [3, 3, 1]
    assert stage.forwards[:-1] in (list("ababab"), list("aababb"))
    assert stage.forwards[-1] == "c"
    assert stage.shelf.loaded == ["a", "b", "c"]
    stage.engine.stop()
