"""The same jobs at the same times for every peer, in turn, and a look at whether they painted the same pictures."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from dataclasses import dataclass, field
from functools import partial
from itertools import groupby

import numpy as np

from bench.engine.jobs import WARM_UP, Job
from bench.engine.peers import Counters, Peer
from bench.engine.pipelines import Pixels

Arrival = tuple[float, Job]
"""Seconds after the beginning, and what arrives then."""


@dataclass(frozen=True)
class Run:
    """What one peer made of one round's jobs, or of several rounds'."""

    jobs: tuple[Job, ...] = ()
    seconds: float = 0.0
    """From the first arrival to the last picture."""
    latencies: tuple[float, ...] = ()
    """Seconds from each job's arrival to its picture."""
    counters: Counters = field(default_factory=Counters)
    difference: float = 0.0
    """The largest of any pixel to the first peer's."""

    def __add__(self, other: Run) -> Run:
        return Run(
            jobs=self.jobs + other.jobs,
            seconds=self.seconds + other.seconds,
            latencies=self.latencies + other.latencies,
            counters=self.counters + other.counters,
            difference=max(self.difference, other.difference),
        )


def compete(
    peers: Sequence[Peer], rounds: Sequence[Sequence[Arrival]], painted: Callable[[], None] = lambda: None
) -> list[Run]:
    """All rounds with all peers, the sum of its runs for each.

    Each round begins with another peer, so that a slow minute of the machine meets all of them. `painted` is told of
    each picture. Raises what a peer's jobs raise.
    """
    totals = [Run() for _ in peers]
    for number, arrivals in enumerate(rounds):
        pictures: dict[int, list[Pixels]] = {}
        runs: dict[int, Run] = {}
        for turn in range(len(peers)):
            index = (number + turn) % len(peers)
            runs[index], pictures[index] = run(peers[index], arrivals, painted)
        for index, total in enumerate(totals):
            difference = largest_difference(pictures[index], pictures[0])
            totals[index] = total + runs[index] + Run(difference=difference)
    return totals


def run(
    peer: Peer, arrivals: Sequence[Arrival], painted: Callable[[], None] = lambda: None
) -> tuple[Run, list[Pixels]]:
    """One peer on one round, and its pictures in the order of arrival."""
    ended, changed = [0.0] * len(arrivals), threading.Condition()
    futures: list[Future[Pixels]] = []

    def end(index: int, _: Future[Pixels]) -> None:
        with changed:
            ended[index] = time.perf_counter()
            changed.notify()
        painted()

    before, began = peer.counters(), time.perf_counter()
    for at, arriving in groupby(arrivals, key=lambda arrival: arrival[0]):
        time.sleep(max(0.0, began + at - time.perf_counter()))
        for future in peer.submit([job for _, job in arriving]):
            future.add_done_callback(partial(end, len(futures)))
            futures.append(future)
    pictures = [future.result() for future in futures]
    # A future wakes those who wait for it before it tells its callbacks.
    with changed:
        changed.wait_for(lambda: all(ended))
    measured = Run(
        jobs=tuple(job for _, job in arrivals),
        seconds=max(ended) - began,
        latencies=tuple(end - began - at for end, (at, _) in zip(ended, arrivals, strict=True)),
        counters=peer.counters() - before,
    )
    return measured, pictures


def warm_up(peers: Sequence[Peer], count: int, size: tuple[int, int]) -> None:
    """That many short jobs for each peer, so that no kernel is prepared on the clock."""
    for peer in peers:
        run(peer, [(0.0, job) for job in WARM_UP.jobs(count, seed=0, size=size)])


def largest_difference(pictures: Sequence[Pixels], others: Sequence[Pixels]) -> float:
    """Of any pixel of any picture to the other's, 0..1; infinite where one of the two is no number."""
    differences = (np.abs(mine - theirs) for mine, theirs in zip(pictures, others, strict=True))
    return max(float(np.nan_to_num(each, nan=np.inf).max()) for each in differences)
