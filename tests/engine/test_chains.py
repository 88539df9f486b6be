"""Passes in a row: stages on models of their own, what is kept between them, and the same bytes each time."""

from __future__ import annotations

import io
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import diffusers
import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st
from PIL import Image

from overpaint_common.errors import NotServed
from overpaint_common.fleet import ModelCard, settle, total_steps
from overpaint_common.job import Job, Output, Prepare
from overpaint_common.passes import Diffusion, Edit, Img2Img, Pass
from overpaint_worker.devices import child_environment
from overpaint_worker.engine.engine import Engine
from overpaint_worker.engine.kernels import deterministic
from overpaint_worker.finishing import EncodedVariant, encode_variants
from overpaint_worker.imaging.decode import decode
from overpaint_worker.imaging.fit import fit
from overpaint_worker.operations.passes import Outcome, run_passes
from overpaint_worker.operations.work import Inputs
from tests.engine.conftest import Models
from tests.engine.direct import noise_picture
from tests.engine.test_operations import Progress, card, seeds_of


def png(picture: Image.Image) -> bytes:
    file = io.BytesIO()
    picture.save(file, "PNG")
    return file.getvalue()


def opened(data: bytes) -> Image.Image:
    picture = Image.open(io.BytesIO(data))
    picture.load()
    return picture


class Bench:
    """Settles jobs on several models, and runs them from an encoded source to encoded pictures."""

    def __init__(self, models: Models, engine: Engine) -> None:
        self.models = models
        self.engine = engine
        self.progress = Progress()

    def cards(self, *names: str) -> dict[str, ModelCard]:
        return {name: card(name, self.models).model_copy(update={"schedulers": ("euler", "heun")}) for name in names}

    def settled(self, model: str, *passes: Pass, others: tuple[str, ...] = (), **fields: Any) -> Job:
        output = fields.pop("output", Output(prefix="s3://outbox/"))
        job = Job(source="s3://inbox/cat.png", model=model, passes=passes, output=output, **fields)
        return settle(job, self.cards(model, *others))

    def run(self, job: Job, data: bytes, *, others: tuple[str, ...] = ()) -> tuple[Outcome, list[EncodedVariant]]:
        source = decode(data, max_pixels=10**6)
        fitted = fit(source.picture, size=job.prepare.size or 64, method=job.prepare.fit)
        inputs = Inputs(fitted.picture, fitted.placement)
        cards = self.cards(job.model, *others)
        outcome = run_passes(job, inputs, cards, self.engine, self.progress.tracker)
        return outcome, encode_variants(job, outcome, source, inputs, {"overpaint": "1"})


@pytest.fixture
def bench(models: Models, engine: Engine) -> Bench:
    return Bench(models, engine)


STAGES = (
    Img2Img(prompt="a red cat", strength=0.9, steps=4, scheduler="heun"),
    Img2Img(prompt="a blue house", negative_prompt="a cat", strength=0.5, steps=6, model="sd3", seed=5),
    Edit(prompt="make it winter", steps=3, model="instruct", image_guidance_scale=2.0),
)


