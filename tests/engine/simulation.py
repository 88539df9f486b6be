"""A device on a virtual clock that computes whatever turn a TurnQueue gives it next."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from overpaint_common.job import PRIORITIES, Priority
from overpaint_worker.engine.policy import AGEING
from overpaint_worker.engine.turns import WAITING_FACTOR, WAITING_TURNS, Claim, TurnQueue

Class = tuple[int, Priority]
Seconds = NDArray[np.float64]
Counts = NDArray[np.int64]


@dataclass(frozen=True, slots=True)
class Job:
    arrival: float
    group: int
    priority: Priority
    rows: int
    turns: int
    alone: bool = False


class Simulation:
    """Runs jobs, given in order of arrival, to their ends. What it tells of them is in their order."""

    def __init__(self, jobs: Sequence[Job], most: Sequence[int], cost: Callable[[int, Sequence[Job]], float]) -> None:
        """`most` rows by group; `cost` in seconds of a turn of some jobs of a group."""
        self.jobs = jobs
        self.finish: Seconds = np.zeros(len(jobs))
        self.longest: Seconds = np.zeros(len(jobs))
        """The longest turn until a job's end."""
        self.turns_before: Counts = np.zeros(len(jobs), np.int64)
        self.rows_before: Counts = np.zeros(len(jobs), np.int64)
        """Turns, and rows times turns, that its class still had before it when a job arrived."""
        self.busy = 0.0
        self.most_waiting = 0
        self._turns: dict[Class, list[tuple[float, float]]] = defaultdict(list)
        """When each began that a class had, and what it paid for it."""
        self._run(most, cost)

    def _run(self, most: Sequence[int], cost: Callable[[int, Sequence[Job]], float]) -> None:
        jobs, queue = self.jobs, TurnQueue[int]()
        left = [job.turns for job in jobs]
        turns: dict[Class, int] = defaultdict(int)
        rows: dict[Class, int] = defaultdict(int)
        now = longest = 0.0
        arrived = waiting = 0
        while arrived < len(jobs) or waiting:
            if not waiting:
                now = max(now, jobs[arrived].arrival)
            while arrived < len(jobs) and jobs[arrived].arrival <= now:
                job = jobs[arrived]
                of = job.group, job.priority
                self.turns_before[arrived], self.rows_before[arrived] = turns[of], rows[of]
                turns[of] += job.turns
                rows[of] += job.turns * job.rows
                queue.put(arrived, Claim(job.group, job.rows, most[job.group], job.alone, job.priority, arrived))
                arrived, waiting = arrived + 1, waiting + 1
            self.most_waiting = max(self.most_waiting, waiting)
            batch = queue.next()
            claims, group = [claim for claim, _ in batch], jobs[batch[0][1]].group
            seconds = cost(group, [jobs[number] for _, number in batch])
            longest = max(longest, seconds)
            took_part = [queue._classes[group, priority] for priority in {claim.priority for claim in claims}]
            before = [each.spent for each in took_part]
            queue.charge(claims, seconds)
            for each, spent in zip(took_part, before, strict=True):
                self._turns[group, PRIORITIES[each.rank]].append((now, (each.spent - spent) * each.weight))
            now += seconds
            self.busy += seconds
            for claim, number in batch:
                left[number] -= 1
                turns[group, claim.priority] -= 1
                rows[group, claim.priority] -= claim.rows
                if left[number]:
                    queue.put(number, claim)
                else:
                    self.finish[number], self.longest[number] = now, longest
                    waiting -= 1

    @property
    def waits(self) -> Seconds:
        return self.finish - self._arrivals

    @property
    def paid(self) -> float:
        """By all classes for all turns."""
        return sum(paid for turns in self._turns.values() for _, paid in turns)

    def paid_meanwhile(self) -> Seconds:
        """What a job's class paid while it was there."""
        paid = np.zeros(len(self.jobs))
        for of, turns in self._turns.items():
            total = np.cumsum([0.0, *(paid for _, paid in turns)])
            first, last = self._meanwhile(turns)
            paid += self._is(of) * (total[last] - total[first])
        return paid

    def bound(self, work: Seconds) -> Seconds:
        """The longest that a job may wait by TurnQueue's docstring; `work` are the seconds of S."""
        weight, classes = np.zeros(len(self.jobs)), np.zeros(len(self.jobs))
        for (_, priority), turns in self._turns.items():
            first, last = self._meanwhile(turns)
            weight += (last > first) * weight_of(priority)
            classes += last > first
        share = weight / np.array([weight_of(job.priority) for job in self.jobs])
        bound: Seconds = WAITING_FACTOR * work * share + WAITING_TURNS * self.longest * (share + classes)
        return bound

    @property
    def _arrivals(self) -> Seconds:
        return np.array([job.arrival for job in self.jobs])

    def _meanwhile(self, turns: Sequence[tuple[float, float]]) -> tuple[Counts, Counts]:
        """The first and the last of some turns, exclusive, that began between a job's arrival and its end."""
        starts = [start for start, _ in turns]
        return np.searchsorted(starts, self._arrivals), np.searchsorted(starts, self.finish)

    def _is(self, of: Class) -> NDArray[np.bool_]:
        return np.array([(job.group, job.priority) == of for job in self.jobs])


def weight_of(priority: Priority) -> int:
    return int(AGEING ** (len(PRIORITIES) - 1 - PRIORITIES.index(priority)))
