"""Which turns go next, and which go together."""

from __future__ import annotations

from collections import Counter
from collections.abc import Hashable

import pytest

from overpaint_common.job import PRIORITIES, Priority
from overpaint_worker.engine.policy import AGEING
from overpaint_worker.engine.turns import URGENT_ROWS, Claim, TurnQueue

INTERACTIVE, STANDARD, BULK = PRIORITIES


class Queue:
    """A TurnQueue of names, which arrive in the order in which they are put."""

    def __init__(self) -> None:
        self.turns: TurnQueue[str] = TurnQueue()
        self.arrivals: dict[str, int] = {}
        self.claims: list[Claim] = []
        """Of what went last."""

    def put(
        self,
        *names: str,
        group: Hashable = "unet",
        rows: int = 2,
        most: int = 32,
        alone: bool = False,
        priority: Priority = STANDARD,
    ) -> None:
        for name in names:
            arrival = self.arrivals.setdefault(name, len(self.arrivals))
            self.turns.put(name, Claim(group, rows, most, alone, priority, arrival))

    def next(self) -> list[str]:
        batch = self.turns.next()
        self.claims = [claim for claim, _ in batch]
        return [name for _, name in batch]

    def spend(self, turns: int, seconds: float = 1.0) -> Counter[str]:
        """Run some turns, after each of which what went comes back; how often each name went."""
        went: Counter[str] = Counter()
        for _ in range(turns):
            batch = self.turns.next()
            self.turns.charge([claim for claim, _ in batch], seconds)
            for claim, name in batch:
                self.turns.put(name, claim)
            went.update(name for _, name in batch)
        return went


@pytest.fixture
def queue() -> Queue:
    return Queue()


def test_nothing_waits_in_an_empty_queue(queue: Queue) -> None:
    assert queue.next() == []
    assert len(queue.turns) == 0


def test_what_is_of_one_group_goes_together(queue: Queue) -> None:
    queue.put("cat", "dog")
    queue.put("house", group="vae")
    queue.put("tree")

    assert [queue.next() for _ in range(3)] == [["cat", "dog", "tree"], ["house"], []]


def test_what_goes_alone_takes_no_other_along(queue: Queue) -> None:
    """Given one that must go alone among others of its group, then neither it nor they wait for more than its turn."""
    queue.put("cat")
    queue.put("vase", alone=True)
    queue.put("dog", "tree")

    assert [queue.next() for _ in range(3)] == [["cat"], ["vase"], ["dog", "tree"]]


@pytest.mark.parametrize(("most", "expected"), [(6, 3), (7, 3), (8, 4), (100, 5)])
def test_a_forward_holds_no_more_rows_than_it_may(queue: Queue, most: int, expected: int) -> None:
    queue.put(*"abcde", most=most)

    assert queue.next() == list("abcde")[:expected]


def test_one_that_is_larger_than_a_forward_goes_alone(queue: Queue) -> None:
    queue.put("large", rows=9, most=8)
    queue.put("small", rows=1, most=8)

    assert [queue.next(), queue.next()] == [["large"], ["small"]]


def test_a_limit_that_one_has_holds_for_all_beside_it(queue: Queue) -> None:
    """Given limits lowered while others wait already, when these go first, then no forward exceeds the lower one."""
    queue.put("old", "older", most=32)
    queue.put("new", "newer", most=6)

    assert [queue.next(), queue.next()] == [["old", "older", "new"], ["newer"]]


def test_what_arrived_first_goes_first_also_when_it_comes_back(queue: Queue) -> None:
    queue.put(*"abc", most=4)
    first = queue.next()
    queue.put("d", most=4)
    queue.put(*reversed(first), most=4)

    assert first == ["a", "b"]
    assert queue.next() == ["a", "b"]
    assert queue.next() == ["c", "d"]


def test_more_urgent_calls_of_the_group_fill_a_forward(queue: Queue) -> None:
    """Given interactive calls that fill forwards, when it is a bulk call's turn, then some of them fill up its own."""
    queue.put("bulk", rows=20, priority=BULK)
    queue.put(*"abcdefgh", rows=4, priority=INTERACTIVE)
    queue.spend(AGEING**2)

    assert queue.next() == ["bulk", "a", "b", "c"]


def test_less_urgent_calls_of_the_group_fill_only_a_small_forward(queue: Queue) -> None:
    """Given bulk calls beside an interactive one, then they come along up to URGENT_ROWS rows."""
    queue.put("urgent", priority=INTERACTIVE)
    queue.put(*"abcdef", priority=BULK)
    queue.put("standard", priority=STANDARD)

    went = queue.next()

    assert sum(claim.rows for claim in queue.claims) == URGENT_ROWS
    assert went == ["urgent", "standard", "a", "b"]