def test_stages_on_their_own_models_are_direct_calls_chained_through_8_bit_pictures(bench: Bench) -> None:
    """Given three stages on three models, when they run, then each takes what diffusers made of the one before.

    Reproducibly: a bit in which a shared forward differs might round to another level, and that goes on from there.
    """
    job = bench.settled("sd", *STAGES, others=("sd3", "instruct"), seed=77, variants=2, reproducible=True)
    first_seed, second_seed = seeds_of(job)
    last = job.passes[2]
    assert isinstance(last, Edit)

    outcome, _ = bench.run(job, png(noise_picture()), others=("sd3", "instruct"))

    sd, sd3, instruct = (bench.models.direct(name) for name in ("sd", "sd3", "instruct"))
    own = sd.pipeline.scheduler
    sd.pipeline.scheduler = diffusers.HeunDiscreteScheduler.from_config(own.config)
    for variant in outcome.variants:
        i = variant.index
        picture = sd.picture(
            noise_picture(),
            seed=first_seed + i,
            prompt="a red cat",
            strength=0.9,
            num_inference_steps=4,
            guidance_scale=4.0,
        )
        picture = sd3.picture(
            picture,
            seed=5 + i,
            prompt="a blue house",
            negative_prompt="a cat",
            strength=0.5,
            num_inference_steps=6,
            guidance_scale=4.0,
            width=64,
            height=64,
        )
        picture = instruct.picture(
            picture,
            seed=(last.seed or 0) + i,
            prompt="make it winter",
            num_inference_steps=3,
            guidance_scale=4.0,
            image_guidance_scale=2.0,
        )
        assert np.array_equal(np.asarray(variant.picture), np.asarray(picture))
    sd.pipeline.scheduler = own
    assert second_seed == 5
    assert outcome.variants[0].picture.tobytes() != outcome.variants[1].picture.tobytes()


def test_the_record_tells_each_stage_its_model_scheduler_and_seed(bench: Bench) -> None:
    job = bench.settled("sd", *STAGES, others=("sd3", "instruct"), seed=77, variants=2)
    seeds = [p.seed for p in job.passes if isinstance(p, Diffusion) and p.seed is not None]

    outcome, _ = bench.run(job, png(noise_picture()), others=("sd3", "instruct"))

    (_, second) = outcome.variants
    told = [(r.op, r.model, r.scheduler, r.steps, r.effective_steps, r.start_step) for r in second.runs]
    assert told == [
        ("img2img", "sd", "HeunDiscreteScheduler", 4, 3, 1),
        ("img2img", "sd3", "FlowMatchEulerDiscreteScheduler", 6, 3, 3),
        ("edit", "instruct", "EulerAncestralDiscreteScheduler", 3, 3, 0),
    ]
    assert [r.seed for r in second.runs] == [seed + 1 for seed in seeds]
    assert len(set(seeds)) == 3
    assert [(model.name, model.pipeline) for model in outcome.models] == [
        ("sd", "StableDiffusionImg2ImgPipeline"),
        ("sd3", "StableDiffusion3Img2ImgPipeline"),
        ("instruct", "StableDiffusionInstructPix2PixPipeline"),
    ]
    assert bench.progress.totals[-1] == total_steps(job, bench.cards("sd", "sd3", "instruct")) == 2 * (3 + 3 + 3)
    # Guidance takes three rows in the edit, which both variants may share.
    assert 3 <= outcome.rows <= 6


@pytest.mark.parametrize(("side", "enlarge"), [(520, 1.0), (400, 2.0)], ids=["kept", "enlarged"])
def test_a_picture_too_large_for_the_model_is_refused(bench: Bench, side: int, enlarge: float) -> None:
    """Given a picture that no fit made smaller, when a pass would paint it, then both sizes are named."""
    p = Img2Img(prompt="a red cat", strength=0.5, steps=4, enlarge=enlarge)
    job = bench.settled("mini", p, prepare=Prepare(fit="keep"))

    with pytest.raises(NotServed, match=rf"{round(side * enlarge)} x 8 pixels.*at most 512|{side * 2} x 16 .*most 512"):
        bench.run(job, png(noise_picture(side, 8)))


def test_a_model_that_comes_back_is_told_once(bench: Bench) -> None:
    """Given stages on one model, another, and the first again, when they run, then two models are told in order."""
    stages = [Img2Img(prompt="a cat", steps=2, strength=1.0, model=model) for model in (None, "pndm", "sd")]
    job = bench.settled("sd", *stages, others=("pndm",))

    outcome, _ = bench.run(job, png(noise_picture(32, 32)), others=("pndm",))

    assert [model.name for model in outcome.models] == ["sd", "pndm"]
    assert [r.model for r in outcome.variants[0].runs] == ["sd", "pndm", "sd"]


