"""Schedulers named by a pass: what each paints is what diffusers paints with it, and none leaves anything behind."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from concurrent.futures import Future
from contextlib import contextmanager
from typing import Any

import diffusers
import numpy as np
import pytest
import torch
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from overpaint_common.errors import ModelLoadFailed, NotServed
from overpaint_common.fleet import settle, total_steps
from overpaint_common.passes import Img2Img
from overpaint_common.schedulers import FLOW_SCHEDULERS, SCHEDULERS, SchedulerName
from overpaint_common.steps import effective_steps
from overpaint_worker.engine import schedulers
from overpaint_worker.engine.calls import Painted
from overpaint_worker.engine.engine import Engine
from overpaint_worker.engine.loading import PipelineLoader
from overpaint_worker.engine.pipelines import finished_steps
from overpaint_worker.engine.registry import ModelSpec, Registry
from tests.engine.conftest import Models
from tests.engine.direct import call, noise_picture
from tests.engine.test_operations import Progress, card, run, settled

TOLERANCE = 1e-4
SMALL = noise_picture(32, 32)

MEANT: dict[SchedulerName, tuple[type, dict[str, Any]]] = {
    "ddim": (diffusers.DDIMScheduler, {}),
    "ddpm": (diffusers.DDPMScheduler, {}),
    "deis": (diffusers.DEISMultistepScheduler, {}),
    "dpm2": (diffusers.KDPM2DiscreteScheduler, {}),
    "dpm2_a": (diffusers.KDPM2AncestralDiscreteScheduler, {}),
    "dpmpp_2m": (diffusers.DPMSolverMultistepScheduler, {}),
    "dpmpp_2m_karras": (diffusers.DPMSolverMultistepScheduler, {"use_karras_sigmas": True}),
    "dpmpp_2s": (diffusers.DPMSolverSinglestepScheduler, {}),
    "euler": (diffusers.EulerDiscreteScheduler, {}),
    "euler_a": (diffusers.EulerAncestralDiscreteScheduler, {}),
    "euler_karras": (diffusers.EulerDiscreteScheduler, {"use_karras_sigmas": True}),
    "heun": (diffusers.HeunDiscreteScheduler, {}),
    "lcm": (diffusers.LCMScheduler, {}),
    "lms": (diffusers.LMSDiscreteScheduler, {}),
    "pndm": (diffusers.PNDMScheduler, {"skip_prk_steps": True}),
    "unipc": (diffusers.UniPCMultistepScheduler, {}),
}
"""As the documentation of diffusers tells its reader to choose each."""


@contextmanager
def on(pipeline: Any, scheduler_class: Any, **options: Any) -> Iterator[None]:
    """Within the block the pipeline has another scheduler, made as its documentation says."""
    own = pipeline.scheduler
    pipeline.scheduler = scheduler_class.from_config(own.config, **options)
    yield
    pipeline.scheduler = own


def test_every_name_is_compared_here() -> None:
    assert tuple(MEANT) == SCHEDULERS


@pytest.mark.parametrize("scheduler", SCHEDULERS)
@pytest.mark.parametrize("name", [pytest.param("mini", marks=pytest.mark.long), "sd", "sdxl"])
def test_every_scheduler_paints_what_diffusers_paints_with_it(
    engine: Engine, models: Models, name: str, scheduler: SchedulerName
) -> None:
    """Given a strength that starts in the middle, when a scheduler is named, then pixels, steps and class agree."""
    told: list[int] = []
    asked = call(
        name,
        SMALL,
        scheduler=scheduler,
        steps=6,
        strength=0.7,
        negative_prompt="a blue house",
        on_progress=lambda phase, steps: told.append(steps) if phase == "denoise" else None,
    )

    painted = engine.submit(asked).result(60)

    direct = models.direct(name)
    scheduler_class, options = MEANT[scheduler]
    with on(direct.pipeline, scheduler_class, **options):
        theirs = direct(
            SMALL,
            seed=7,
            prompt="a red cat",
            negative_prompt="a blue house",
            strength=0.7,
            num_inference_steps=6,
            guidance_scale=4.0,
        )
    assert np.abs(painted.pixels - theirs).max() <= TOLERANCE
    assert painted.scheduler == scheduler_class.__name__
    assert painted.steps == 4
    assert told == [0, 1, 2, 3, 4]
    assert painted.model.scheduler == models.loaded(name).info.scheduler


@pytest.mark.parametrize(
    ("name", "scheduler", "scheduler_class"),
    [
        ("sd3", "euler", diffusers.FlowMatchEulerDiscreteScheduler),
        ("sd3", "heun", diffusers.FlowMatchHeunDiscreteScheduler),
        ("flux", "euler", diffusers.FlowMatchEulerDiscreteScheduler),
    ],
)
@pytest.mark.parametrize("strength", [0.6, 1.0])
def test_flow_matching_models_have_their_own(
    engine: Engine, models: Models, name: str, scheduler: SchedulerName, scheduler_class: type, strength: float
) -> None:
    painted = engine.submit(call(name, scheduler=scheduler, strength=strength)).result(60)

    direct = models.direct(name)
    with on(direct.pipeline, scheduler_class):
        theirs = direct(
            noise_picture(),
            seed=7,
            prompt="a red cat",
            strength=strength,
            num_inference_steps=5,
            guidance_scale=4.0,
            width=64,
            height=64,
        )
    assert np.abs(painted.pixels - theirs).max() <= TOLERANCE
    assert painted.scheduler == scheduler_class.__name__
    assert painted.steps == effective_steps("ceil", 5, strength)


@pytest.mark.parametrize("scheduler", sorted(set(SCHEDULERS) - set(FLOW_SCHEDULERS)))
def test_a_name_that_the_family_lacks_is_refused_twice(
    engine: Engine, models: Models, scheduler: SchedulerName
) -> None:
    """Given a flow-matching model, when it is asked for another kind's, then settling and the engine refuse it."""
    announced = card("sd3", models).model_copy(update={"schedulers": models.registry["sd3"].schedulers})
    job = settled("sd3", models, Img2Img(prompt="a cat"))
    asked = job.model_copy(update={"passes": (Img2Img(prompt="a cat", scheduler=scheduler),)})

    with pytest.raises(NotServed, match=f"model 'sd3' has no scheduler '{scheduler}'; it has euler, heun"):
        settle(asked, {"sd3": announced})
    with pytest.raises(NotServed, match=f"scheduler '{scheduler}': flow-matching models have euler, heun"):
        engine.submit(call("sd3", scheduler=scheduler)).result(60)


