"""The steps that are promised are the steps that the pipelines run."""

from __future__ import annotations

from typing import Any

import diffusers
import pytest
from hypothesis import assume, example, given, settings
from hypothesis import strategies as st

from overpaint_common.errors import StrengthTooSmall
from overpaint_common.steps import StepsRule, check_strength, effective_steps
from overpaint_worker.engine.engine import Engine
from overpaint_worker.engine.pipelines import finished_steps
from tests.engine.conftest import FAMILIES, Models
from tests.engine.direct import call

STEPS = st.integers(1, 200)
STRENGTH = st.floats(0, 1, exclude_min=True)

SCHEDULERS: list[tuple[str, dict[str, Any]]] = [
    ("DDIMScheduler", {}),
    ("PNDMScheduler", {"skip_prk_steps": True}),
    ("HeunDiscreteScheduler", {}),
    ("KDPM2DiscreteScheduler", {}),
    ("EulerAncestralDiscreteScheduler", {}),
    ("DPMSolverMultistepScheduler", {}),
    ("LMSDiscreteScheduler", {}),
    ("UniPCMultistepScheduler", {}),
]


def timesteps_of_run(pipeline: Any, steps: int, strength: float) -> tuple[Any, int]:
    """What a call of the pipeline would denoise, by diffusers' own methods."""
    shift = {"mu": 1.0} if pipeline.scheduler.config.get("use_dynamic_shifting") else {}
    pipeline.scheduler.set_timesteps(steps, **shift)
    timesteps, running = pipeline.get_timesteps(steps, strength, "cpu")
    return timesteps, running


@pytest.mark.parametrize("name", ["sd", "sdxl", "sd3", "flux"])
def test_effective_steps_are_those_of_the_pipeline(models: Models, name: str) -> None:
    rule = models.registry[name].steps_rule
    pipeline = models.direct(name).pipeline

    @settings(deadline=None, max_examples=60)
    @example(50, 0.58)
    @example(1, 1.0)
    @example(25, 0.04)
    @given(STEPS, STRENGTH)
    def check(steps: int, strength: float) -> None:
        timesteps, running = timesteps_of_run(pipeline, steps, strength)
        assert effective_steps(rule, steps, strength) == running == len(timesteps)

    check()


@pytest.mark.parametrize(("scheduler", "options"), SCHEDULERS)
def test_finished_steps_count_as_diffusers_progress_bar_does(scheduler: str, options: dict[str, Any]) -> None:
    class Stage(diffusers.StableDiffusionImg2ImgPipeline):  # type: ignore[misc]
        """The pipeline's own get_timesteps over a scheduler, without weights."""

        def __init__(self) -> None:
            self.register_modules(scheduler=getattr(diffusers, scheduler)(**options))

    pipeline = Stage()

    @settings(deadline=None, max_examples=15)
    @given(st.integers(2, 60), STRENGTH)
    def check(steps: int, strength: float) -> None:
        expected = effective_steps("floor", steps, strength)
        assume(expected > 0)
        timesteps, running = timesteps_of_run(pipeline, steps, strength)
        pipeline._num_timesteps = len(timesteps)
        order, updates = pipeline.scheduler.order, 0
        warmup = len(timesteps) - running * order
        for i in range(len(timesteps)):
            # The condition under which the pipelines of diffusers move their bar.
            updates += i == len(timesteps) - 1 or (i + 1 > warmup and (i + 1) % order == 0)
            assert finished_steps(pipeline, steps, i + 1) == updates
        assert updates == expected

    check()


@pytest.mark.parametrize("name", ["pndm", "heun", "sd", "sd3"])
def test_painted_steps_are_the_effective_steps(engine: Engine, models: Models, name: str) -> None:
    seen: list[int] = []
    given_call = call(
        name, steps=7, strength=0.75, on_progress=lambda phase, n: seen.append(n) if phase != "load" else None
    )

    painted = engine.submit(given_call).result(60)

    expected = effective_steps(models.registry[name].steps_rule, 7, 0.75)
    assert painted.steps == expected
    assert seen == list(range(expected + 1))


@given(st.sampled_from(["floor", "ceil"]), STEPS, st.floats(0, 1))
def test_never_more_steps_than_asked_and_more_strength_never_fewer(
    rule: StepsRule, steps: int, strength: float
) -> None:
    running = effective_steps(rule, steps, strength)

    assert 0 <= running <= steps
    assert running <= effective_steps(rule, steps, min(1.0, strength + 0.1))
    assert effective_steps(rule, steps, 1.0) == steps
    assert effective_steps(rule, steps, 0.0) == 0


@given(st.sampled_from(["floor", "ceil"]), STEPS, st.floats(1 / 900, 1))
def test_a_strength_too_small_names_the_fewest_steps_that_work(rule: StepsRule, steps: int, strength: float) -> None:
    try:
        assert check_strength(rule, steps, strength, where="pass 0") > 0
    except StrengthTooSmall as error:
        enough = int(str(error).split("steps >= ")[1].split(",")[0])
        assert effective_steps(rule, enough, strength) > 0
        assert all(effective_steps(rule, fewer, strength) == 0 for fewer in range(1, enough))


def test_every_family_of_the_registry_is_compared_here() -> None:
    assert {FAMILIES[name] for name in ("sd", "sdxl", "sd3", "flux")} == set(FAMILIES.values())