def test_intermediates_are_each_pass_but_the_last_with_padding_undone(bench: Bench) -> None:
    """Given a wide source that is padded, when intermediates are asked for, then they are what each pass made of it."""
    stages = [Img2Img(prompt="a cat", strength=s, steps=4, seed=i) for i, s in enumerate((0.5, 0.0, 0.75))]
    source = png(noise_picture(96, 48))

    def encoded(count: int, intermediates: bool) -> list[EncodedVariant]:
        output = Output(prefix="s3://outbox/", intermediates=intermediates)
        job = bench.settled("sd", *stages[:count], output=output, variants=2, reproducible=True)
        return bench.run(job, source)[1]

    for variant, without, after_first in zip(encoded(3, True), encoded(3, False), encoded(1, True), strict=True):
        assert len(variant.between) == 2
        assert without.between == after_first.between == ()
        first, second = (opened(kept.data) for kept in variant.between)
        assert first.size == second.size == opened(variant.picture.data).size == (64, 32)
        assert (variant.between[0].width, variant.between[0].height) == (64, 32)
        # What a job of the first pass alone makes; the second pass, of strength 0, leaves it so.
        assert np.array_equal(np.asarray(first), np.asarray(opened(after_first.picture.data)))
        assert np.array_equal(np.asarray(first), np.asarray(second))
        assert np.array_equal(np.asarray(opened(variant.picture.data)), np.asarray(opened(without.picture.data)))


SIDE = st.one_of(st.integers(1, 12), st.integers(13, 90))


def test_any_strength_size_and_format_gives_a_picture_of_the_right_size(bench: Bench) -> None:
    """Given sources down to one pixel and any strength, when they are repainted, then files of the size planned."""

    @settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.too_slow])
    @example(1, 90, 1.0, 1, "png", "pad", 32, "source")
    @example(90, 1, 0.4, 3, "webp", "bucket", 32, "model")
    @example(1, 1, 1.0, 1, "jpeg", "crop", 8, "source")
    @example(61, 33, 0.01, 3, "jpeg", "keep", 32, "model")
    @given(
        SIDE,
        SIDE,
        st.floats(0, 1),
        st.integers(1, 3),
        st.sampled_from(["png", "jpeg", "webp"]),
        st.sampled_from(["pad", "crop", "stretch", "bucket", "keep"]),
        st.sampled_from([8, 24, 32]),
        st.sampled_from(["model", "source"]),
    )
    def check(
        width: int, height: int, strength: float, steps: int, format: Any, method: Any, size: int, measure: Any
    ) -> None:
        running = int(steps * strength)
        p = Img2Img(prompt="a cat", strength=strength if running else 0.0, steps=steps)
        job = bench.settled(
            "sd",
            p,
            output=Output(prefix="s3://outbox/", format=format, size=measure),
            prepare=Prepare(fit=method, size=size),
        )

        outcome, (variant,) = bench.run(job, png(noise_picture(width, height)))

        assert outcome.variants[0].runs[0].effective_steps == running
        picture = opened(variant.picture.data)
        assert picture.format == format.upper()
        assert picture.mode == "RGB"
        assert picture.size == (variant.picture.width, variant.picture.height)
        if measure == "source" and method != "crop":
            assert picture.size == (width, height)
        elif method in ("pad", "stretch"):
            assert max(picture.size) <= size
        if method in ("pad", "keep") and measure == "model":
            # As near the source's shape as whole pixels are, and it never loses a dimension.
            scale = max(picture.size) / max(width, height)
            assert abs(picture.width - width * scale) <= 1
            assert abs(picture.height - height * scale) <= 1

    check()


