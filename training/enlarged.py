"""What the upscaler learns from: crops of scenes drawn `FACTOR` times as large, and the same crops made small."""

from __future__ import annotations

from typing import Any, Final

import numpy as np
import torch
from numpy.typing import NDArray
from torch.nn import functional

from training.batches import Batch, DrawnScenes

FACTOR: Final = 4
"""Pixels of the large picture for one of the small one, a side; for one latent too, so that both crop alike."""


def shrink(pictures: torch.Tensor) -> torch.Tensor:
    """Each pixel the mean of `FACTOR` x `FACTOR`; B x 3 x height x width, uint8 in and out."""
    return functional.avg_pool2d(pictures.float(), FACTOR).round().to(torch.uint8)


class CropBatches:
    """Random crops of large scenes, `side` pixels each, without captions, for the autoencoder."""

    def __init__(self, seed: int, batch: int, side: int, scenes: DrawnScenes) -> None:
        self.seed, self.batch, self.side = seed, batch, side
        self._pictures = _flat(scenes)

    def __getitem__(self, step: int) -> Batch:
        rng = np.random.default_rng((self.seed, step))
        rows = rng.integers(len(self._pictures), size=self.batch)
        corners = rng.integers(self._pictures.shape[-1] - self.side + 1, size=(self.batch, 2))
        return Batch(torch.from_numpy(_crops(self._pictures, rows, corners, self.side)), [])


class UpscalingBatches:
    """Random crops of encoded large scenes; their `sources` are the same crops made small, `side` pixels each."""

    def __init__(self, seed: int, batch: int, side: int, scenes: DrawnScenes, latents: DrawnScenes) -> None:
        self.seed, self.batch, self.side = seed, batch, side
        self._pictures, self._latents = _flat(scenes), _flat(latents)

    def __getitem__(self, step: int) -> Batch:
        rng = np.random.default_rng((self.seed, step))
        rows = rng.integers(len(self._latents), size=self.batch)
        corners = rng.integers(self._latents.shape[-1] - self.side + 1, size=(self.batch, 2))
        latents = _crops(self._latents, rows, corners, self.side)
        pictures = _crops(self._pictures, rows, corners * FACTOR, self.side * FACTOR)
        return Batch(torch.from_numpy(latents), [], shrink(torch.from_numpy(pictures)))


def _flat(scenes: DrawnScenes) -> NDArray[Any]:
    return scenes.variants.reshape(-1, *scenes.variants.shape[2:])


def _crops(pictures: NDArray[Any], rows: NDArray[Any], corners: NDArray[Any], side: int) -> NDArray[Any]:
    cut = [pictures[row, :, y : y + side, x : x + side] for row, (y, x) in zip(rows, corners, strict=True)]
    return np.stack(cut)
