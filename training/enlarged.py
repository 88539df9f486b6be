"""What the upscaler learns from: crops of scenes drawn `FACTOR` times as large."""

from __future__ import annotations

from typing import Final

import numpy as np
import torch
from torch.nn import functional

from training.batches import Batch, DrawnScenes

FACTOR: Final = 4
"""Pixels of the large picture for one of the small one, a side."""


def shrink(pictures: torch.Tensor) -> torch.Tensor:
    """Each pixel the mean of `FACTOR` x `FACTOR`; B x 3 x height x width, uint8 in and out."""
    return functional.avg_pool2d(pictures.float(), FACTOR).round().to(torch.uint8)


class CropBatches:
    """Random crops of large scenes, `side` pixels each, without captions."""

    def __init__(self, seed: int, batch: int, side: int, scenes: DrawnScenes) -> None:
        self.seed, self.batch, self.side = seed, batch, side
        self._pictures = scenes.variants.reshape(-1, *scenes.variants.shape[2:])

    def __getitem__(self, step: int) -> Batch:
        rng = np.random.default_rng((self.seed, step))
        rows = rng.integers(len(self._pictures), size=self.batch)
        corners = rng.integers(self._pictures.shape[-1] - self.side + 1, size=(self.batch, 2))
        cut = [
            self._pictures[row, :, y : y + self.side, x : x + self.side]
            for row, (y, x) in zip(rows, corners, strict=True)
        ]
        return Batch(torch.from_numpy(np.stack(cut)), [])
