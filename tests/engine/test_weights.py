"""Weights in memory: within a budget, the least recently used leave, and what is larger is offloaded."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from overpaint_worker.engine.engine import Engine
from overpaint_worker.engine.loading import PipelineLoader, Tuning
from overpaint_worker.engine.model import PipelineModel
from overpaint_worker.engine.registry import EMBEDDED, ModelSpec, Registry
from tests.engine.conftest import Models
from tests.engine.direct import call

NAMES = ("one", "two", "three")
SPEC = ModelSpec(path=EMBEDDED, native_size=64)


@pytest.fixture
def registry(models: Models) -> Registry:
    """Three small models."""
    return Registry(models={name: ModelSpec(path=models.folder("sd"), native_size=64) for name in NAMES})


class Counting(PipelineLoader):
    """Remembers what it loaded."""

    def __init__(self, registry: Registry, tuning: Tuning) -> None:
        super().__init__(registry, "cpu", tuning)
        self.loaded: list[str] = []

    def __call__(self, name: str) -> PipelineModel:
        self.loaded.append(name)
        return super().__call__(name)


def test_what_weights_will_take_is_foretold_from_their_files(registry: Registry) -> None:
    loader = PipelineLoader(registry, "cpu")
    foretold = loader.budget.foretold("one")

    assert foretold == pytest.approx(loader.budget.held(loader("one")), rel=0.05)


def test_models_stay_loaded_within_the_budget_and_those_used_last_stay(registry: Registry) -> None:
    """Given room for two models, when three are used, then the one that was used least recently left."""
    size = PipelineLoader(registry, "cpu").budget.foretold("one") or 0
    loader = Counting(registry, Tuning(model_bytes=int(2.5 * size)))
    engine = Engine(loader, budget=loader.budget)
    engine.start()
    for name in ("one", "two", "one", "three", "one", "two"):
        engine.submit(call(name, steps=1, strength=1.0)).result(60)
    engine.stop()

    assert loader.loaded == ["one", "two", "three", "two"]


def test_a_model_larger_than_the_budget_is_offloaded_and_paints_the_same(caplog: pytest.LogCaptureFixture) -> None:
    whole = PipelineLoader(Registry(models={"m": SPEC}), "cpu")("m")
    offloaded = PipelineLoader(Registry(models={"m": SPEC}), "cpu", Tuning(model_bytes=1_000_000, warm_up=True))("m")

    given = call("m", steps=3)
    before, after = (model.run(given, lambda _: None).pixels for model in (whole, offloaded))

    assert np.array_equal(before, after)
    assert "is larger than the 1000000 bytes for weights: it is offloaded" in caplog.text
    # No more than its largest part is on the device at once.
    assert 0 < offloaded.bytes < whole.bytes


def test_variants_of_the_same_weights_do_not_count(tmp_path: Path) -> None:
    """Given a folder with the weights once more in half precision, then they are not foretold twice."""
    folder = tmp_path / "model"
    folder.mkdir()
    for part in EMBEDDED.iterdir():
        (folder / part.name).symlink_to(part)
    (folder / "unet").unlink()
    (folder / "unet").mkdir()
    for file in (EMBEDDED / "unet").iterdir():
        (folder / "unet" / file.name).symlink_to(file)
    (weights,) = (EMBEDDED / "unet").glob("*.safetensors")
    (folder / "unet" / weights.name.replace(".safetensors", ".fp16.safetensors")).symlink_to(weights)

    foretold = [
        PipelineLoader(Registry(models={"m": ModelSpec(path=path, native_size=64)}), "cpu").budget.foretold("m")
        for path in (EMBEDDED, folder)
    ]

    assert foretold[0] == foretold[1]
