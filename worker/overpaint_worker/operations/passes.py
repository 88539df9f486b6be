"""Runs the passes of all variants of a job, in memory from pass to pass."""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import assert_never

from PIL import Image, ImageChops

from overpaint_common.errors import NotServed
from overpaint_common.fleet import ModelCard, model_of, running_steps
from overpaint_common.job import Job
from overpaint_common.passes import Edit, Img2Img, Inpaint, MatchColor, Painting, Pass, Upscale, changes_nothing
from overpaint_common.result import ModelInfo, PassRun, WarningNote
from overpaint_worker.engine.calls import Painted
from overpaint_worker.engine.engine import Engine
from overpaint_worker.imaging.colour import continued, match_colour
from overpaint_worker.operations import advice, edit, img2img, inpaint, upscale
from overpaint_worker.operations.tracker import Tracker
from overpaint_worker.operations.work import Inputs, Scope, Work


@dataclass(slots=True)
class Variant:
    """What the passes made of one variant."""

    index: int
    picture: Image.Image
    """RGB, at the model's size, padding still on."""
    touched: Image.Image | None
    """L, of the picture's size: 0 where no pass changed the picture. None: everything may have changed."""
    runs: list[PassRun] = field(default_factory=list)
    between: list[Image.Image] = field(default_factory=list)
    """The picture after each pass but the last, where the job asks for intermediates."""


@dataclass(frozen=True, slots=True)
class Outcome:
    variants: tuple[Variant, ...]
    models: tuple[ModelInfo, ...]
    """Those that ran, in the order of their first pass."""
    rows: int
    engine_seconds: float
    warnings: tuple[WarningNote, ...]


def is_passthrough(job: Job) -> bool:
    """Whether no pass changes anything: the job costs no model and no resize."""
    return all(map(changes_nothing, job.passes))


def passthrough_runs(job: Job, variant: int) -> tuple[PassRun, ...]:
    """What the record says of the passes of a job that is all passthrough."""
    return tuple(_untouched(p, variant) for p in job.passes)


def run_passes(job: Job, inputs: Inputs, cards: Mapping[str, ModelCard], engine: Engine, tracker: Tracker) -> Outcome:
    """Run a settled job's passes on a fitted source; `cards` are of all its models, by name.

    All variants of one pass are in the engine at once; each variant's next pass takes the picture its last one made.
    Raises JobCancelled, NotServed, SourceError or an EngineError.
    """
    nothing = Image.new("L", inputs.source.size)
    variants = [Variant(index, inputs.source, nothing) for index in range(job.variants)]
    models: dict[str, ModelInfo] = {}
    warnings: dict[WarningNote, None] = {}
    rows, seconds = 0, 0.0
    for index, p in enumerate(job.passes):
        if changes_nothing(p):
            for variant in variants:
                variant.runs.append(_untouched(p, variant.index))
        elif isinstance(p, MatchColor):
            for variant in variants:
                _recolour(p, variant, inputs)
        else:
            for variant, painted in _paint(job, p, variants, inputs, cards, engine, tracker):
                variant.runs.append(_run(p, variant.index, painted))
                models.setdefault(painted.model.name, painted.model)
                warnings.update(dict.fromkeys(painted.warnings))
                rows, seconds = max(rows, painted.rows), seconds + painted.seconds
        if job.output.intermediates and index + 1 < len(job.passes):
            for variant in variants:
                variant.between.append(variant.picture)
    warnings |= dict.fromkeys(_advise(job, inputs, variants, cards))
    return Outcome(tuple(variants), tuple(models.values()), rows, seconds, tuple(warnings))


