"""One call: progress, cancelling, and that no call leaves anything behind for the next."""

from __future__ import annotations

from typing import Any

import diffusers
import numpy as np
import pytest
import torch

from overpaint_common.errors import DeviceOutOfMemory, JobCancelled, PipelineFailed
from overpaint_common.result import ModelInfo
from overpaint_worker.engine.calls import Call
from overpaint_worker.engine.engine import Engine
from overpaint_worker.engine.model import PipelineModel
from tests.engine.conftest import Models
from tests.engine.direct import call, noise_picture

EVERY = ["mini", "pndm", "heun", "sdxl", "sd3", "flux"]


def pixels(engine: Engine, given: Call) -> bytes:
    return engine.submit(given).result(60).pixels.tobytes()


def cancelled_at(engine: Engine, model: str, step: int) -> list[int]:
    """Run a call that is cancelled once `step` steps are done; the steps that were told."""
    seen: list[int] = []

    def on_progress(phase: str, done: int) -> None:
        if phase == "denoise":
            seen.append(done)
            if done == step:
                given.cancelled.set()

    given = call(model, steps=8, strength=1.0, on_progress=on_progress)
    with pytest.raises(JobCancelled, match=f"cancelled at step {step}"):
        engine.submit(given).result(60)
    return seen


@pytest.mark.parametrize("name", EVERY)
def test_a_cancelled_call_stops_at_its_step_and_changes_nothing_after_it(engine: Engine, name: str) -> None:
    before = pixels(engine, call(name))

    assert cancelled_at(engine, name, 3) == [0, 1, 2, 3]
    assert pixels(engine, call(name)) == before


@pytest.mark.parametrize("name", EVERY)
def test_the_same_call_gives_the_same_bytes_whatever_came_before(engine: Engine, name: str) -> None:
    first = pixels(engine, call(name))
    pixels(engine, call(name, noise_picture(32, 80, seed=5), steps=9, strength=0.9, guidance_scale=1.0, seed=99))

    assert pixels(engine, call(name)) == first


def test_a_call_cancelled_at_its_last_step_is_cancelled(engine: Engine) -> None:
    assert cancelled_at(engine, "sd", 8)[-1] == 8


def test_what_a_call_tells_of_itself(engine: Engine) -> None:
    guided, unguided, flux = (
        engine.submit(given).result(60) for given in (call("sd"), call("sd", guidance_scale=1.0), call("flux"))
    )

    assert (guided.rows, unguided.rows) == (2, 1)
    # Guidance is an input of this transformer: one row.
    assert flux.rows == 1
    assert guided.seconds > 0
    assert guided.started_at.tzinfo is not None
    assert guided.pixels.dtype == np.float32
    assert 0 <= guided.pixels.min() <= guided.pixels.max() <= 1
    assert guided.model.scheduler == "DDIMScheduler"
    assert flux.model.pipeline == "FluxImg2ImgPipeline"


@pytest.mark.parametrize(
    ("name", "guidance_scale", "codes", "why"),
    [
        ("sd", 4.0, [], ""),
        ("sd3", 4.0, [], ""),
        ("sd", 1.0, ["negative_prompt_ignored"], "guidance_scale 1 runs without it; use more than 1"),
        ("flux", 4.0, ["negative_prompt_ignored"], "FluxImg2ImgPipeline is guided without one"),
    ],
)
def test_a_negative_prompt_without_effect_is_said(
    engine: Engine, name: str, guidance_scale: float, codes: list[str], why: str
) -> None:
    plain = engine.submit(call(name, guidance_scale=guidance_scale)).result(60)
    given = call(name, guidance_scale=guidance_scale, negative_prompt="a blue house")
    painted = engine.submit(given).result(60)

    assert [note.code for note in painted.warnings] == codes
    assert all(why in note.message for note in painted.warnings)
    assert np.array_equal(plain.pixels, painted.pixels) is bool(codes)


class Harness:
    """A pipeline of the test's own behind the engine."""

    def __init__(self, pipeline: Any) -> None:
        pipeline.set_progress_bar_config(disable=True)
        info = ModelInfo(name="own", revision="local", digest="", pipeline="", scheduler="", dtype="")
        self.pipeline = pipeline
        self.engine = Engine(lambda _: PipelineModel(pipeline, info))
        self.engine.start()


def test_an_sdxl_that_ran_out_of_memory_in_its_vae_works_again(models: Models, monkeypatch: pytest.MonkeyPatch) -> None:
    # SDXL moves a float16 VAE to float32 and back; an error in between leaves it in float32.
    own = Harness(
        diffusers.StableDiffusionXLImg2ImgPipeline.from_pretrained(models.folder("sdxl"), dtype=torch.float16)
    )
    given = call("own", noise_picture(32, 32), steps=2)
    before = pixels(own.engine, given)

    def full(*_: object, **__: object) -> None:
        raise torch.OutOfMemoryError("CUDA out of memory")

    with monkeypatch.context() as patch:
        patch.setattr(own.pipeline.vae, "decode", full)
        with pytest.raises(DeviceOutOfMemory):
            pixels(own.engine, given)

    assert pixels(own.engine, given) == before
    own.engine.stop()


def test_nan_is_an_error_and_no_black_picture(models: Models) -> None:
    own = Harness(diffusers.StableDiffusionImg2ImgPipeline.from_pretrained(models.folder("sd"), dtype=torch.float32))
    torch.nn.init.constant_(own.pipeline.vae.decoder.conv_out.weight, float("nan"))

    with pytest.raises(PipelineFailed, match="NaN; set dtype float32 or bfloat16"):
        own.engine.submit(call("own")).result(60)
    own.engine.stop()
