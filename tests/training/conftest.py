from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

from training.batches import SceneBatches
from training.models import TINY, build_autoencoder, build_scheduler
from training.recipe import Recipe, export_model, train_autoencoder, train_denoiser
from training.stages import DenoiserStage
from training.tokenizer import write_tokenizer
from training.train import Plan


@pytest.fixture(autouse=True)
def _one_thread() -> Iterator[None]:
    """Tiny tensors are slower on many threads, and results are the same only on one count of them."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.fixture
def tiny_denoiser(tmp_path: Path) -> DenoiserStage:
    torch.manual_seed(0)
    tokenizer = write_tokenizer(tmp_path / "tokenizer")
    return DenoiserStage(TINY, build_autoencoder(TINY), tokenizer, build_scheduler(), SceneBatches(0, 2, TINY.side))


@pytest.fixture(scope="session")
def tiny_run(tmp_path_factory: pytest.TempPathFactory) -> Recipe:
    """A tiny model, trained for a few steps through every stage, exported."""
    torch.set_num_threads(1)
    plan = Plan(steps=2, rate=1e-3, log_every=1, quiet=True)
    recipe = Recipe(
        tmp_path_factory.mktemp("run"), plan, plan, TINY, 2, 4, 8, families=32, statistics_families=8, sheet_steps=5,
        classifier=plan,
    )  # fmt: skip
    train_autoencoder(recipe)
    train_denoiser(recipe)
    export_model(recipe)
    return recipe


@pytest.fixture
def trained(tiny_run: Recipe) -> Path:
    """The folder of the tiny model."""
    return tiny_run.model
