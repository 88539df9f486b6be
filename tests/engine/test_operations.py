"""Passes and variants on the engine: chained as a person would chain direct calls, and recorded as they ran."""

from __future__ import annotations

import threading
from typing import Any

import numpy as np
import pytest

from overpaint_common.errors import JobCancelled, PipelineFailed
from overpaint_common.fleet import ModelCard, settle, total_steps
from overpaint_common.job import Job, Output
from overpaint_common.passes import Img2Img, Pass
from overpaint_worker.engine.calls import Call
from overpaint_worker.engine.engine import Engine
from overpaint_worker.imaging.fit import fit
from overpaint_worker.operations.passes import Outcome, is_passthrough, passthrough_runs, run_passes
from overpaint_worker.operations.tracker import Tracker
from overpaint_worker.operations.work import Inputs
from tests.engine.conftest import Models
from tests.engine.direct import call, noise_picture
from tests.engine.fakes import PATIENCE, GatedModel
from tests.support.cards import model_card


def card(name: str, models: Models) -> ModelCard:
    return model_card(name, operations=models.registry[name].operations, steps_rule=models.registry[name].steps_rule)


def settled(name: str, models: Models, *passes: Pass, **fields: Any) -> Job:
    job = Job(source="s3://inbox/cat.png", model=name, passes=passes, output=Output(prefix="s3://outbox/"), **fields)
    return settle(job, {name: card(name, models)})


def seeds_of(job: Job) -> list[int]:
    return [p.seed for p in job.passes if isinstance(p, Img2Img) and p.seed is not None]


class Progress:
    """What the tracker of one job told."""

    def __init__(self) -> None:
        self.totals: list[int] = []
        self.cancelled = threading.Event()
        self.tracker = Tracker(lambda _, total: self.totals.append(total), self.cancelled)


def run(job: Job, models: Models, engine: Engine, progress: Progress | None = None) -> Outcome:
    fitted = fit(noise_picture(), size=64, method="keep")
    cards = {job.model: card(job.model, models)}
    inputs = Inputs(fitted.picture, fitted.placement)
    return run_passes(job, inputs, cards, engine, (progress or Progress()).tracker)


def step(prompt: str = "a red cat", strength: float = 0.6, **changes: Any) -> Img2Img:
    return Img2Img(prompt=prompt, strength=strength, **changes)


@pytest.mark.parametrize("name", ["mini", "sd3"])
def test_a_job_with_a_seed_is_a_direct_call_with_that_seed(engine: Engine, models: Models, name: str) -> None:
    job = settled(name, models, step(steps=5), seed=1234)

    (variant,) = run(job, models, engine).variants

    sizes = {"width": 64, "height": 64} if name == "sd3" else {}
    expected = models.direct(name).picture(
        noise_picture(),
        seed=1234,
        prompt="a red cat",
        strength=0.6,
        num_inference_steps=5,
        guidance_scale=4.0,
        **sizes,
    )
    assert np.array_equal(np.asarray(variant.picture), np.asarray(expected))


@pytest.mark.parametrize("reproducible", [False, True])
def test_variant_i_adds_i_to_the_seed(engine: Engine, models: Models, reproducible: bool) -> None:
    """Given variants, then each is the picture of its own seed: to the bit where that is asked, else to the level."""

    def painted(**fields: Any) -> Outcome:
        return run(settled("sd", models, step(), reproducible=reproducible, **fields), models, engine)

    three = painted(seed=50, variants=3)
    alone = [painted(seed=50 + i) for i in range(3)]

    assert [variant.runs[0].seed for variant in three.variants] == [50, 51, 52]
    for variant, single in zip(three.variants, alone, strict=True):
        levels = np.abs(np.asarray(variant.picture, np.int16) - np.asarray(single.variants[0].picture, np.int16))
        assert levels.max() <= (0 if reproducible else 1)
    assert len({variant.picture.tobytes() for variant in three.variants}) == 3