def test_a_pipeline_that_sets_its_own_noise_levels_says_so(engine: Engine) -> None:
    # Flux's own pipeline miscounts the steps of schedulers that call the model twice.
    with pytest.raises(NotServed, match="'heun': this model's pipeline sets its own noise levels; name euler or none"):
        engine.submit(call("flux", scheduler="heun")).result(60)


@pytest.mark.parametrize(
    "own",
    [
        diffusers.SCMScheduler(),
        diffusers.UniPCMultistepScheduler(use_flow_sigmas=True, prediction_type="flow_prediction"),
    ],
    ids=["consistency", "flow sigmas"],
)
def test_a_model_that_runs_on_its_own_alone_says_so(own: Any) -> None:
    with pytest.raises(NotServed, match=f"'euler': this model runs on its own {type(own).__name__} alone; name none"):
        schedulers.make("euler", own)


@pytest.mark.parametrize("spacing", ["use_karras_sigmas", "use_exponential_sigmas", "use_beta_sigmas"])
def test_the_name_decides_the_spacing_and_not_the_models_own(spacing: str) -> None:
    """Given a model whose own scheduler spaces its noise in some way, when one is named, then its name says how."""
    betas = {"beta_start": 0.00085, "beta_end": 0.012, "beta_schedule": "scaled_linear"}
    own = diffusers.DPMSolverMultistepScheduler(
        algorithm_type="sde-dpmsolver++", solver_order=3, **betas, **{spacing: True}
    )

    made: dict[SchedulerName, Any] = {
        name: schedulers.make(name, own) for name in ("euler", "euler_karras", "dpmpp_2m", "dpmpp_2m_karras")
    }

    meant = {
        "euler": diffusers.EulerDiscreteScheduler(**betas),
        "euler_karras": diffusers.EulerDiscreteScheduler(**betas, use_karras_sigmas=True),
        "dpmpp_2m": diffusers.DPMSolverMultistepScheduler(**betas),
        "dpmpp_2m_karras": diffusers.DPMSolverMultistepScheduler(**betas, use_karras_sigmas=True),
    }
    for name, scheduler in made.items():
        scheduler.set_timesteps(7)
        meant[name].set_timesteps(7)
        assert torch.equal(scheduler.sigmas, meant[name].sigmas)
    assert made["dpmpp_2m"].config.algorithm_type == "dpmsolver++"
    assert made["dpmpp_2m"].config.solver_order == 2


@pytest.mark.parametrize("scheduler", SCHEDULERS)
def test_finished_steps_count_as_diffusers_progress_bar_does(scheduler: SchedulerName) -> None:
    class Stage(diffusers.StableDiffusionImg2ImgPipeline):  # type: ignore[misc]
        """The pipeline's own get_timesteps over a scheduler, without weights."""

        def __init__(self) -> None:
            self.register_modules(scheduler=schedulers.make(scheduler, diffusers.DDIMScheduler()))

    pipeline = Stage()

    @settings(deadline=None, max_examples=10)
    @given(st.integers(2, 50), st.floats(0.01, 1))
    def check(steps: int, strength: float) -> None:
        expected = effective_steps("floor", steps, strength)
        assume(expected > 0)
        pipeline.scheduler.set_timesteps(steps)
        timesteps, running = pipeline.get_timesteps(steps, strength, "cpu")
        pipeline._num_timesteps = len(timesteps)
        order, updates = pipeline.scheduler.order, 0
        warmup = len(timesteps) - running * order
        for i in range(len(timesteps)):
            updates += i == len(timesteps) - 1 or (i + 1 > warmup and (i + 1) % order == 0)
            assert finished_steps(pipeline, steps, i + 1) == updates
        assert updates == expected

    check()


