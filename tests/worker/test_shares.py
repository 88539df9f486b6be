"""How slots are shared between priorities, and in which order queues are looked into."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from random import Random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from overpaint_common.job import PRIORITIES, Priority
from overpaint_worker.shares import PATIENCE, Shares, Turns

QUEUES: dict[str, Priority] = {f"{model}.{priority}": priority for priority in PRIORITIES for model in "ab"}


def reachable(shares: Shares) -> set[tuple[int, ...]]:
    """Every count of jobs in hand, in the order of PRIORITIES, that taking and ending jobs can lead to."""
    found = {(0,) * len(PRIORITIES)}
    fresh = list(found)
    while fresh:
        state = fresh.pop()
        for index, priority in enumerate(PRIORITIES):
            after = tuple(count + (each == index) for each, count in enumerate(state))
            if after not in found and shares.admits(priority, counts(state)):
                found.add(after)
                fresh.append(after)
    return found


def counts(state: Sequence[int]) -> dict[Priority, int]:
    return dict(zip(PRIORITIES, state, strict=True))


@pytest.mark.parametrize("slots", [*range(1, 11), 16, 25])
def test_a_priority_with_nothing_in_hand_finds_a_slot(slots: int) -> None:
    """Given whatever jobs a worker came to hold, when a priority has none, then it may take one at once."""
    shares = Shares(slots)
    states = reachable(shares)
    few: dict[int, tuple[Priority, ...]] = {1: (), 2: ("interactive",)}
    for state in states:
        assert sum(state) <= slots
        for priority in few.get(slots, PRIORITIES):
            assert counts(state)[priority] or shares.admits(priority, counts(state))
    assert max(sum(state) for state in states) == slots


@given(st.integers(2, 256), st.permutations(("standard", "bulk")))
def test_interactive_jobs_never_wait_behind_others(slots: int, greed: list[Priority]) -> None:
    """Given the others at their limits, when interactive jobs come, then one slot in eight is free for them."""
    shares = Shares(slots)
    in_hand: Counter[Priority] = Counter()
    for priority in greed:
        while shares.admits(priority, in_hand):
            in_hand[priority] += 1
    reserved = max(1, slots // 8)
    assert in_hand.total() == slots - reserved
    for _ in range(reserved):
        assert shares.admits("interactive", in_hand)
        in_hand["interactive"] += 1


@pytest.mark.parametrize(
    ("slots", "most"),
    [(1, (1, 1, 1)), (2, (1, 1, 1)), (3, (1, 1, 1)), (4, (2, 2, 2)), (8, (6, 6, 6)), (16, (14, 13, 12))],
)
def test_what_one_priority_may_hold_alone(slots: int, most: tuple[int, int, int]) -> None:
    """Given an empty worker, when one priority takes all it may, then the rest is kept for the others."""
    shares = Shares(slots)
    assert tuple(shares.most(priority) for priority in PRIORITIES) == most
    for priority, expected in counts(most).items():
        assert shares.admits(priority, {priority: expected - 1})
        assert not shares.admits(priority, {priority: expected})


def test_submissions_need_a_free_slot_and_nothing_else() -> None:
    """Given jobs at their shares, when a submission comes, then only a full worker refuses it, and it fills a slot."""
    shares = Shares(8)
    assert shares.admits(None, {"bulk": 6, "standard": 1})
    assert not shares.admits(None, {"bulk": 6, "standard": 1}, submissions=1)
    assert not shares.admits("interactive", {"bulk": 6, "standard": 1}, submissions=1)


def test_a_worker_needs_a_slot() -> None:
    """Given no slots, when shares are made, then the error names the value."""
    with pytest.raises(ValueError, match="slots=0"):
        Shares(0)


def take(turns: Turns, waiting: set[str], in_hand: dict[Priority, int] | None = None) -> str:
    """The queue from which a worker would get its next ticket, all queues being open."""
    queue = next(each for each in turns.order(["submit", *QUEUES], in_hand or {}) if each in waiting)
    turns.taken(queue)
    return queue


def test_the_urgent_come_first_and_the_models_of_a_priority_take_turns() -> None:
    """Given tickets of two models, when they are taken, then the interactive come first, of each model in turn."""
    turns = Turns(QUEUES)
    assert [take(turns, set(QUEUES)) for _ in range(4)] == ["a.interactive", "b.interactive"] * 2
    assert [take(turns, {"a.bulk", "b.standard"}) for _ in range(2)] == ["b.standard"] * 2


def test_submissions_come_first_but_leave_every_other_turn_to_a_job() -> None:
    """Given submissions without end, when a job waits too, then they alternate; without one, they go on."""
    turns = Turns(QUEUES)
    assert [take(turns, {"submit", "a.bulk"}) for _ in range(4)] == ["submit", "a.bulk"] * 2
    assert [take(turns, {"submit"}) for _ in range(3)] == ["submit"] * 3


@given(st.integers(1, 3), st.sampled_from(sorted(QUEUES)), st.randoms(use_true_random=False))
def test_no_queue_starves_on_a_few_slots(slots: int, queue: str, chance: Random) -> None:
    """Given endless tickets in every queue, when jobs end in any order, then each queue is served again and again."""
    shares, turns = Shares(slots), Turns(QUEUES)
    in_hand: list[Priority] = []
    served = 0
    for _ in range(20 * PATIENCE):
        counts = Counter(in_hand)
        offered = turns.order([each for each, p in QUEUES.items() if shares.admits(p, counts)], counts)
        if offered:
            turns.taken(offered[0])
            in_hand.append(QUEUES[offered[0]])
            served += offered[0] == queue
        else:
            in_hand.pop(chance.randrange(len(in_hand)))
    assert served >= 2


def test_an_overdue_queue_goes_first_once_even_if_it_is_empty() -> None:
    """Given a queue that was passed over for long, when it comes first, then with or without a ticket it waits anew."""
    for waiting, overdue in (({"a.standard", "a.bulk"}, "a.bulk"), ({"a.standard"}, "a.standard")):
        turns = Turns(QUEUES)
        assert [take(turns, waiting) for _ in range(PATIENCE + 1)] == ["a.standard"] * PATIENCE + [overdue]
        assert take(turns, {"a.standard", "a.bulk"}) == "a.standard"


def test_a_priority_at_work_is_not_overdue() -> None:
    """Given endless interactive tickets and a bulk job in hand, when bulk is passed over, then that is its share."""
    turns = Turns(QUEUES)
    taken = {take(turns, {"a.interactive", "a.bulk"}, {"bulk": 1}) for _ in range(3 * PATIENCE)}
    assert taken == {"a.interactive"}
