"""Straight-line code that stops where it wants something computed, and what holds only while it runs."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import pytest
import torch

from overpaint_worker.engine.routines import Context, Routine, Turn, held, wait


def doubled(wanted: Sequence[Any]) -> list[Any]:
    return [2 * each for each in wanted]


def turn(wanted: int) -> Turn:
    return Turn("doubled", doubled, wanted)


def wanted(routine: Routine[Any]) -> Any:
    assert routine.turn is not None
    return routine.turn.wanted


@pytest.fixture
def log() -> list[str]:
    return []


@pytest.fixture
def logged(log: list[str]) -> Callable[[str], Context]:
    """Contexts that tell when they are entered and left."""

    def named(name: str) -> Context:
        @contextmanager
        def context() -> Iterator[None]:
            log.append(f"+{name}")
            try:
                yield
            finally:
                log.append(f"-{name}")

        return context

    return named


def test_it_stops_at_each_turn_and_goes_on_with_its_result() -> None:
    routine = Routine(lambda: [wait(turn(1)), wait(turn(2))])

    assert routine.turn is None
    assert routine.go_on() is None
    assert wanted(routine) == 1
    assert routine.go_on("one") is None
    assert (wanted(routine), routine.ended) == (2, False)
    assert routine.go_on("two") == ["one", "two"]
    assert (routine.turn, routine.ended) == (None, True)


def test_one_that_wants_nothing_ends_at_once() -> None:
    routine = Routine(lambda: "made")

    assert routine.go_on() == "made"
    assert routine.ended


def test_turns_are_handed_out_from_any_depth_of_calls() -> None:
    def deep(level: int) -> int:
        return int(wait(turn(level))) if level == 0 else deep(level - 1) + 1

    routine = Routine(lambda: deep(50))
    routine.go_on()

    assert wanted(routine) == 0
    assert routine.go_on(7) == 57


def test_routines_go_on_in_any_order() -> None:
    def run(name: str) -> str:
        return f"{name} {wait(turn(1))} {wait(turn(2))}"

    first, second = Routine(lambda: run("first")), Routine(lambda: run("second"))
    first.go_on()
    second.go_on()
    second.go_on("a")
    first.go_on("b")

    assert first.go_on("c") == "first b c"
    assert second.go_on("d") == "second a d"


def test_outside_of_a_routine_what_is_wanted_is_computed_at_once() -> None:
    assert wait(turn(21)) == 42


def test_what_it_raises_comes_out_where_it_was_let_run() -> None:
    def fails() -> None:
        wait(turn(1))
        raise ValueError("no")

    routine = Routine(fails)
    routine.go_on()

    with pytest.raises(ValueError, match="no"):
        routine.go_on()
    assert routine.ended


def test_an_error_is_raised_where_it_waits() -> None:
    def cautious() -> str:
        try:
            wait(turn(1))
        except ValueError as error:
            return f"caught {error}, then {wait(turn(2))}"
        return "never"

    routine = Routine(cautious)
    routine.go_on()

    assert routine.fail(ValueError("no")) is None
    assert wanted(routine) == 2
    assert routine.go_on("went on") == "caught no, then went on"


def test_an_error_that_it_does_not_catch_ends_it() -> None:
    routine = Routine(lambda: wait(turn(1)))
    routine.go_on()

    with pytest.raises(KeyError):
        routine.fail(KeyError("no"))
    assert routine.ended


def test_one_that_never_began_ends_with_the_error_at_once(log: list[str]) -> None:
    routine = Routine(lambda: log.append("began"))

    with pytest.raises(ValueError, match="no"):
        routine.fail(ValueError("no"))
    assert routine.ended
    assert log == []


def test_what_is_held_is_left_while_it_waits_and_entered_anew(log: list[str], logged: Callable[[str], Context]) -> None:
    def run() -> None:
        with held(logged("outer")), held(logged("inner")):
            log.append("before")
            wait(turn(1))
            log.append("after")

    routine = Routine(run)
    routine.go_on()
    log.append("meanwhile")
    routine.go_on()

    assert log == [
        *("+outer", "+inner", "before", "-inner", "-outer"),
        "meanwhile",
        *("+outer", "+inner", "after", "-inner", "-outer"),
    ]


def test_what_is_no_longer_held_is_not_entered_again(log: list[str], logged: Callable[[str], Context]) -> None:
    def run() -> None:
        with held(logged("outer")):
            with held(logged("inner")):
                wait(turn(1))
            wait(turn(2))

    routine = Routine(run)
    routine.go_on()
    routine.go_on()
    log.clear()
    routine.go_on()

    assert log == ["+outer", "-outer"]


def test_each_routine_holds_its_own(log: list[str], logged: Callable[[str], Context]) -> None:
    def run(name: str) -> None:
        with held(logged(name)):
            wait(turn(1))

    first, second = Routine(lambda: run("first")), Routine(lambda: run("second"))
    for routine in (first, second, first, second):
        routine.go_on()

    assert log == ["+first", "-first", "+second", "-second"] * 2


def test_what_is_held_holds_while_an_error_is_dealt_with(log: list[str], logged: Callable[[str], Context]) -> None:
    def run() -> None:
        with held(logged("context")):
            try:
                wait(turn(1))
            except ValueError:
                log.append("caught")

    routine = Routine(run)
    routine.go_on()
    routine.fail(ValueError("no"))

    assert log == ["+context", "-context", "+context", "caught", "-context"]


def test_what_raises_within_held_leaves_it_once(log: list[str], logged: Callable[[str], Context]) -> None:
    def run() -> None:
        with held(logged("outer")), held(logged("inner")):
            raise ValueError("no")

    with pytest.raises(ValueError, match="no"):
        Routine(run).go_on()

    assert log == ["+outer", "+inner", "-inner", "-outer"]


def test_outside_of_a_routine_held_is_the_context_itself(log: list[str], logged: Callable[[str], Context]) -> None:
    with held(logged("context")):
        wait(turn(1))
        log.append("within")

    assert log == ["+context", "within", "-context"]


def test_torchs_modes_hold_in_the_routine_alone() -> None:
    """Given a routine in inference mode, when it waits, then others compute with gradients, and it goes on without."""
    modes: list[bool] = []

    def run() -> None:
        with held(torch.inference_mode), torch.no_grad():
            wait(turn(1))
            modes.append(torch.is_inference_mode_enabled())

    routine = Routine(run)
    routine.go_on()
    modes.append(torch.is_inference_mode_enabled() or not torch.is_grad_enabled())
    routine.go_on()
    modes.append(torch.is_inference_mode_enabled() or not torch.is_grad_enabled())

    assert modes == [False, True, False]
