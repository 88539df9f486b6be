"""The engine and its GPU bench run where nothing of the service around them is installed."""

from __future__ import annotations

import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from overpaint_worker.engine.registry import EMBEDDED
from tests.engine.direct import Direct, noise_picture

ROOT = Path(__file__).parents[2]
INIT = ROOT / "bench/gpu/__init__.py"
ABSENT = ("celery", "kombu", "redis", "boto3", "botocore", "rich", "click", "skimage", "moto", "pytest")
TOLERANCE = 1e-4
HIDE = f"""
import sys
sys.modules.update(dict.fromkeys({ABSENT}))
"""
PAINT = """
import numpy
from overpaint_worker.engine.engine import Engine
from overpaint_worker.engine.loading import PipelineLoader
from overpaint_worker.engine.registry import Registry
from tests.engine.direct import call, noise_picture
engine = Engine(PipelineLoader(Registry.embedded(), "cpu"))
engine.start()
painted = engine.submit(call("overpaint-mini", noise_picture())).result(100)
engine.stop()
numpy.save(sys.argv[1], painted.pixels)
"""
IMPORT = """
import importlib, pkgutil
import bench.gpu
for found in pkgutil.iter_modules(bench.gpu.__path__):
    importlib.import_module(f"bench.gpu.{found.name}")
    print(found.name)
"""


@dataclass
class Alone:
    """What a Python without all these made."""

    pixels: NDArray[np.float32]
    modules: list[str]
    """Of the bench that it could import."""


@pytest.fixture(scope="module")
def alone(tmp_path_factory: pytest.TempPathFactory) -> Alone:
    file = tmp_path_factory.mktemp("alone") / "pixels.npy"
    modules = _run(HIDE + PAINT + IMPORT, str(file)).split()
    return Alone(np.load(file), modules)


@pytest.mark.long
def test_the_engine_paints_what_diffusers_paints(alone: Alone) -> None:
    """Given a Python without Celery, Redis, boto3 and the rest, when a call is painted, then it is as ever."""
    theirs = Direct("StableDiffusionImg2ImgPipeline", EMBEDDED)(
        noise_picture(), seed=7, prompt="a red cat", strength=0.6, num_inference_steps=5, guidance_scale=4.0
    )
    assert np.abs(alone.pixels - theirs).max() <= TOLERANCE


@pytest.mark.long
def test_the_bench_on_a_gpu_needs_nothing_else(alone: Alone) -> None:
    """Given the same Python, when the modules of bench.gpu are imported, then all of them are there."""
    assert sorted(alone.modules) == sorted(file.stem for file in (ROOT / "bench/gpu").glob("*.py") if file != INIT)


def test_what_is_hidden_is_absent() -> None:
    """Given the same Python, when it imports what is hidden, then that fails: the tests above mean something."""
    for name in ABSENT:
        with pytest.raises(subprocess.CalledProcessError):
            _run(HIDE + f"import {name}")


def _run(script: str, *arguments: str) -> str:
    ended = subprocess.run(
        [sys.executable, "-c", script, *arguments],
        cwd=ROOT,
        stdout=subprocess.PIPE,
        text=True,
        check=True,
        timeout=200,
    )
    return ended.stdout
