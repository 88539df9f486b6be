"""A workload put to peers: what they do when all jobs are there at once, and when jobs arrive at random."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from bench.engine.contest import Arrival, compete, run
from bench.engine.flops import Costs
from bench.engine.jobs import Workload, poisson, saturation
from bench.engine.peers import Peer
from bench.engine.report import Contest, figures_of

ARRIVALS = ("saturation", "poisson")


@dataclass(frozen=True)
class Plan:
    """How much of it."""

    rounds: int
    jobs: int
    """Of a round at saturation, for each peer."""
    arriving: int
    """Of a round with Poisson arrivals."""
    load: float
    """The rate of those, as a share of what one of the peers does at saturation."""
    size: tuple[int, int]
    """Pixels."""

    def count(self, arrivals: str) -> int:
        """Jobs of a round."""
        return self.jobs if arrivals == "saturation" else self.arriving


@dataclass
class Trials:
    """One workload on running peers."""

    peers: Sequence[Peer]
    workload: Workload
    plan: Plan
    pace: int
    """The peer whose rate at saturation sets the rate of arrivals."""
    costs: Costs
    peak: float
    """FLOP a second."""
    painted: Callable[[], None] = field(default=lambda: None, kw_only=True)
    """Told of each picture."""
    _rate: float | None = field(default=None, init=False)

    def contest(self, arrivals: str) -> Contest:
        """All rounds with one kind of ARRIVALS; for "poisson" the pace is measured first if it is not known yet."""
        rate = None if arrivals == "saturation" else self.plan.load * (self._rate or self._measured_rate())
        rounds = [self._round(arrivals, number, rate) for number in range(self.plan.rounds)]
        runs = compete(self.peers, rounds, self.painted)
        figures = tuple(
            figures_of(peer.name, each, self.costs, self.peak) for peer, each in zip(self.peers, runs, strict=True)
        )
        if rate is None:
            self._rate = figures[self.pace].rate
        return Contest(self.workload.name, arrivals, rate, figures)

    def _round(self, arrivals: str, number: int, rate: float | None) -> list[Arrival]:
        count = self.plan.count(arrivals)
        seed = number * len(ARRIVALS) + ARRIVALS.index(arrivals)
        times = saturation(count) if rate is None else poisson(count, rate, seed=seed)
        return list(zip(times, self.workload.jobs(count, seed=seed, size=self.plan.size), strict=True))

    def _measured_rate(self) -> float:
        # A round of its own: pictures that a peer has seen may be in its caches.
        measured, _ = run(self.peers[self.pace], self._round("saturation", self.plan.rounds, None))
        return len(measured.jobs) / measured.seconds