@pytest.mark.parametrize("scheduler", ["ddim", "dpm2", "dpm2_a", "heun", "pndm", "dpmpp_2s", "lcm"])
def test_progress_ends_exactly_at_the_total(engine: Engine, models: Models, scheduler: SchedulerName) -> None:
    """Given two passes and two variants, when a scheduler runs them, then each step is told once, up to the total."""
    passes = [Img2Img(prompt="a cat", strength=0.5, steps=5), Img2Img(prompt="a dog", strength=1.0, steps=3)]
    job = settled("sd", models, *passes, variants=2)
    job = job.model_copy(update={"passes": tuple(p.model_copy(update={"scheduler": scheduler}) for p in job.passes)})
    progress = Progress()

    outcome = run(job, models, engine, progress)

    assert progress.totals[-1] == total_steps(job, {"sd": card("sd", models)}) == 2 * (2 + 3)
    assert set(progress.totals) == set(range(11))
    assert [(r.effective_steps, r.start_step) for r in outcome.variants[1].runs] == [(2, 3), (3, 0)]
    assert {r.scheduler for r in outcome.variants[0].runs} == {MEANT[scheduler][0].__name__}


def test_a_named_scheduler_leaves_nothing_behind(engine: Engine) -> None:
    """Given schedulers that remember earlier steps, when they take turns, then each paints as if it were alone."""
    names: list[SchedulerName | None] = [None, "dpmpp_2m", "lms", "unipc", "heun", "dpm2_a", None]
    first = {name: engine.submit(call("pndm", SMALL, scheduler=name)).result(60) for name in names}

    for name in reversed(names):
        again = engine.submit(call("pndm", SMALL, scheduler=name, steps=5)).result(60)
        assert np.array_equal(again.pixels, first[name].pixels)
    assert len({painted.pixels.tobytes() for painted in first.values()}) == len(first)
    assert first[None].scheduler == "PNDMScheduler"


@pytest.mark.parametrize("reproducible", [False, True])
def test_calls_on_other_schedulers_may_run_beside_each_other(engine: Engine, reproducible: bool) -> None:
    """Given a call that is joined by one on another scheduler and by one on its own, then each paints as if alone."""
    asked: dict[str, dict[str, Any]] = {
        "bulk": {"scheduler": "dpmpp_2m", "priority": "bulk", "steps": 6},
        "standard": {"scheduler": "unipc", "priority": "standard", "seed": 8},
        "interactive": {"scheduler": "dpmpp_2m", "priority": "interactive", "seed": 9, "steps": 4},
    }
    joining: dict[str, Future[Painted]] = {}

    def submit(name: str, on_progress: Callable[[str, int], None] = lambda _, __: None) -> Future[Painted]:
        return engine.submit(call("sd", SMALL, **asked[name], reproducible=reproducible, on_progress=on_progress))

    def at(step: int, name: str) -> Callable[[str, int], None]:
        def on_progress(phase: str, steps: int) -> None:
            if phase == "denoise" and steps == step and name not in joining:
                joining[name] = submit(name, at(1, "interactive"))

        return on_progress

    alone = {name: submit(name).result(60).pixels for name in asked}
    joining["bulk"] = submit("bulk", at(2, "standard"))
    together = {name: joining[name].result(60).pixels for name in ("bulk", "standard", "interactive")}

    for name, pixels in together.items():
        assert np.abs(pixels - alone[name]).max() <= (0 if reproducible else TOLERANCE)


def test_a_registry_entry_may_name_the_scheduler_for_all_its_jobs(models: Models) -> None:
    """Given an entry with a scheduler, when a call names none, then that one runs; one of another kind is refused."""
    spec = ModelSpec(path=models.folder("sd"), scheduler="euler")
    named = PipelineLoader(Registry(models={"m": spec}), "cpu")("m")
    asked = call("m", scheduler=None)

    assert named.info.scheduler == "EulerDiscreteScheduler"
    expected = models.loaded("sd").run(call("sd", scheduler="euler"), lambda _: None).pixels
    assert np.array_equal(named.run(asked, lambda _: None).pixels, expected)

    wrong = ModelSpec(path=models.folder("sd3"), family="flow-matching", scheduler="ddim")
    with pytest.raises(ModelLoadFailed, match="flow-matching models have euler, heun"):
        PipelineLoader(Registry(models={"m": wrong}), "cpu")("m")


def test_lms_has_what_it_needs() -> None:
    """Given what the worker installs, when lms asks for its integrals, then scipy is there."""
    scheduler = schedulers.make("lms", diffusers.DDIMScheduler())
    scheduler.set_timesteps(3)

    assert scheduler.get_lms_coefficient(1, 0, 0) != 0
