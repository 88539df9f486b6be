"""How a worker's slots are shared between priorities: pure decisions, without threads or Celery."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Mapping, Sequence

from overpaint_common.job import PRIORITIES, Priority

RESERVED = 8
"""One slot in this many is kept free for interactive jobs, and at least one."""

PATIENCE = 8
"""Tickets after which a queue that was passed over each time comes first."""


class Shares:
    """How many jobs of each priority a worker may have in hand, so that none ever waits behind the others.

    With three slots or more, a priority that has no job in hand finds a slot at once: the other two together never hold
    the last one. With two, interactive jobs have one and the others share the other; a single slot serves all. Where
    slots are shared, `Turns` sees to it that everyone gets one in the end.
    """

    def __init__(self, slots: int) -> None:
        """Raises ValueError for less than one slot."""
        if slots < 1:
            raise ValueError(f"slots={slots}: a worker needs at least one")
        self.slots = slots
        self._limits = _limits(slots)

    def most(self, priority: Priority) -> int:
        """The jobs of this priority that may be in hand where there are no others."""
        alone = [limit for group, limit in self._limits.items() if priority in group]
        return min(alone, default=self.slots)

    def admits(self, priority: Priority | None, in_hand: Mapping[Priority, int], submissions: int = 0) -> bool:
        """Whether one more job of `priority` may be taken, or one more submission where it is None.

        `in_hand` and `submissions` count what has been taken and has not ended. Submissions end within milliseconds:
        they need a free slot and nothing else.
        """
        if sum(in_hand.values()) + submissions >= self.slots:
            return False
        return all(
            sum(in_hand.get(each, 0) for each in group) < limit
            for group, limit in self._limits.items()
            if priority in group
        )


def _limits(slots: int) -> dict[tuple[Priority, ...], int]:
    """The most jobs in hand of each group of priorities."""
    if slots == 1:
        return {}
    if slots == 2:
        return {("interactive",): 1, ("standard", "bulk"): 1}
    reserved = max(1, slots // RESERVED)
    return {
        ("interactive",): slots - 2,
        ("standard",): slots - reserved - 1,
        ("bulk",): slots - 2 * reserved,
        ("interactive", "standard"): slots - 1,
        ("interactive", "bulk"): slots - 1,
        ("standard", "bulk"): slots - reserved,
    }


class Turns:
    """In which order a worker looks into its queues: it takes the first ticket that it finds.

    The most urgent come first; the models of a priority take turns. Submissions come before all jobs, but never twice
    in a row while a job could be taken. A queue that was passed over PATIENCE times, and whose priority has no job in
    hand, comes first once: a ticket from another one then tells that it was empty.
    """

    def __init__(self, priorities: Mapping[str, Priority]) -> None:
        """`priorities`: the priority of each queue of jobs; other queues are of submissions."""
        self._priorities = priorities
        self._offered: Sequence[str] = ()
        self._passed: Counter[str] = Counter()
        self._last = ""

    def order(self, queues: Collection[str], in_hand: Mapping[Priority, int]) -> list[str]:
        """The queues that may be taken from, in the order to look into them; to be followed by `taken`."""
        self._offered = sorted(queues, key=lambda queue: (self._rank(queue, in_hand), -self._passed[queue]))
        return list(self._offered)

    def taken(self, queue: str) -> None:
        """A ticket was found in `queue` of those last ordered."""
        self._last = queue
        empty = True
        for each in self._offered:
            if each == queue:
                empty = False
            self._passed[each] = 0 if empty or each == queue else self._passed[each] + 1

    def _rank(self, queue: str, in_hand: Mapping[Priority, int]) -> int:
        priority = self._priorities.get(queue)
        if priority is None:
            return len(PRIORITIES) if self._last == queue else -2
        if self._passed[queue] >= PATIENCE and not in_hand.get(priority):
            return -1
        return PRIORITIES.index(priority)
