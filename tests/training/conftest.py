from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

from training.batches import SceneBatches
from training.models import TINY, build_autoencoder, build_scheduler
from training.stages import DenoiserStage
from training.tokenizer import write_tokenizer


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