def test_a_full_urgent_forward_takes_no_less_urgent_call_along(queue: Queue) -> None:
    queue.put(*"abcde", priority=INTERACTIVE)
    queue.put("bulk", rows=1, priority=BULK)

    assert queue.next() == list("abcde")


def test_each_class_comes_along_in_its_own_order(queue: Queue) -> None:
    """Given one that does not fit beside others, then what arrived after it in its class does not pass it."""
    queue.put("urgent", rows=6, priority=INTERACTIVE)
    queue.put("wide", rows=4, priority=BULK)
    queue.put("narrow", rows=1, priority=BULK)

    assert [queue.next(), queue.next()] == [["urgent"], ["wide", "narrow"]]


def test_groups_share_the_device_by_seconds_and_not_by_turns(queue: Queue) -> None:
    """Given a group whose turns take nine times as long, when both always wait, then it gets a ninth of the turns."""
    queue.put("short", group="unet")
    queue.put("long", group="vae")
    seconds: Counter[str] = Counter()
    for _ in range(1000):
        (name,) = queue.next()
        cost = 0.9 if name == "long" else 0.1
        queue.turns.charge(queue.claims, cost)
        queue.put(name, group=queue.claims[0].group)
        seconds[name] += round(10 * cost)

    assert abs(seconds["long"] - seconds["short"]) <= 9


def test_each_priority_gets_ageing_times_the_next_ones_share(queue: Queue) -> None:
    for priority in PRIORITIES:
        queue.put(priority, group=priority, priority=priority)

    went = queue.spend(10 * (1 + AGEING + AGEING**2))

    assert went == {INTERACTIVE: 10 * AGEING**2, STANDARD: 10 * AGEING, BULK: 10}


def test_an_urgent_call_that_arrives_goes_next(queue: Queue) -> None:
    """Given groups of bulk that are at work for long, when an interactive call comes, then it waits for none."""
    for group in range(5):
        queue.put(f"bulk{group}", group=group, priority=BULK)
    queue.spend(103)
    queue.put("urgent", group="new", priority=INTERACTIVE)

    assert set(queue.spend(25)) == {"urgent"}


@pytest.mark.parametrize("pause", [1, 10, 1000])
def test_a_class_that_comes_back_starts_level(queue: Queue, pause: int) -> None:
    """Given a group that was away for long or short, when it comes back, then neither side has to make up for it."""
    queue.put("here", group="unet")
    queue.put("away", group="vae")
    queue.spend(10)
    queue.turns.take(lambda name: name == "away")
    queue.spend(pause)
    queue.put("away", group="vae")

    went = queue.spend(20)

    assert abs(went["away"] - went["here"]) <= 2


def test_what_came_along_for_long_does_not_wait_for_it_later(queue: Queue) -> None:
    """Given a bulk call that filled the forwards of interactive ones, when these are gone and other bulk work is here,
    then the call takes its turns with that.
    """
    queue.put("urgent", group="unet", priority=INTERACTIVE)
    queue.put("along", group="unet", priority=BULK)
    assert queue.spend(1000)["along"] == 1000
    queue.turns.take(lambda name: name == "urgent")
    queue.put("other", group="vae", priority=BULK)

    went = queue.spend(20)

    assert abs(went["along"] - went["other"]) <= 2


def test_a_group_that_takes_others_along_gets_on_as_fast_as_one_that_does_not(queue: Queue) -> None:
    queue.put("filled", group="unet", priority=INTERACTIVE)
    queue.put("along", group="unet", rows=6, priority=BULK)
    queue.put("other", group="vae", priority=INTERACTIVE)

    went = queue.spend(100)

    assert went["along"] == went["filled"]
    assert abs(went["filled"] - went["other"]) <= 2


def test_what_does_not_fit_beside_others_gets_its_turn_nonetheless(queue: Queue) -> None:
    """Given a wide bulk call that fits beside no urgent one, while a narrow one would, then it has its share."""
    queue.put("urgent", rows=6, priority=INTERACTIVE)
    queue.put("wide", rows=4, priority=BULK)
    queue.put("narrow", rows=2, priority=BULK)

    assert queue.spend(10 * (1 + AGEING**2))["wide"] == 10


def test_what_is_taken_waits_no_longer(queue: Queue) -> None:
    queue.put(*"abcd")
    queue.put("e", group="vae")

    assert sorted(queue.turns.take(lambda name: name in "bde")) == ["b", "d", "e"]
    assert len(queue.turns) == 2
    assert queue.next() == ["a", "c"]
