"""A workload put to all peers at saturation, with as many jobs as there is time for."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from itertools import starmap

from bench.engine.contest import largest_difference
from bench.engine.flops import Priced
from bench.engine.jobs import WARM_UP, Job, saturation
from bench.engine.report import Contest, figures_of
from bench.gpu.booths import LOOPS, Booth, BoothLost, Outcome
from bench.gpu.clock import Clock
from bench.gpu.plans import Plan
from bench.gpu.report import DeviceFigures, Record

LOOP_SHARE = 0.15
"""Of a cell's time for each loop: its pace is the same however many jobs wait, so it paints the first ones alone."""
MARGIN = 1.5
"""Times the seconds that a peer is thought to take, which have to be left."""

Draw = Callable[[int], list[Job]]


@dataclass
class Field:
    """The peers of one model."""

    plan: Plan
    booths: list[Booth]
    costs: Priced
    clock: Clock
    record: Record

    def __post_init__(self) -> None:
        self._peak = 1.0
        """Of the device, FLOP a second."""
        self._paces: dict[str, float] = {}
        """The same of the peers, by key."""

    def measure_paces(self, peak: float) -> None:
        """With some short jobs, so that the time can be split; peers that fail are left out from now on.

        `peak` of the device, FLOP a second.
        """
        self._peak = peak
        jobs = WARM_UP.jobs(max(4, self.plan.at_once // 2), seed=1, size=self.plan.size)
        for booth in list(self.booths):
            outcome = self._run(booth, jobs)
            if outcome is None:
                self.booths.remove(booth)
            else:
                self._paces[booth.key] = self.costs.total(jobs) / outcome.run.seconds

    def cell(self, workload: str, draw: Draw, seconds: float, keys: Sequence[str]) -> None:
        """One workload with some of the peers, within so many seconds; what there is no time for is left out.

        Where these are too few for as many jobs as a peer has at once, it takes of what the cells after it would have.
        """
        what = f"{self.plan.title}, {workload}"
        booths = [booth for booth in self.booths if booth.key in keys]
        most = draw(self.plan.rounds * self.plan.at_once)
        each = self.costs.total(most) / len(most)
        takes = {booth.key: each / self._paces[booth.key] for booth in booths}
        wanted = sum(takes[key] * (1 if key in LOOPS else self.plan.at_once) for key in takes)
        if not booths or wanted > self.clock.left:
            self.record.skip(what, f"it takes {wanted:.0f} s or more, and {self.clock.left:.0f} s are left")
            return
        counts = split(takes, max(seconds, wanted), len(most))
        jobs = draw(max(counts.values()))
        outcomes: dict[str, Outcome] = {}
        for booth in booths:
            count = counts[booth.key]
            if self.clock.left < MARGIN * count * takes[booth.key]:
                self.record.skip(f"{what}, {booth.name}", f"{self.clock.left:.0f} s are left")
                continue
            outcome = self._run(booth, jobs[:count])
            if outcome is not None:
                outcomes[booth.name] = outcome
        if outcomes:
            self.record.contest(Contest(what, "saturation", None, self._figures(outcomes, jobs)))

    def _run(self, booth: Booth, jobs: Sequence[Job]) -> Outcome | None:
        try:
            return booth.run(list(zip(saturation(len(jobs)), jobs, strict=True)), self.clock.left)
        except Exception as error:
            why = str(error) if isinstance(error, BoothLost) else f"{type(error).__name__}: {error}"[:500]
            self.record.skip(f"{self.plan.title}, {booth.name}", why)
            return None

    def _figures(self, outcomes: Mapping[str, Outcome], jobs: Sequence[Job]) -> tuple[DeviceFigures, ...]:
        first = next(iter(outcomes.values())).pictures

        def figures(name: str, outcome: Outcome) -> DeviceFigures:
            shared = min(len(first), len(outcome.pictures))
            run = replace(outcome.run, difference=largest_difference(outcome.pictures[:shared], first[:shared]))
            made = figures_of(name, run, self.costs, self._peak)
            if len(run.jobs) < len(jobs):
                # What it would do with all of them, by what they cost; how long each would have waited is not known.
                ratio = self.costs.total(run.jobs) / len(run.jobs) / (self.costs.total(jobs) / len(jobs))
                made = replace(made, rate=made.rate * ratio, p50=float("nan"), p99=float("nan"))
            idle = None if outcome.used is None else 1 - outcome.used
            return DeviceFigures(**asdict(made), peak=outcome.peak, device_idle=idle)

        return tuple(starmap(figures, outcomes.items()))


def split(takes: Mapping[str, float], seconds: float, most: int) -> dict[str, int]:
    """Jobs for each peer, by the seconds that a job takes it: alike for all but the loops; 1 at least."""
    loops = {key: min(most, max(1, int(LOOP_SHARE * seconds / takes[key]))) for key in takes if key in LOOPS}
    others = [key for key in takes if key not in LOOPS]
    if not others:
        return loops
    left = seconds - sum(count * takes[key] for key, count in loops.items())
    count = max(1, min(most, int(left / sum(takes[key] for key in others))))
    return {key: min(loops.get(key, count), count) for key in takes}
