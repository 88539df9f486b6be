"""Calls that take turns paint what each paints alone: they share weights and forwards, and no state."""

from __future__ import annotations

import pickle
import random
import threading
from collections.abc import Callable, Mapping
from concurrent.futures import Future
from typing import Any

import diffusers
import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from overpaint_common.errors import DeviceOutOfMemory, JobCancelled
from overpaint_common.result import ModelInfo
from overpaint_worker.engine.calls import Painted
from overpaint_worker.engine.engine import Engine
from overpaint_worker.engine.model import PipelineModel
from overpaint_worker.engine.pipelines import copy_for_call
from tests.engine.conftest import Models
from tests.engine.direct import call, noise_picture

TOLERANCE = 1e-4
EVERY = ["mini", "pndm", "heun", "dpm", "ancestral", "sdxl", "sd3", "flux"]
"""Among them two schedulers that call the model more than once a step, two that remember, and one that draws noise."""

Asked = dict[str, Any]

BULK: Asked = {
    **{"priority": "bulk", "picture": noise_picture(32, 32), "negative_prompt": "a blue house"},
    **{"steps": 6, "strength": 0.9},
}
STANDARD: Asked = {
    **{"priority": "standard", "picture": noise_picture(32, 32, seed=1), "prompt": "a green tree", "seed": 21},
    **{"steps": 3, "strength": 1.0, "guidance_scale": 9.0},
}
UNGUIDED: Asked = {
    **{"priority": "interactive", "picture": noise_picture(32, 32, seed=2), "prompt": "a lake", "seed": 22},
    **{"steps": 7, "strength": 0.3, "guidance_scale": 1.0},
}
GUIDED: Asked = {
    **{"priority": "interactive", "picture": noise_picture(32, 48, seed=3), "prompt": "a house", "seed": 23},
    **{"steps": 2, "strength": 1.0, "guidance_scale": 2.0, "negative_prompt": "a cat"},
}
ASKED = (BULK, STANDARD, UNGUIDED, GUIDED)


def alone(engine: Engine, model: str, asked: Asked, **changes: Any) -> NDArray[np.float32]:
    return engine.submit(call(model, **asked, **changes)).result(60).pixels


def submit(
    engine: Engine, model: str, asked: Asked, at: Mapping[int, Callable[[], object]], **changes: Any
) -> tuple[Future[Painted], list[int]]:
    """Submit a call; what `at` holds for a step is done there. Its future, and the steps that it told so far."""
    told: list[int] = []

    def on_progress(phase: str, steps: int) -> None:
        if phase == "denoise":
            told.append(steps)
            at.get(steps, lambda: None)()

    return engine.submit(call(model, **asked, **changes, on_progress=on_progress)), told


@pytest.mark.parametrize(
    ("name", "reproducible"),
    [
        *((name, False) for name in EVERY),
        *((name, True) for name in ("heun", "dpm", "sdxl", "sd3")),
        *(pytest.param(name, True, marks=pytest.mark.long) for name in ("mini", "pndm", "ancestral", "flux")),
    ],
)
def test_calls_of_every_urgency_paint_what_each_paints_alone(engine: Engine, name: str, reproducible: bool) -> None:
    """Given a bulk call that others of other settings join thrice, one of them joined in its turn."""
    by_itself = [alone(engine, name, asked, reproducible=reproducible) for asked in ASKED]
    joining: list[tuple[int, Future[Painted]]] = []

    def arrives(asked: Asked, at: Mapping[int, Callable[[], object]]) -> Callable[[], None]:
        return lambda: joining.append(
            (ASKED.index(asked), submit(engine, name, asked, at, reproducible=reproducible)[0])
        )

    standard = arrives(STANDARD, {2: arrives(GUIDED, {})})
    at = {1: arrives(UNGUIDED, {}), 3: standard, 5: arrives(GUIDED, {})}
    bulk, told = submit(engine, name, BULK, at, reproducible=reproducible)

    together = [(0, bulk.result(60))]
    together += [(joining[place][0], joining[place][1].result(60)) for place in range(3)]
    # The last of them joined while the others ran.
    together.append((joining[3][0], joining[3][1].result(60)))
    assert sorted(number for number, _ in together) == [0, 1, 2, 3, 3]
    for number, painted in together:
        assert np.abs(painted.pixels - by_itself[number]).max() <= (0 if reproducible else TOLERANCE)
    assert told == list(range(told[-1] + 1))
    assert not np.array_equal(by_itself[0], by_itself[1])


@pytest.mark.parametrize("name", EVERY)
def test_no_call_draws_from_a_generator_that_calls_share(engine: Engine, name: str) -> None:
    def states() -> bytes:
        return pickle.dumps((torch.get_rng_state().tolist(), np.random.get_state(), random.getstate()))

    before = states()
    alone(engine, name, STANDARD)

    assert states() == before