PAINT = """
import hashlib, json, sys
import torch
from overpaint_common.fleet import ModelCard, settle
from overpaint_common.job import Job
from overpaint_worker.engine.engine import Engine
from overpaint_worker.engine.loading import PipelineLoader
from overpaint_worker.engine.registry import Registry
from overpaint_worker.finishing import encode_variants
from overpaint_worker.imaging.decode import decode
from overpaint_worker.imaging.fit import fit
from overpaint_worker.operations.passes import run_passes
from overpaint_worker.operations.tracker import Tracker
from overpaint_worker.operations.work import Inputs
import threading
from pathlib import Path

job = Job.parse(sys.argv[1])
source = decode(Path(sys.argv[2]).read_bytes(), max_pixels=10**6)
fitted = fit(source.picture, size=64, method="pad")
inputs = Inputs(fitted.picture, fitted.placement)
card = ModelCard.model_validate_json(sys.argv[3])
seen = []
model = PipelineLoader(Registry.embedded(), "cpu")(job.model)
for part in (model._faces.own.unet, model._faces.own.vae.decoder, model._faces.own.text_encoder):
    part.register_forward_pre_hook(lambda *_: seen.append(torch.are_deterministic_algorithms_enabled()))
engine = Engine(lambda _: model)
engine.start()
outcome = run_passes(job, inputs, {card.name: card}, engine, Tracker(lambda *_: None, threading.Event()))
engine.stop()
encoded = encode_variants(job, outcome, source, inputs, {"overpaint": "1"})
assert seen and all(seen) and not torch.are_deterministic_algorithms_enabled()
print(json.dumps([hashlib.sha256(variant.picture.data).hexdigest() for variant in encoded]))
"""


@pytest.mark.long
def test_a_reproducible_job_gives_the_same_bytes_in_two_processes(models: Models, tmp_path: Path) -> None:
    """Given one job, when two processes of other hash seeds paint it, then the files are the same."""
    source = tmp_path / "source.png"
    source.write_bytes(png(noise_picture(50, 70)))
    mini = card("mini", models).model_copy(
        update={"name": "overpaint-mini", "schedulers": ("euler_a",), "native_size": 64}
    )
    job = Job(
        id="the-same-job",
        source="s3://inbox/cat.png",
        model="overpaint-mini",
        passes=(Img2Img(prompt="a red circle", strength=0.5, steps=6, scheduler="euler_a"),),
        output=Output(prefix="s3://outbox/"),
        variants=2,
        reproducible=True,
    )
    given_words = [settle(job, {mini.name: mini}).model_dump_json(), str(source), mini.model_dump_json()]

    processes = [
        subprocess.Popen(
            [sys.executable, "-W", "ignore", "-c", PAINT, *given_words],
            env={**os.environ, "OMP_NUM_THREADS": "1", "PYTHONHASHSEED": str(number)},
            stdout=subprocess.PIPE,
            text=True,
        )
        for number in (1, 2)
    ]
    told = [json.loads(process.communicate(timeout=120)[0]) for process in processes]

    assert [process.returncode for process in processes] == [0, 0]
    assert told[0] == told[1]
    assert len(set(told[0])) == 2


def test_deterministic_kernels_end_with_the_block_also_within_others() -> None:
    def state() -> tuple[bool, bool]:
        return torch.are_deterministic_algorithms_enabled(), torch.backends.cudnn.benchmark

    before = state()
    try:
        torch.backends.cudnn.benchmark = True
        with deterministic(True):
            assert state() == (True, False)
            with deterministic(False):
                assert state() == (False, False)
                with pytest.raises(ValueError, match="no"), deterministic(True):
                    raise ValueError("no")
                assert state() == (False, False)
            assert state() == (True, False)
        assert state() == (before[0], True)
    finally:
        torch.backends.cudnn.benchmark = before[1]


def test_a_process_on_a_cuda_device_adds_up_in_one_order(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("CUBLAS_WORKSPACE_CONFIG", raising=False)
    assert child_environment("0")["CUBLAS_WORKSPACE_CONFIG"] == ":4096:8"
    assert "CUBLAS_WORKSPACE_CONFIG" not in child_environment("cpu")

    monkeypatch.setenv("CUBLAS_WORKSPACE_CONFIG", ":16:8")
    assert child_environment("0")["CUBLAS_WORKSPACE_CONFIG"] == ":16:8"
