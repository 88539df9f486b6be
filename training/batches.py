"""Training data by step number: drawn ahead of the trainer by worker processes, the same for the same seed and step."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch.utils.data import DataLoader
from tqdm import tqdm

from training.captions import caption
from training.scenes import attributes_of, draw, split_seeds

if TYPE_CHECKING:
    # Not at run time: the worker processes import this file, and need no diffusers.
    from diffusers import AutoencoderKL


@dataclass(frozen=True, slots=True)
class Batch:
    """What one training step learns from."""

    pictures: torch.Tensor
    """B x 3 x side x side, uint8; or latents, B x 4 x side/4 x side/4, float16."""
    captions: list[str]


class Batches(Protocol):
    """A map-style data set of torch: item `step` is the batch of that step."""

    def __getitem__(self, step: int) -> Batch: ...


def to_tensor(pictures: list[Image.Image]) -> torch.Tensor:
    """RGB pictures of one size as B x 3 x height x width, uint8."""
    stacked = np.stack([np.asarray(picture) for picture in pictures])
    return torch.from_numpy(stacked).permute(0, 3, 1, 2).contiguous()


def to_signed(pictures: torch.Tensor) -> torch.Tensor:
    """uint8 to float32 in -1 to 1, the range that the autoencoder knows."""
    return pictures.float() / 127.5 - 1


class SceneBatches:
    """Freshly drawn training scenes; item `step` is the batch of that step."""

    def __init__(self, seed: int, batch: int, side: int) -> None:
        self.seed, self.batch, self.side = seed, batch, side

    def __getitem__(self, step: int) -> Batch:
        rng = np.random.default_rng((self.seed, step))
        scenes = [draw(attributes_of(seed), self.side) for seed in split_seeds("train", rng, self.batch)]
        captions = [caption(scene.attributes, rng) for scene in scenes]
        return Batch(to_tensor([scene.picture for scene in scenes]), captions)


class LatentBatches:
    """Batches from a fixed set of encoded scenes, each time with new captions: for machines without a GPU."""

    def __init__(self, seed: int, batch: int, latents: NDArray[np.float16], seeds: list[int]) -> None:
        self.seed, self.batch, self.latents, self.seeds = seed, batch, latents, seeds

    def __getitem__(self, step: int) -> Batch:
        rng = np.random.default_rng((self.seed, step))
        rows = rng.integers(len(self.seeds), size=self.batch)
        captions = [caption(attributes_of(self.seeds[row]), rng) for row in rows]
        return Batch(torch.from_numpy(np.array(self.latents[rows])), captions)


def batches_from(dataset: Batches, first: int, last: int, workers: int) -> Iterator[Batch]:
    """The batches of steps `first` to `last` - 1 in order; `workers` processes work ahead, 0 draws in this one."""
    loader: DataLoader[Batch] = DataLoader(
        dataset,
        batch_size=None,
        sampler=range(first, last),
        num_workers=workers,
        prefetch_factor=4 if workers else None,
        multiprocessing_context="spawn" if workers else None,
        collate_fn=_as_it_is,
    )
    return iter(loader)


def _as_it_is(batch: Batch) -> Batch:
    return batch


def encode_scenes(
    autoencoder: AutoencoderKL, file: Path, seed: int, count: int, side: int, workers: int, batch: int = 64
) -> LatentBatches:
    """Draw and encode `count` training scenes (the posterior's means) into `file`, unless it is there already.

    Returns the data set with batches of `batch`; change its `batch` at will.
    """
    seeds = [
        drawn
        for step in range(-(-count // batch))
        for drawn in split_seeds("train", np.random.default_rng((seed, step)), batch)
    ]
    if not file.is_file():
        scenes = SceneBatches(seed, batch, side)
        steps = len(seeds) // batch
        chunks = []
        device = next(autoencoder.parameters()).device
        with torch.no_grad():
            for drawn in tqdm(batches_from(scenes, 0, steps, workers), total=steps, desc="encoding scenes"):
                posterior = autoencoder.encode(to_signed(drawn.pictures).to(device)).latent_dist
                chunks.append(posterior.mean.half().cpu().numpy())
        part = file.with_suffix(".part.npy")
        np.save(part, np.concatenate(chunks))
        part.replace(file)
    return LatentBatches(seed, batch, np.load(file, mmap_mode="r"), seeds)
