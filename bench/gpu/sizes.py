"""The workload of several sizes in which a fifth of the jobs have a control picture besides."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, fields, replace
from typing import Any

from PIL import Image

from bench.engine import peers, pipelines
from bench.engine.flops import Costs, costs_of
from bench.engine.jobs import WORKLOADS, Job
from bench.engine.pipelines import Pixels
from bench.gpu.plans import Plan
from bench.gpu.subjects import CONTROL
from overpaint_worker.engine.calls import Call, ControlInput
from tests.engine.direct import noise_picture

NAME = "sizes"
EVERY = 5
"""One in so many jobs is controlled."""
Key = tuple[tuple[int, int], bool]
"""Size, and whether the job is controlled."""


@dataclass(frozen=True, eq=False)
class ControlJob(Job):
    """One with a picture for the control network."""

    control: Image.Image

    @property
    def kind(self) -> tuple[object, ...]:
        return *super().kind, CONTROL


def jobs(plan: Plan, count: int, seed: int) -> list[Job]:
    """Those of the mixed workload, in the sizes of the plan in turn."""
    each = math.ceil(count / len(plan.sizes))
    drawn = []
    for size in plan.sizes:
        workload = replace(WORKLOADS["mixed"], name=f"{NAME} {size}")
        drawn.append(workload.jobs(each, seed=seed, size=size))
    in_turn = [job for alike in zip(*drawn, strict=True) for job in alike][:count]
    return [_controlled(job) if number % EVERY == 0 else job for number, job in enumerate(in_turn)]


def paint(pipeline: Any, controlled: Any, alike: Sequence[Job]) -> list[Pixels]:
    """Call the one pipeline or the other on jobs of one kind."""
    if not isinstance(alike[0], ControlJob):
        return pipelines.paint_batch(pipeline, alike)
    shown = [job.control for job in alike if isinstance(job, ControlJob)]
    return pipelines.paint_batch(controlled, alike, control_image=shown)


def call_of(job: Job, model: str) -> Call:
    """The engine's call for a job, controlled or not."""
    call = peers.call_of(job, model)
    return replace(call, controls=(ControlInput(CONTROL, job.control),)) if isinstance(job, ControlJob) else call


@dataclass(frozen=True)
class SizedCosts:
    """What jobs cost, by size and control."""

    costs: Mapping[Key, Costs]

    def total(self, jobs: Iterable[Job], /) -> int:
        return sum(self.costs[job.picture.size, isinstance(job, ControlJob)].of(job) for job in jobs)


def sized_costs(plan: Plan, pipeline: Any, controlled: Any) -> SizedCosts:
    """Counted on pipelines that are not compiled."""
    costs: dict[Key, Costs] = {}
    for size in plan.sizes:
        costs[size, False] = costs_of(pipeline, size)
        costs[size, True] = costs_of(controlled, size, control_image=Image.new("RGB", size))
    return SizedCosts(costs)


def _controlled(job: Job) -> ControlJob:
    own = {field.name: getattr(job, field.name) for field in fields(job)}
    return ControlJob(**own, control=noise_picture(*job.picture.size, seed=job.seed + 1))