@pytest.mark.parametrize("name", ["sd", "sdxl", "sd3"])
def test_a_copy_shares_all_but_the_scheduler(models: Models, name: str) -> None:
    pipeline = models.direct(name).pipeline

    copied = copy_for_call(pipeline)

    assert type(copied) is type(pipeline)
    assert copied.config == pipeline.config
    differing = {part for part in pipeline.components if getattr(copied, part) is not getattr(pipeline, part)}
    assert differing == {"scheduler"}
    assert copied.scheduler.config == pipeline.scheduler.config
    copied.scheduler.set_timesteps(3)
    assert len(copied.scheduler.timesteps) == 3 != len(pipeline.scheduler.timesteps)


def test_a_pipeline_within_a_pipeline_is_copied_with_the_same_scheduler() -> None:
    class Inner(diffusers.DiffusionPipeline):  # type: ignore[misc]
        def __init__(self, scheduler: Any) -> None:
            self.register_modules(scheduler=scheduler)

    class Outer(Inner):
        """As the combined pipelines of Kandinsky are built."""

        def __init__(self, scheduler: Any) -> None:
            super().__init__(scheduler)
            self.decoder_pipe = Inner(scheduler)

    pipeline = Outer(diffusers.DDIMScheduler())

    copied = copy_for_call(pipeline)

    assert copied.decoder_pipe is not pipeline.decoder_pipe
    assert copied.decoder_pipe.scheduler is copied.scheduler
    assert copied.scheduler is not pipeline.scheduler
    assert pipeline.decoder_pipe.scheduler is pipeline.scheduler


@pytest.fixture
def own(request: pytest.FixtureRequest) -> Any:
    """An engine on a pipeline that the test makes."""

    def serve(pipeline: Any) -> Engine:
        pipeline.set_progress_bar_config(disable=True)
        info = ModelInfo(name="own", revision="local", digest="", pipeline="", scheduler="", dtype="")
        engine = Engine(lambda _: PipelineModel(pipeline, info))
        engine.start()
        request.addfinalizer(engine.stop)
        return engine

    return serve


@pytest.mark.parametrize(("times", "expected"), [(1, type(None)), (2, DeviceOutOfMemory)])
def test_an_sdxl_survives_one_that_ran_out_of_memory_beside_it(
    models: Models,
    own: Callable[[Any], Engine],
    monkeypatch: pytest.MonkeyPatch,
    times: int,
    expected: type[DeviceOutOfMemory] | type[None],
) -> None:
    """Given a float16 VAE that is moved to float32 to decode, when memory runs out there, then it is tried again once,
    and the call beside it finds the VAE as it was.
    """
    pipeline = diffusers.StableDiffusionXLImg2ImgPipeline.from_pretrained(models.folder("sdxl"), dtype=torch.float16)
    engine = own(pipeline)
    before = alone(engine, "own", BULK)
    decode, left = pipeline.vae.decode, list(range(times))
    urgent: list[Future[Painted]] = []

    def full(*given: Any, **named: Any) -> Any:
        if left:
            left.pop()
            raise torch.OutOfMemoryError("CUDA out of memory")
        return decode(*given, **named)

    def arrive() -> None:
        monkeypatch.setattr(pipeline.vae, "decode", full)
        urgent.append(submit(engine, "own", GUIDED, {})[0])

    after = submit(engine, "own", BULK, {2: arrive})[0].result(60).pixels

    assert type(urgent[0].exception(60)) is expected
    assert left == []
    assert np.array_equal(after, before)


def test_perturbed_attention_survives_a_call_cancelled_beside_it(models: Models, own: Callable[[Any], Engine]) -> None:
    """Given attention processors that another call exchanged, when it is this one's turn, then it finds its own."""
    plain = diffusers.StableDiffusionImg2ImgPipeline.from_pretrained(models.folder("sd"), dtype=torch.float32)
    engine = own(diffusers.StableDiffusionPAGImg2ImgPipeline(**plain.components, pag_applied_layers=["mid"]))
    lone = BULK | {"guidance_scale": 1.0, "negative_prompt": ""}
    before, guided = alone(engine, "own", lone), alone(engine, "own", GUIDED)
    urgent: list[Future[Painted]] = []
    cancelled = threading.Event()

    def arrive_and_leave() -> None:
        given = call("own", **GUIDED, cancelled=cancelled, on_progress=lambda _, __: cancelled.set())
        urgent.append(engine.submit(given))

    outer = {1: lambda: urgent.append(submit(engine, "own", GUIDED, {})[0]), 3: arrive_and_leave}
    after = submit(engine, "own", lone, outer)[0].result(60).pixels

    assert np.array_equal(urgent[0].result(60).pixels, guided)
    assert isinstance(urgent[1].exception(60), JobCancelled)
    assert np.array_equal(after, before)
