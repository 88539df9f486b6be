"""Calls that interrupt each other paint, bit for bit, what each paints alone: they share weights and no state."""

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
from overpaint_worker.engine.whole import WholeModel, copy_for_call
from tests.engine.conftest import Models
from tests.engine.direct import call, noise_picture

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


def alone(engine: Engine, model: str, asked: Asked) -> NDArray[np.float32]:
    return engine.submit(call(model, **asked)).result(60).pixels


def submit(
    engine: Engine, model: str, asked: Asked, at: Mapping[int, Callable[[], object]]
) -> tuple[Future[Painted], list[int]]:
    """Submit a call; what `at` holds for a step is done there. Its future, and the steps that it told so far."""
    told: list[int] = []

    def on_progress(phase: str, steps: int) -> None:
        if phase == "denoise":
            told.append(steps)
            at.get(steps, lambda: None)()

    return engine.submit(call(model, **asked, on_progress=on_progress)), told


@pytest.mark.parametrize("name", EVERY)
def test_calls_that_interrupt_each_other_paint_what_each_paints_alone(engine: Engine, name: str) -> None:
    """Given a bulk call interrupted thrice by calls of other settings, one of them interrupted in its turn."""
    bulk, standard, unguided, guided = (alone(engine, name, asked) for asked in (BULK, STANDARD, UNGUIDED, GUIDED))
    futures: list[Future[Painted]] = []

    def arrives(asked: Asked, at: Mapping[int, Callable[[], object]]) -> Callable[[], None]:
        return lambda: futures.append(submit(engine, name, asked, at)[0])

    interrupted = arrives(STANDARD, {2: arrives(GUIDED, {})})
    future, told = submit(engine, name, BULK, {1: arrives(UNGUIDED, {}), 3: interrupted, 5: arrives(GUIDED, {})})

    assert np.array_equal(future.result(60).pixels, bulk)
    # Without waiting: what ran within the bulk call is done when that is.
    nested = [future.result(0).pixels for future in futures]
    assert len(nested) == 4
    assert all(map(np.array_equal, nested, [unguided, standard, guided, guided]))
    assert told == list(range(told[-1] + 1))
    assert not np.array_equal(bulk, standard)


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
        engine = Engine(lambda _: WholeModel(pipeline, info))
        engine.start()
        request.addfinalizer(engine.stop)
        return engine

    return serve


def test_an_sdxl_survives_one_that_ran_out_of_memory_within_it(
    models: Models, own: Callable[[Any], Engine], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Given a float16 VAE that an interrupting call left in float32, then the interrupted one finds it as it was."""
    pipeline = diffusers.StableDiffusionXLImg2ImgPipeline.from_pretrained(models.folder("sdxl"), dtype=torch.float16)
    engine = own(pipeline)
    before = alone(engine, "own", BULK)
    decode = pipeline.vae.decode
    urgent: list[Future[Painted]] = []

    def full(*_: object, **__: object) -> None:
        monkeypatch.setattr(pipeline.vae, "decode", decode)
        raise torch.OutOfMemoryError("CUDA out of memory")

    def arrive() -> None:
        monkeypatch.setattr(pipeline.vae, "decode", full)
        urgent.append(submit(engine, "own", GUIDED, {})[0])

    after = submit(engine, "own", BULK, {2: arrive})[0].result(60).pixels

    assert isinstance(urgent[0].exception(0), DeviceOutOfMemory)
    assert np.array_equal(after, before)


def test_perturbed_attention_survives_a_call_cancelled_within_it(models: Models, own: Callable[[Any], Engine]) -> None:
    """Given attention processors that an interrupting call exchanged, then the interrupted one finds its own again."""
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

    assert np.array_equal(urgent[0].result(0).pixels, guided)
    assert isinstance(urgent[1].exception(0), JobCancelled)
    assert np.array_equal(after, before)
