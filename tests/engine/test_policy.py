"""Which waiting item is next: the most urgent, but nobody waits for ever."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import count

import pytest
from hypothesis import given
from hypothesis import strategies as st

from overpaint_common.job import PRIORITIES, Priority
from overpaint_worker.engine.policy import AGEING, PriorityQueue

INTERACTIVE, STANDARD, BULK = PRIORITIES


def filled(priorities: Sequence[Priority]) -> PriorityQueue[int]:
    """A queue of the numbers 0, 1, ... in order of arrival."""
    queue: PriorityQueue[int] = PriorityQueue()
    for number, priority in enumerate(priorities):
        queue.push(number, priority)
    return queue


# With so few, nothing is overtaken too often before nothing else is left.
@given(st.lists(st.sampled_from(PRIORITIES), max_size=AGEING + 1))
def test_the_most_urgent_leaves_first_and_equals_in_order(priorities: list[Priority]) -> None:
    queue = filled(priorities)

    left = [queue.pop() for _ in range(len(queue))]

    assert left == sorted(range(len(priorities)), key=lambda number: PRIORITIES.index(priorities[number]))
    assert queue.pop() is None


@given(st.integers(0, 50), st.integers(1, 5), st.sampled_from(PRIORITIES[1:]))
def test_beside_interactive_work_without_end_each_gets_its_turn(ahead: int, waiting: int, priority: Priority) -> None:
    """Given calls that wait behind some interactive ones, when interactive ones keep arriving, then one call in nine is
    theirs.
    """
    queue = filled([INTERACTIVE] * ahead + [priority] * waiting)
    served = []
    for number in range(ahead + waiting * (AGEING + 1)):
        queue.push(ahead + waiting + number, INTERACTIVE)
        served.append(queue.pop())

    turns = [served.index(number) for number in range(ahead, ahead + waiting)]

    # Those ahead arrived earlier: they go first and do not count.
    assert turns == [ahead + n * (AGEING + 1) + AGEING for n in range(waiting)]


@dataclass
class Waiting:
    """What the test knows of an item that waits."""

    number: int
    rank: int
    overtaken: int = 0
    """By more urgent items that arrived later."""
    equals_before: int = 0
    """Of its priority, waiting at its arrival."""


@given(st.lists(st.sampled_from([*PRIORITIES, "pop"]), max_size=200))
def test_whatever_arrives_the_wait_is_bounded_and_order_kept(events: list[Priority | str]) -> None:
    queue: PriorityQueue[Waiting] = PriorityQueue()
    here: list[Waiting] = []
    numbers = count()
    for event in [*events, *["pop"] * len(events)]:
        if event != "pop":
            rank = PRIORITIES.index(event)
            arrived = Waiting(next(numbers), rank, equals_before=sum(other.rank == rank for other in here))
            here.append(arrived)
            queue.push(arrived, PRIORITIES[rank])
            continue
        taken = queue.pop()
        assert (taken is None) == (not here)
        if taken is None:
            continue
        here.remove(taken)
        for other in here:
            assert other.rank != taken.rank or other.number > taken.number
            other.overtaken += taken.rank < other.rank and taken.number > other.number
            # The bound that is promised: at most so many for itself and for each equal before it.
            assert other.overtaken <= (other.equals_before + 1) * AGEING
            # Only what was overtaken too often goes before something more urgent.
            assert other.rank >= taken.rank or taken.overtaken >= AGEING


@given(st.lists(st.sampled_from(PRIORITIES), max_size=AGEING), st.sets(st.integers(0, AGEING)))
def test_only_what_is_wanted_is_taken(priorities: list[Priority], wanted: set[int]) -> None:
    queue = filled(priorities)
    fitting = [number for number in range(len(priorities)) if number in wanted]

    taken = [queue.pop(wanted.__contains__) for _ in fitting]

    assert taken == sorted(fitting, key=lambda number: PRIORITIES.index(priorities[number]))
    assert queue.pop(wanted.__contains__) is None
    assert len(queue) == len(priorities) - len(fitting)


@given(st.lists(st.sampled_from([*PRIORITIES, "pop"]), max_size=100))
def test_the_first_is_what_is_popped_and_stays_until_then(events: list[Priority | str]) -> None:
    queue: PriorityQueue[int] = PriorityQueue()
    for number, event in enumerate(events):
        if event in PRIORITIES:
            queue.push(number, PRIORITIES[PRIORITIES.index(event)])
        else:
            assert queue.first() == queue.first() == queue.pop()


def test_what_passes_by_because_the_first_is_not_wanted_counts() -> None:
    """Given a bulk call that is not wanted while others pass, when it is wanted again, then it is next."""
    queue = filled([BULK] + [INTERACTIVE] * (AGEING + 1))
    passing = [queue.pop(lambda number: number != 0) for _ in range(AGEING)]

    assert passing == list(range(1, AGEING + 1))
    assert queue.first() == 0
    assert queue.pop(lambda number: number != 0) == AGEING + 1
    assert queue.pop() == 0


@pytest.mark.parametrize("first", [STANDARD, BULK])
def test_of_several_that_are_due_the_one_that_arrived_first_is_next(first: Priority) -> None:
    queue = filled([first, BULK if first == STANDARD else STANDARD] + [INTERACTIVE] * (AGEING + 1))

    assert [queue.pop() for _ in range(len(queue))] == [*range(2, AGEING + 2), 0, 1, AGEING + 2]


@pytest.mark.parametrize("gone", [0, 1])
def test_those_behind_the_first_in_line_begin_to_age_when_they_are_first(gone: int) -> None:
    """Given two in line, the first of them due, when one is swept, then the other has what is its own."""
    queue = filled([BULK, BULK] + [INTERACTIVE] * (2 * AGEING))
    for _ in range(AGEING):
        queue.pop()

    assert queue.take(lambda number: number == gone) == [gone]
    rest = [queue.pop() for _ in range(len(queue))]

    assert rest.index(1 - gone) == (AGEING if gone == 0 else 0)
    assert len(queue) == 0
