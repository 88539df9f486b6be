"""Runs the passes of all variants of a job, in memory from pass to pass."""

from __future__ import annotations

from dataclasses import dataclass

from PIL import Image

from overpaint_common.errors import NotServed
from overpaint_common.job import Job
from overpaint_common.passes import Img2Img, Pass
from overpaint_common.result import ModelInfo, PassRun, WarningNote
from overpaint_common.steps import StepsRule, effective_steps
from overpaint_worker.engine.calls import Painted
from overpaint_worker.engine.engine import Engine
from overpaint_worker.operations import img2img
from overpaint_worker.operations.tracker import Tracker


@dataclass(frozen=True, slots=True)
class Variant:
    """What the passes made of one variant."""

    index: int
    picture: Image.Image
    """RGB, at the model's size, padding still on."""
    runs: tuple[PassRun, ...]


@dataclass(frozen=True, slots=True)
class Outcome:
    variants: tuple[Variant, ...]
    model: ModelInfo | None
    """None when every pass went through untouched."""
    rows: int
    engine_seconds: float
    warnings: tuple[WarningNote, ...]


def is_passthrough(job: Job) -> bool:
    """Whether no pass changes anything: the job costs no model and no resize."""
    return all(isinstance(p, Img2Img) and p.strength == 0 for p in job.passes)


def passthrough_runs(job: Job, variant: int) -> tuple[PassRun, ...]:
    """What the record says of the passes of a job that is all passthrough."""
    return tuple(_untouched(p, variant) for p in job.passes)


def run_passes(job: Job, picture: Image.Image, rule: StepsRule, engine: Engine, tracker: Tracker) -> Outcome:
    """Run a settled job's passes on a prepared RGB picture.

    All variants of one pass are in the engine at once; each variant's next pass takes the picture its last one made.
    Raises JobCancelled or an EngineError.
    """
    pictures = [picture] * job.variants
    runs: list[list[PassRun]] = [[] for _ in pictures]
    painted_last: Painted | None = None
    warnings: dict[WarningNote, None] = {}
    rows, seconds = 0, 0.0
    for index, p in enumerate(job.passes):
        if not isinstance(p, Img2Img):
            raise NotServed(f"pass {index} asks for {p.op!r}, which this worker does not serve")
        if p.strength == 0:
            for variant, done in enumerate(runs):
                done.append(_untouched(p, variant))
            continue
        running = effective_steps(rule, _settled(p.steps, "steps"), p.strength)
        futures = [
            engine.submit(img2img.call(job, p, variant, before, tracker.track(running), tracker.cancelled))
            for variant, before in enumerate(pictures)
        ]
        for variant, future in enumerate(futures):
            try:
                painted = future.result()
            except BaseException:
                tracker.abandon()
                raise
            pictures[variant] = img2img.to_picture(painted)
            runs[variant].append(_run(p, variant, painted))
            warnings.update(dict.fromkeys(painted.warnings))
            rows, seconds, painted_last = max(rows, painted.rows), seconds + painted.seconds, painted
    variants = tuple(Variant(i, picture, tuple(runs[i])) for i, picture in enumerate(pictures))
    return Outcome(variants, painted_last.model if painted_last else None, rows, seconds, tuple(warnings))


def _run(p: Img2Img, variant: int, painted: Painted) -> PassRun:
    steps = _settled(p.steps, "steps")
    return PassRun(
        op=p.op,
        seed=_settled(p.seed, "seed") + variant,
        steps=steps,
        effective_steps=painted.steps,
        start_step=steps - painted.steps,
        started_at=painted.started_at,
        seconds=round(painted.seconds, 6),
    )


def _untouched(p: Pass, variant: int) -> PassRun:
    if not isinstance(p, Img2Img):
        raise NotServed(f"{p.op!r} is not served by this worker")
    steps = _settled(p.steps, "steps")
    return PassRun(
        op=p.op,
        seed=_settled(p.seed, "seed") + variant,
        steps=steps,
        effective_steps=0,
        start_step=steps,
        passthrough=True,
    )


def _settled(value: int | None, name: str) -> int:
    if value is None:
        raise ValueError(f"{name} is not settled; settle the job before running it")
    return value
