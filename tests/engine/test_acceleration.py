"""Networks that are compiled for fixed numbers of rows."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from overpaint_worker.engine.acceleration import Accelerated, Acceleration
from overpaint_worker.engine.engine import Engine
from overpaint_worker.engine.loading import PipelineLoader, Tuning
from overpaint_worker.engine.registry import ModelSpec, Registry
from tests.engine.conftest import Models
from tests.engine.direct import call, noise_picture

pytestmark = [
    pytest.mark.filterwarnings("ignore:.torch.jit:DeprecationWarning"),
    pytest.mark.filterwarnings("ignore::DeprecationWarning:torch"),
]

BUCKETS = (2, 8)


@pytest.fixture
def network() -> torch.nn.Module:
    torch.manual_seed(0)
    return torch.nn.Sequential(
        torch.nn.Conv2d(4, 8, 3, padding=1), torch.nn.SiLU(), torch.nn.Conv2d(8, 4, 3, padding=1)
    )


def test_what_is_not_compiled_is_not_filled_up(network: torch.nn.Module) -> None:
    plain = Accelerated(network, Acceleration())

    assert plain.warm("key") == ()
    assert [plain.bucket("key", rows) for rows in (1, 3, 40)] == [1, 3, 40]


def test_rows_are_filled_up_to_the_next_bucket_where_the_shape_is_compiled(network: torch.nn.Module) -> None:
    compiled = Accelerated(network, Acceleration("default", buckets=BUCKETS))

    assert compiled.warm("native") == BUCKETS
    assert [compiled.bucket("native", rows) for rows in (1, 2, 3, 8, 9)] == [2, 2, 8, 8, 9]
    assert compiled.bucket("another size", 3) == 3


def test_channels_last_changes_the_layout_of_convolutions(network: torch.nn.Module) -> None:
    sample = torch.randn(2, 4, 8, 8)
    before = network(sample)

    Accelerated(network, Acceleration(channels_last=True))

    assert network[0].weight.is_contiguous(memory_format=torch.channels_last)
    torch.testing.assert_close(network(sample), before, atol=1e-6, rtol=0)


@pytest.mark.long
def test_calls_on_a_compiled_model_paint_what_diffusers_paints(models: Models) -> None:
    """Given a UNet compiled for 2 and 8 rows, when four calls with and without guidance share forwards, then they agree
    with diffusers alone, forwards were filled up, and nothing was compiled but those two shapes.
    """
    torch._dynamo.reset()
    torch._dynamo.utils.counters.clear()
    registry = Registry(models={"sd": ModelSpec(path=models.folder("sd"), native_size=64)})
    tuning = Tuning(Acceleration("default", buckets=BUCKETS), warm_up=True)
    engine = Engine(PipelineLoader(registry, "cpu", tuning))
    engine.start(preload="sd")
    asked: list[dict[str, Any]] = [
        {"prompt": f"a red house {n}", "guidance_scale": 4.0 if n % 4 else 1.0} for n in range(4)
    ]
    futures = [
        engine.submit(call("sd", noise_picture(seed=n), seed=n, steps=6, strength=0.9, **each))
        for n, each in enumerate(asked)
    ]
    painted = [future.result(300).pixels for future in futures]
    statistics = engine.statistics()
    engine.stop()

    for n, (each, pixels) in enumerate(zip(asked, painted, strict=True)):
        alone = models.direct("sd")(noise_picture(seed=n), seed=n, num_inference_steps=6, strength=0.9, **each)
        assert abs(pixels - alone).max() <= 1e-4
    assert statistics.padded > 0
    assert torch._dynamo.utils.counters["stats"]["unique_graphs"] == len(BUCKETS)
