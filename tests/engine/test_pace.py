"""The time that a job still takes, from the time that its own steps took, on a clock that the test turns."""

from __future__ import annotations

import threading
from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from overpaint_worker.operations.pace import Pace
from overpaint_worker.operations.tracker import Tracker


class Clock:
    """Seconds that pass when told to."""

    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


class Run:
    """A job's calls on one clock, and what is said to be left of `steps` in all after each moment."""

    def __init__(self, steps: int) -> None:
        self.clock = Clock()
        self.left: list[float | None] = []
        pace = Pace(self.clock)
        self.tracker = Tracker(
            lambda _, done: self.left.append(pace.seconds_left(steps - done)), threading.Event(), pace=pace
        )

    def calls(self, number: int, steps: int) -> list[Callable[[], None]]:
        """The calls of one pass; each makes a step when it is called."""

        def stepping(on_progress: Callable[[str, int], None]) -> Callable[[], None]:
            done = iter(range(1, steps + 1))
            return lambda: on_progress("denoise", next(done))

        return [stepping(self.tracker.track(steps)) for _ in range(number)]

    def forward(self, seconds: float, *calls: Callable[[], None]) -> None:
        """One step of each call, all at once after so many seconds."""
        self.clock.now += seconds
        for call in calls:
            call()


def test_nothing_is_said_until_two_steps_were_measured() -> None:
    """Given a first step that took long, when steps of a second follow, then it counts for nothing, and the third one
    is the second that was measured."""
    run = Run(10)
    (call,) = run.calls(1, 10)
    run.forward(60, call)
    for _ in range(9):
        run.forward(1, call)

    assert run.left == [None, None, *map(float, range(7, -1, -1))]


@pytest.mark.parametrize("variants", [2, 5, 16])
def test_variants_that_step_together_share_the_time(variants: int) -> None:
    """Given variants that share each forward of 3 seconds, when all have told a step, then the time left is that of the
    forwards left, from the second forward on."""
    run = Run(10 * variants)
    calls = run.calls(variants, 10)
    for _ in range(10):
        run.forward(3, *calls)

    assert run.left[variants - 1] is None
    assert run.left[2 * variants - 1 :: variants] == pytest.approx([3 * left for left in range(8, -1, -1)])


def test_variants_that_run_one_after_another_add_up() -> None:
    run = Run(12)
    for call in run.calls(3, 4):
        for _ in range(4):
            run.forward(2, call)

    assert run.left[2:] == pytest.approx([2 * left for left in range(9, -1, -1)])


@given(st.permutations(range(4)), st.permutations(range(4)))
def test_the_order_within_a_forward_does_not_matter(first: list[int], later: list[int]) -> None:
    """Given variants that join at different forwards, in any order, when all step together, then that is their pace."""
    run = Run(80)
    calls = run.calls(4, 20)
    for joined in range(1, 5):
        run.forward(1, *(calls[i] for i in first if i < joined))
    for _ in range(10):
        run.forward(1, *(calls[i] for i in later))

    # 50 of 80 are done: 10 and what the first ones had before the last joined.
    assert run.left[-1] == pytest.approx((80 - 50) / 4, rel=0.1)


@pytest.mark.parametrize(("before", "after"), [(1.0, 4.0), (4.0, 1.0)])
def test_the_estimate_follows_a_batch_that_grows_or_shrinks(before: float, after: float) -> None:
    """Given steps that change their length, when some of the new length were made, then they decide."""
    run = Run(60)
    (call,) = run.calls(1, 60)
    for seconds in [before] * 20 + [after] * 20:
        run.forward(seconds, call)

    assert run.left[19] == pytest.approx(40 * before)
    assert run.left[39] == pytest.approx(20 * after, rel=0.05)
    between = [left for left in run.left[20:40] if left is not None]
    assert all(min(before, after) * 20 <= left <= max(before, after) * 40 for left in between)


def test_what_lies_between_two_passes_is_no_step() -> None:
    """Given two passes with a model loaded between them, when the second one steps, then the loading is forgotten."""
    run = Run(12)
    for waited in (5, 300):
        (call,) = run.calls(1, 6)
        run.forward(waited, call)
        for _ in range(5):
            run.forward(1, call)

    assert run.left == [None, None, *map(float, range(9, -1, -1))]


def test_a_step_more_than_expected_changes_nothing() -> None:
    """Given a pipeline that runs more steps than a strength leaves, when it tells of them, then nothing is left."""
    clock, pace = Clock(), Pace()
    left: list[float | None] = []
    tracker = Tracker(lambda _, done: left.append(pace.seconds_left(4 - done)), threading.Event(), pace=pace)
    on_progress = tracker.track(4)
    for done in range(7):
        clock.now += 1
        on_progress("denoise", done)

    assert left[-3:] == [0, 0, 0]