def _paint(
    job: Job,
    p: Painting,
    variants: list[Variant],
    inputs: Inputs,
    cards: Mapping[str, ModelCard],
    engine: Engine,
    tracker: Tracker,
) -> list[tuple[Variant, Painted]]:
    card = cards[model_of(p, job)]
    steps = running_steps(p, card)
    works = []
    for variant in variants:
        scope = Scope(
            job=job,
            variant=variant.index,
            picture=variant.picture,
            inputs=inputs,
            native_size=card.native_size,
            reads={control.name: control.reads for control in card.controls},
            on_progress=tracker.track(steps),
            cancelled=tracker.cancelled,
            # Those of several variants would take each other's place.
            show=tracker.show if job.output.previews and variant is variants[0] else None,
        )
        works.append(_begin(p, scope))
    _check_size(p, works[0].call.picture.size, card)
    futures = [engine.submit(work.call) for work in works]
    done = []
    for variant, work, future in zip(variants, works, futures, strict=True):
        try:
            painted = future.result()
        except BaseException:
            tracker.abandon()
            raise
        variant.picture = work.finish(painted)
        variant.touched = _joined(variant.touched, work.touched)
        done.append((variant, replace(painted, warnings=(*work.warnings, *painted.warnings))))
    return done


def _check_size(p: Painting, size: tuple[int, int], card: ModelCard) -> None:
    """Raises NotServed for a picture that may be larger than the device holds; an upscaler cuts its own into tiles."""
    if not isinstance(p, Upscale) and max(size) > card.max_size:
        raise NotServed(
            f"{p.op} would paint {size[0]} x {size[1]} pixels, and model {card.name!r} takes at most {card.max_size} a "
            "side; set prepare.size, or a prepare.fit that scales, or enlarge less"
        )


def _begin(p: Painting, scope: Scope) -> Work:
    match p:
        case Img2Img():
            return img2img.begin(p, scope)
        case Inpaint():
            return inpaint.begin(p, scope)
        case Upscale():
            return upscale.begin(p, scope)
        case Edit():
            return edit.begin(p, scope)
    assert_never(p)


def _joined(before: Image.Image | None, touched: Image.Image | None) -> Image.Image | None:
    if before is None or touched is None:
        return None
    return ImageChops.lighter(before, touched)


def _advise(
    job: Job, inputs: Inputs, variants: list[Variant], cards: Mapping[str, ModelCard]
) -> tuple[WarningNote, ...]:
    source = inputs.source.crop(inputs.placement.content)
    made = [variant.picture.crop(inputs.placement.content_of(variant.picture.size)) for variant in variants]
    return advice.far_from_native(job, inputs.source.size, cards) + advice.colours_lost(job, source, made)


def _recolour(p: MatchColor, variant: Variant, inputs: Inputs) -> None:
    began = time.monotonic()
    # Padding has no colours of the source, and where nothing was painted they are right already.
    box = inputs.placement.content_of(variant.picture.size)
    matched = match_colour(
        variant.picture.crop(box),
        inputs.source.crop(inputs.placement.content),
        method=p.method,
        amount=p.amount,
        where=None if variant.touched is None else variant.touched.crop(box),
    )
    variant.picture = continued(variant.picture, matched, box)
    seconds = round(time.monotonic() - began, 6)
    variant.runs.append(PassRun(op=p.op, steps=0, effective_steps=0, start_step=0, seconds=seconds))


def _run(p: Painting, variant: int, painted: Painted) -> PassRun:
    steps = _settled(p.steps, "steps")
    return PassRun(
        op=p.op,
        seed=_settled(p.seed, "seed") + variant,
        steps=steps,
        effective_steps=painted.steps,
        start_step=steps - painted.steps,
        model=painted.model.name,
        scheduler=painted.scheduler,
        started_at=painted.started_at,
        seconds=round(painted.seconds, 6),
    )


def _untouched(p: Pass, variant: int) -> PassRun:
    steps = 0 if isinstance(p, MatchColor) else _settled(p.steps, "steps")
    return PassRun(
        op=p.op,
        seed=None if isinstance(p, MatchColor) else _settled(p.seed, "seed") + variant,
        steps=steps,
        effective_steps=0,
        start_step=steps,
        passthrough=True,
    )


def _settled(value: int | None, name: str) -> int:
    if value is None:
        raise ValueError(f"{name} is not settled; settle the job before running it")
    return value
