"""The bench of the engine on a GPU: its plans and its split of time everywhere, its checks where there is a GPU."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from copy import copy
from pathlib import Path

import diffusers
import numpy as np
import pytest
import torch
import transformers

from bench.gpu import checks, models
from bench.gpu.cells import LOOP_SHARE, split
from bench.gpu.plans import PLANS, REAL, Plan
from bench.gpu.samples import Sample, Yardstick, solo
from bench.gpu.subjects import Subject
from overpaint_worker.engine.transfers import pin
from tests.engine.direct import noise_picture

ROOT = Path(__file__).parents[2]
on_gpu = pytest.mark.skipif(not torch.cuda.is_available(), reason="there is no CUDA device")


@pytest.mark.parametrize("plan", REAL, ids=lambda plan: plan.name)
def test_the_models_are_of_the_published_size(plan: Plan) -> None:
    """Given the plan of a model, when its networks are made without memory, then they have the published parameters."""
    with torch.device("meta"):
        unet = diffusers.UNet2DConditionModel(**plan.unet)
        made = {
            "unet": unet,
            "vae": diffusers.AutoencoderKL(**plan.vae),
            "text_encoder": transformers.CLIPTextModel(transformers.CLIPTextConfig(**plan.texts[0])),
            "control": diffusers.ControlNetModel.from_unet(unet, load_weights_from_unet=False),
        }
        for config in plan.texts[1:]:
            pooling = transformers.CLIPTextModelWithProjection(transformers.CLIPTextConfig(**config))
            made["text_encoder_2"] = pooling

    assert made.keys() == plan.parameters.keys()
    for name, part in made.items():
        models.check_parameters(plan, name, part)


def test_a_part_of_another_size_is_refused() -> None:
    """Given a plan, when a part has not the published parameters, then it says how many it has."""
    with pytest.raises(ValueError, match="has 6 parameters, the published one 859,520,964"):
        models.check_parameters(REAL[0], "unet", torch.nn.Linear(2, 2))


def test_time_is_split_so_that_loops_take_their_share_and_others_paint_alike() -> None:
    """Given what a job takes each peer, when the time is split, then nobody has more than there is."""
    takes = {"a": 1.0, "b": 0.5, "c": 0.25}

    counts = split(takes, 100.0, most=1000)

    assert counts["a"] == 100 * LOOP_SHARE
    assert counts["b"] == counts["c"]
    assert 98 <= sum(count * takes[key] for key, count in counts.items()) <= 100


def test_nobody_paints_more_jobs_than_there_are() -> None:
    """Given more time than the jobs take, when it is split, then everybody paints all of them."""
    assert split({"a": 0.1, "b": 0.1}, 1000.0, most=8) == {"a": 8, "b": 8}


@pytest.mark.long
@pytest.mark.timeout(500)
def test_the_whole_bench_runs_on_a_cpu(tmp_path: Path) -> None:
    """Given tiny models, when the bench runs, then every check is made and found well, and every peer is measured."""
    file = tmp_path / "figures.json"

    ended = _bench("--families", "sd15", "--workloads", "mixed", "--json", str(file))

    told = json.loads(file.read_text())
    assert ended.returncode == 0, ended.stdout
    assert told["ok"]
    assert not told["left_out"]
    assert len(told["findings"]) == 12
    (contest,) = told["contests"]
    assert [each["peer"].split()[0] for each in contest["figures"]] == ["(a)", "(a')", "(b)", "(c)", "(c')", "(c'')"]
    assert all(each["difference"] <= 1e-4 for each in contest["figures"])


@pytest.mark.long
def test_the_bench_ends_in_time_and_tells_what_it_left_out(tmp_path: Path) -> None:
    """Given a time that is too short, when the bench runs, then it ends by then and does not call that a success."""
    file = tmp_path / "figures.json"

    ended = _bench("--minutes", "0.2", "--json", str(file))

    told = json.loads(file.read_text())
    assert ended.returncode == 1
    assert told["left_out"]
    assert not told["ok"]


@pytest.fixture(scope="module")
def subject(tmp_path_factory: pytest.TempPathFactory) -> Subject:
    """A tiny model on the GPU."""
    plan = PLANS["tiny"][0]
    return Subject(plan, models.make(plan, tmp_path_factory.mktemp("gpu") / plan.name, "cuda"), "cuda")


@pytest.fixture(scope="module")
def sample(subject: Subject) -> Sample:
    return Sample.of(subject.plan)


@pytest.fixture(autouse=True)
def _workspace() -> Iterator[None]:
    # Read when the first product of matrices is computed.
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("CUBLAS_WORKSPACE_CONFIG", os.environ.get("CUBLAS_WORKSPACE_CONFIG", ":4096:8"))
        yield


@pytest.mark.gpu
@on_gpu
@pytest.mark.parametrize("dtype", ["float32", "float16", "bfloat16"])
def test_a_crowd_on_a_gpu_is_painted_as_diffusers_paints_each(subject: Subject, sample: Sample, dtype: str) -> None:
    """Given calls that differ in everything, when they run beside each other, then they are as exact as alone."""
    truth, own = (solo(subject, each, sample.calls) for each in ("float32", dtype))

    _assert_ok(checks.crowd(subject, sample, Yardstick(dtype, truth, own)))


@pytest.mark.gpu
@on_gpu
def test_reproducible_calls_repeat_on_a_gpu(subject: Subject, sample: Sample) -> None:
    """Given a reproducible call, when it is painted with other neighbours, then not one bit changes."""
    _assert_ok(checks.reproducible(subject, sample))


@pytest.mark.gpu
@on_gpu
def test_an_offloaded_model_paints_the_same_on_a_gpu(subject: Subject, sample: Sample) -> None:
    """Given room for less than the model, when it paints, then the pictures are as exact as ever."""
    truth, own = (solo(subject, each, sample.calls) for each in ("float32", subject.dtype))

    _assert_ok(checks.offload(subject, sample, Yardstick(subject.dtype, truth, own)))


@pytest.mark.gpu
@on_gpu
def test_page_locked_copies_change_no_picture(subject: Subject) -> None:
    """Given a pipeline with page-locked copies, when a picture goes in and out, then it is the one of a plain copy."""
    pipeline = subject.direct("float16")
    pinned = copy(pipeline)
    pin(pinned, torch.device("cuda"))
    picture = noise_picture(64, 64)

    there = pinned.image_processor.preprocess(picture)
    back = pinned.image_processor.pt_to_numpy(there)

    plain = pipeline.image_processor.preprocess(picture)
    assert there.device.type == "cuda"
    assert torch.equal(there.cpu(), plain)
    assert np.array_equal(back, pipeline.image_processor.pt_to_numpy(plain))


def _assert_ok(finding: checks.Finding) -> None:
    assert finding.ok, finding.told


def _bench(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "bench.gpu", "--device", "cpu", "--size", "tiny", *arguments],
        cwd=ROOT,
        stdout=subprocess.PIPE,
        text=True,
        timeout=450,
        check=False,
    )
