"""Which turns the device takes next. Torch-free, so that it can be tested without a model."""

from __future__ import annotations

from bisect import insort
from collections import Counter
from collections.abc import Callable, Hashable, Iterable, Sequence
from dataclasses import dataclass, field
from typing import Generic, TypeVar

from overpaint_common.job import PRIORITIES, Priority
from overpaint_worker.engine.policy import AGEING

_Item = TypeVar("_Item")

WAITING_FACTOR = 1
"""k of the bound in TurnQueue: how often its class's cost share."""
WAITING_TURNS = 2
"""In the same bound: how many of the longest turns besides."""
URGENT_ROWS = 8
"""Rows up to which less urgent calls fill a forward that a more urgent one waits for: so many cost little more."""


@dataclass(frozen=True, slots=True)
class Claim:
    """What an item asks of the device."""

    group: Hashable
    """Items of one group may go together."""
    rows: int
    most: int
    """Rows that it may be together with, its own included; an item that has more goes alone."""
    alone: bool
    priority: Priority
    arrival: int
    """Of the call: one that comes back for its next turn keeps its place."""


@dataclass(slots=True, eq=False)
class _Class(Generic[_Item]):
    """The items of one group and priority."""

    group: Hashable
    rank: int
    """Of the priority; 0 is the most urgent."""
    weight: int
    spent: float
    """Virtual time: where it started, and since then the seconds that it paid for, by its weight."""
    line: list[tuple[Claim, _Item]] = field(default_factory=list)
    """Those that wait, what arrived first in front."""

    def turn(self, usual: float) -> tuple[float, int, int]:
        """What the classes are ordered by; `usual` is what a turn costs, seconds."""
        return self.spent + usual / self.weight, self.rank, self.line[0][0].arrival


class TurnQueue(Generic[_Item]):
    """Shares out the device among classes of items, one for each group and priority, by the seconds that they cost.

    Fair queueing (Golestani 1994, Goyal, Vin and Cheng 1996): the class goes next that will have had the least for its
    weight after another turn of the usual cost, and one that comes back after a pause starts level with the others. A
    priority weighs AGEING times the one below it, so that more urgent work nearly has the device to itself and less
    urgent work never stands still. Within a class, what arrived first goes first.

    Other classes of the same group come along while there is room, each in its own order, and pay for their rows, but
    only until they are a turn ahead of the rest: who came along for long has not to wait for it later. What they do not
    pay is paid by the class whose turn it is.

    The bound: from its arrival in a class to the end of its last turn there, an item waits at most

        WAITING_FACTOR * S * W / w + WAITING_TURNS * L * (W / w + n)  seconds.

    S are the seconds that its class pays meanwhile, for turns in each of which it takes part or what arrived before it;
    w is the weight of its class, and W that of the n classes, its own too, that have turns meanwhile; L is the longest
    turn so far. For no class gets more than L by its weight ahead of the virtual time, and none that waits stays more
    than that behind; so while its own pays S, from at most L ahead, another has turns as long as it paid no more for
    its weight, give or take L at both ends; and each second is paid by one of them.
    """

    def __init__(self) -> None:
        self._classes: dict[tuple[Hashable, Priority], _Class[_Item]] = {}
        """Those that wait, and those that are ahead of the virtual time."""
        self._now = 0.0
        """Virtual time: the farthest that a class had spent when its turn came."""
        self._usual = 0.0
        """Seconds of a turn, the newest counting most."""

    def put(self, item: _Item, claim: Claim) -> None:
        key = claim.group, claim.priority
        if key not in self._classes:
            rank = PRIORITIES.index(claim.priority)
            weight = AGEING ** (len(PRIORITIES) - 1 - rank)
            self._classes[key] = _Class(claim.group, rank, weight, self._now)
        insort(self._classes[key].line, (claim, item), key=_arrival)

    def next(self) -> list[tuple[Claim, _Item]]:
        """Remove and return the items that go together now, the one whose turn it is first; none where none waits."""
        waiting = [each for each in self._classes.values() if each.line]
        if not waiting:
            return []
        first = min(waiting, key=self._turn)
        self._now = max(self._now, first.spent)
        if len(waiting) < len(self._classes):
            # What is not ahead would start level anyway.
            self._classes = {key: each for key, each in self._classes.items() if each.line or each.spent > self._now}
        others = [each for each in waiting if each is not first and each.group == first.group]
        return _together(first, sorted(others, key=self._turn))

    def charge(self, claims: Sequence[Claim], seconds: float) -> None:
        """Count the seconds that took what `next` gave last."""
        self._usual += (seconds - self._usual) / 8 if self._usual else seconds
        group, rows = claims[0].group, Counter[Priority]()
        for claim in claims:
            rows[claim.priority] += claim.rows
        first, rest = self._classes[group, claims[0].priority], seconds
        for priority, along in rows.items():
            each = self._classes[group, priority]
            if each is not first:
                a_turn_ahead = self._now + seconds / each.weight
                paid = min(seconds * along / rows.total(), (a_turn_ahead - each.spent) * each.weight)
                each.spent += max(0.0, paid) / each.weight
                rest -= max(0.0, paid)
        first.spent += rest / first.weight

    def take(self, wanted: Callable[[_Item], bool]) -> list[_Item]:
        """Remove and return all items that are `wanted`."""
        taken = []
        for each in self._classes.values():
            found = [item for _, item in each.line if wanted(item)]
            if found:
                each.line = [place for place in each.line if not wanted(place[1])]
                taken += found
        return taken

    def __len__(self) -> int:
        return sum(len(each.line) for each in self._classes.values())

    def _turn(self, each: _Class[_Item]) -> tuple[float, int, int]:
        return each.turn(self._usual)


def _arrival(place: tuple[Claim, object]) -> int:
    return place[0].arrival


def _together(first: _Class[_Item], others: Iterable[_Class[_Item]]) -> list[tuple[Claim, _Item]]:
    """Remove and return what goes with the first of `first`, as far as there is room, each class from its front."""
    claim, _ = first.line[0]
    taken = [first.line.pop(0)]
    if claim.alone:
        return taken
    rows, most = claim.rows, claim.most
    for each in (first, *others):
        along = 0
        for claim, _ in each.line:
            limit = min(most, claim.most)
            if claim.alone or rows + claim.rows > (limit if each.rank <= first.rank else min(limit, URGENT_ROWS)):
                break
            rows, most, along = rows + claim.rows, limit, along + 1
        taken += each.line[:along]
        del each.line[:along]
    return taken
