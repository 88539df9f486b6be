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


def anything(_: object) -> bool:
    return True


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


@given(
    st.lists(st.sampled_from(PRIORITIES), max_size=AGEING),
    st.sampled_from(PRIORITIES),
    st.sets(st.integers(0, AGEING)),
)
def test_pop_above_takes_only_what_is_wanted_and_strictly_more_urgent(
    priorities: list[Priority], running: Priority, wanted: set[int]
) -> None:
    queue = filled(priorities)
    fitting = [
        number
        for number, priority in enumerate(priorities)
        if number in wanted and PRIORITIES.index(priority) < PRIORITIES.index(running)
    ]

    taken = [queue.pop_above(running, wanted.__contains__) for _ in fitting]

    assert taken == sorted(fitting, key=lambda number: PRIORITIES.index(priorities[number]))
    assert queue.pop_above(running, wanted.__contains__) is None
    assert len(queue) == len(priorities) - len(fitting)


def test_what_passes_by_interrupting_counts() -> None:
    """Given a bulk call that waits while others interrupt the running one, when that ends, then it is next."""
    queue = filled([BULK] + [INTERACTIVE] * (AGEING + 1))
    interrupting = [queue.pop_above(BULK, anything) for _ in range(AGEING)]

    assert interrupting == list(range(1, AGEING + 1))
    assert queue.pop() == 0
    assert queue.pop() == AGEING + 1


def test_what_is_due_but_not_more_urgent_does_not_interrupt() -> None:
    queue = filled([BULK] + [INTERACTIVE] * (AGEING + 1))
    for _ in range(AGEING):
        queue.pop()

    assert queue.pop_above(BULK, anything) == AGEING + 1
    assert queue.pop_above(BULK, anything) is None
    assert queue.pop() == 0


def test_a_standard_call_that_is_due_interrupts_before_an_interactive_one() -> None:
    queue = filled([STANDARD] + [INTERACTIVE] * (AGEING + 2))
    for _ in range(AGEING):
        queue.pop()

    assert queue.pop_above(BULK, lambda number: number != 0) == AGEING + 1
    assert queue.pop_above(BULK, anything) == 0


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
