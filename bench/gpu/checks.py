"""Whether the engine is right on this device. Each check gives a finding; none raises for what it finds wrong."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Sequence
from concurrent.futures import Future
from contextlib import contextmanager
from dataclasses import dataclass, replace

import numpy as np

from bench.engine.jobs import saturation
from bench.engine.pipelines import Pixels
from bench.gpu.booths import Booth
from bench.gpu.device import crowded, full_precision, gauged, limited, released
from bench.gpu.samples import CONTRAST, Sample, Yardstick, contrast
from bench.gpu.subjects import Subject
from overpaint_worker.engine.calls import Call, Loader, Model, Painted
from overpaint_worker.engine.engine import Engine
from overpaint_worker.engine.loading import Tuning
from overpaint_worker.engine.model import PipelineModel
from overpaint_worker.engine.profile import MOST_ROWS

PATIENCE = 300.0
"""Seconds after which a call has failed."""
SPARE = 64 * 1024 * 1024
"""Bytes that an allocator loses to fragments."""


@dataclass(frozen=True)
class Finding:
    """What one check found."""

    name: str
    ok: bool
    told: str
    """The number, and what it is to be held against."""


def painted(loader: Loader, calls: Sequence[Call]) -> list[Painted]:
    """What a fresh engine makes of calls that are all there when it starts. Raises what a call or the loader raises."""
    engine = Engine(loader)
    try:
        futures: list[Future[Painted]] = [engine.submit(call) for call in calls]
        engine.start(preload=calls[0].model)
        return [future.result(PATIENCE) for future in futures]
    finally:
        engine.stop()


def pictures_of(made: Sequence[Painted]) -> list[Pixels]:
    return [each.pixels for each in made]


def has_contrast(yardstick: Yardstick) -> Finding:
    """That the pictures of random weights say enough to be compared."""
    least = contrast(yardstick.truth)
    told = f"pixels have a standard deviation of {least:.3f} or more (limit {CONTRAST:g})"
    return Finding("pictures have contrast", least >= CONTRAST, told)


def crowd(subject: Subject, sample: Sample, yardstick: Yardstick) -> Finding:
    """That calls beside each other are painted as diffusers paints each alone."""
    with full_precision():
        made = painted(subject.loader(yardstick.dtype), sample.calls)
    released(subject.device)
    return Finding(f"a crowd in {yardstick.dtype} against diffusers", *yardstick.exact(pictures_of(made)))


def reproducible(subject: Subject, sample: Sample) -> Finding:
    """That a reproducible call has the same bits whoever is beside it."""
    model = _model(subject, subject.dtype, Tuning(cache_bytes=0))
    asked, *others = sample.calls
    asked = replace(asked, reproducible=True)
    first = painted(_of(model), [asked])[0].pixels
    later = [
        painted(_of(model), [*others, asked])[-1].pixels,
        painted(_of(model), [asked, *(replace(other, reproducible=True) for other in others)])[0].pixels,
    ]
    worst = max(float(np.abs(each - first).max()) for each in later)
    equal = all(np.array_equal(each, first) for each in later)
    del model
    released(subject.device)
    told = "bit for bit the same, alone and with two sets of neighbours" if equal else f"pixels differ by {worst:.1e}"
    return Finding("reproducible calls", equal, told)


def memory(subject: Subject, sample: Sample, yardstick: Yardstick) -> Iterator[Finding]:
    """That a forward which runs out of memory is made smaller, and that the profile foresees what fits."""
    # Of many steps, so that the first ones are still there when the last ones begin.
    asked = replace(sample.calls[0], steps=100, strength=0.2, guidance_scale=4.0)
    calls = [replace(asked, seed=seed) for seed in range(MOST_ROWS // 2)]
    model = _model(subject, yardstick.dtype, Tuning(warm_up=True))
    with gauged(subject.device) as one:
        painted(_of(model), calls[:1])
    with gauged(subject.device) as all_of_them:
        free = painted(_of(model), calls)
    least, whole = one.peak or 0, all_of_them.peak or 0
    most = _rows(free)
    with (
        limited(subject.device, SPARE + least + int(0.4 * max(0, whole - least)), most // 2),
        _failed_forwards() as failed,
    ):
        tight = painted(_of(model), calls)
    same, told = yardstick.alike(pictures_of(tight), pictures_of(free))
    smaller = bool(failed) and _rows(tight) < most
    yield Finding(
        "forwards shrink where memory runs out",
        smaller and same,
        f"{most} rows, then {_rows(tight)}, {len(failed)} forwards failed and all calls ended well; {told}",
    )
    weights = model.bytes
    del model
    # What four fifths of the rows take, but enough for a picture to be decoded.
    left = max(int(0.8 * whole), int(1.25 * least)) + SPARE
    with crowded(subject.device, weights + left), _failed_forwards() as failed:
        model = _model(subject, yardstick.dtype, Tuning(warm_up=True))
        fitting = painted(_of(model), calls)
        del model
    yield Finding(
        "the profile finds what fits",
        not failed and _rows(fitting) > 1,
        f"{_rows(fitting)} rows"
        + (f" in {left / 1e9:.2f} GB where {most} take {whole / 1e9:.2f}" if whole else "")
        + f", {len(failed)} forwards failed",
    )
    released(subject.device)


def offload(subject: Subject, sample: Sample, yardstick: Yardstick) -> Finding:
    """That a model which is larger than the room for weights paints the same pictures."""
    model = _model(subject, yardstick.dtype, Tuning(model_bytes=1))
    weights = sum(file.stat().st_size for file in subject.folder.glob("*/*.safetensors"))
    held = model.bytes
    same, told = yardstick.exact(pictures_of(painted(_of(model), sample.calls[:2])))
    del model
    released(subject.device)
    return Finding(
        "a model that is offloaded",
        same and held < weights,
        f"{told}; {held / 1e6:.1f} of {weights / 1e6:.1f} MB at once on the device",
    )


def compiled(booth: Booth, sample: Sample, yardstick: Yardstick) -> Iterator[Finding]:
    """That a compiled engine paints what diffusers paints, and that the rows which fill a forward change nothing."""
    jobs = sample.jobs
    together = booth.run(list(zip(saturation(len(jobs)), jobs, strict=True)), PATIENCE)
    yield Finding(f"{booth.name} against diffusers", *yardstick.exact(together.pictures))
    alone = booth.run([(0.0, jobs[0])], PATIENCE)
    counted = alone.run.counters
    same, told = yardstick.alike(alone.pictures, together.pictures[:1])
    if np.array_equal(alone.pictures[0], together.pictures[0]):
        told = "the same bits beside others"
    yield Finding(
        f"{booth.name} with padded rows",
        same and counted.padded > 0,
        f"{counted.padded} of {counted.padded + counted.rows} rows only filled a forward; {told}",
    )


def _model(subject: Subject, dtype: str, tuning: Tuning) -> PipelineModel:
    return subject.loader(dtype, tuning)(subject.plan.name)


def _of(model: Model) -> Loader:
    return lambda _: model


def _rows(made: Sequence[Painted]) -> int:
    return max(each.rows for each in made)


@contextmanager
def _failed_forwards() -> Iterator[list[str]]:
    """What the engine says of forwards that failed, and that it made smaller."""
    told: list[str] = []

    class Listening(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            told.append(record.getMessage())

    listening = Listening(logging.WARNING)
    loop = logging.getLogger("overpaint_worker.engine.loop")
    propagates, loop.propagate = loop.propagate, False
    loop.addHandler(listening)
    try:
        yield told
    finally:
        loop.removeHandler(listening)
        loop.propagate = propagates