def test_passes_are_direct_calls_chained_through_8_bit_pictures(engine: Engine, models: Models) -> None:
    # Given three passes and in the middle one of strength 0, which diffusers would answer with nothing.
    passes = (
        step("a red cat", 0.5, seed=3),
        step("ignored", 0),
        step("a blue house", 0.8, steps=4, guidance_scale=1.5),
    )
    job = settled("sd", models, *passes, seed=77)
    seed_of_last = seeds_of(job)[2]

    outcome = run(job, models, engine)

    direct = models.direct("sd").picture
    first = direct(noise_picture(), seed=3, prompt="a red cat", strength=0.5, num_inference_steps=6, guidance_scale=4.0)
    last = direct(
        first, seed=seed_of_last, prompt="a blue house", strength=0.8, num_inference_steps=4, guidance_scale=1.5
    )
    (variant,) = outcome.variants
    assert np.array_equal(np.asarray(variant.picture), np.asarray(last))
    recorded = [(r.seed, r.steps, r.effective_steps, r.start_step, r.passthrough) for r in variant.runs]
    middle = seeds_of(job)[1]
    assert recorded == [(3, 6, 3, 3, False), (middle, 6, 0, 6, True), (seed_of_last, 4, 3, 1, False)]
    assert [r.started_at is None for r in variant.runs] == [False, True, False]
    assert [model.name for model in outcome.models] == ["sd"]
    assert outcome.engine_seconds == pytest.approx(sum(r.seconds for r in variant.runs), abs=1e-5)


def test_flow_matching_records_one_step_more(engine: Engine, models: Models) -> None:
    (variant,) = run(settled("flux", models, step(steps=10, strength=0.55)), models, engine).variants

    assert (variant.runs[0].start_step, variant.runs[0].effective_steps) == (4, 6)


def test_no_two_passes_and_variants_share_noise(models: Models) -> None:
    for base in range(200):
        job = settled("sd", models, *[step()] * 16, seed=base, variants=16)
        seeds = [seed + i for seed in seeds_of(job) for i in range(16)]
        assert len(set(seeds)) == 256


@pytest.mark.parametrize("name", ["sd", "pndm", "heun", "flux"])
def test_progress_ends_exactly_at_the_total(engine: Engine, models: Models, name: str) -> None:
    job = settled(name, models, step(strength=0.5, steps=3), step(strength=0), step(strength=0.7), variants=2)
    progress = Progress()

    run(job, models, engine, progress)

    assert progress.totals == sorted(progress.totals)
    assert progress.totals[-1] == total_steps(job, {name: card(name, models)})
    assert set(progress.totals) == set(range(progress.totals[-1] + 1))


def test_variants_that_nobody_waits_for_leave_at_their_next_step(models: Models) -> None:
    # Given four variants of which the first fails in its second step.
    model = GatedModel()
    model.gate.set()
    steps: list[int] = []

    progress = Progress()

    def before_step(given: Call) -> None:
        steps.append(given.seed)
        if steps == [100, 100]:
            raise ValueError("no")
        if given.seed > 100:
            assert progress.cancelled.wait(PATIENCE)

    model.before_step = before_step
    engine = Engine(lambda _: model)
    engine.start()

    with pytest.raises(PipelineFailed, match="ValueError: no"):
        run(settled("sd", models, step(), seed=100, variants=4), models, engine, progress)
    engine.submit(call("gated", seed=1)).result(PATIENCE)
    engine.stop()

    # The one that had begun left at its next step, the others never began.
    assert steps == [100, 100, 101, 1, 1, 1, 1, 1]


def test_a_cancelled_job_stops_every_variant(engine: Engine, models: Models) -> None:
    job = settled("sd", models, step(steps=8, strength=1.0), variants=3)
    progress = Progress()

    def report(_: str, total: int) -> None:
        progress.totals.append(total)
        if total == 4:
            progress.cancelled.set()

    progress.tracker = Tracker(report, progress.cancelled)
    with pytest.raises(JobCancelled):
        run(job, models, engine, progress)

    # The forward in which that happened may be that of all three.
    assert 4 <= progress.totals[-1] < 4 + 3


def test_warnings_of_many_calls_are_said_once(engine: Engine, models: Models) -> None:
    job = settled("sd", models, step("red " * 100), step("red " * 100), variants=2)

    assert [note.code for note in run(job, models, engine).warnings] == ["prompt_cut"]


def test_a_job_of_strength_0_alone_needs_no_engine(models: Models) -> None:
    job = settled("sd", models, step(strength=0), step(strength=0), seed=5)

    assert is_passthrough(job)
    assert [(r.passthrough, r.effective_steps, r.start_step) for r in passthrough_runs(job, 1)] == [(True, 0, 6)] * 2
    assert passthrough_runs(job, 1)[0].seed == 6
    assert not is_passthrough(settled("sd", models, step(strength=0), step(strength=0.5)))
