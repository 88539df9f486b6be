"""Training data by step number: drawn ahead of the trainer by worker processes, the same for the same seed and step."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch.utils.data import DataLoader
from tqdm import tqdm

from training.captions import caption
from training.scenes import VARIANTS, Attributes, draw, family_of, split_seeds

if TYPE_CHECKING:
    # Not at run time: the worker processes import this file, and need no diffusers.
    from diffusers import AutoencoderKL


_DRAWN_AT_ONCE: Final = 32


@dataclass(frozen=True, slots=True)
class Batch:
    """What one training step learns from."""

    pictures: torch.Tensor
    """B x 3 x side x side, uint8; or latents, B x 4 x side/4 x side/4, float16."""
    captions: list[str]
    """One for each picture; none where the stage needs none."""
    sources: torch.Tensor | None = None
    """As `pictures`: what each picture was before it was repainted; None where the stage needs none."""
    shown: tuple[Attributes, ...] = ()
    """What each picture shows; none where the stage needs none."""
    edges: torch.Tensor | None = None
    """B x 3 x side x side, uint8: 255 on an edge, 0 elsewhere; None where the stage needs none."""


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
    """Freshly drawn training scenes, `families` whole families at a time; item `step` is the batch of that step."""

    def __init__(self, seed: int, families: int, side: int) -> None:
        self.seed, self.families, self.side = seed, families, side

    def __getitem__(self, step: int) -> Batch:
        rng = np.random.default_rng((self.seed, step))
        scenes = [
            draw(attributes, self.side)
            for seed in split_seeds("train", rng, self.families)
            for attributes in family_of(seed)
        ]
        captions = [caption(scene.attributes, rng) for scene in scenes]
        return Batch(to_tensor([scene.picture for scene in scenes]), captions)


@dataclass(frozen=True, slots=True)
class DrawnScenes:
    """A fixed set of families, as pictures or encoded."""

    seeds: list[int]
    """Of F families."""
    variants: NDArray[np.generic]
    """F x VARIANTS x channels x height x width: uint8 RGB, or float16 latents."""


class PictureBatches:
    """Batches of single pictures from a fixed set, without captions."""

    def __init__(self, seed: int, batch: int, scenes: DrawnScenes) -> None:
        self.seed, self.batch = seed, batch
        self._pictures = scenes.variants.reshape(-1, *scenes.variants.shape[2:])

    def __getitem__(self, step: int) -> Batch:
        rng = np.random.default_rng((self.seed, step))
        rows = rng.integers(len(self._pictures), size=self.batch)
        return Batch(torch.from_numpy(np.array(self._pictures[rows])), [])


class PairBatches:
    """Batches of pairs from a fixed set of encoded scenes: the scene that the caption describes, and a source.

    The source is any variant of the same family, the target itself among them; whatever the two differ in,
    the caption names.
    """

    def __init__(self, seed: int, batch: int, scenes: DrawnScenes) -> None:
        self.seed, self.batch, self._scenes = seed, batch, scenes

    def __getitem__(self, step: int) -> Batch:
        rng = np.random.default_rng((self.seed, step))
        rows = rng.integers(len(self._scenes.seeds), size=self.batch)
        targets, sources = rng.integers(VARIANTS, size=(2, self.batch))
        captions = [
            caption(family_of(self._scenes.seeds[row])[target], rng, _differing(int(target), int(source)))
            for row, target, source in zip(rows, targets, sources, strict=True)
        ]
        pictures, before = (np.array(self._scenes.variants[rows, column]) for column in (targets, sources))
        return Batch(torch.from_numpy(pictures), captions, torch.from_numpy(before))


def _differing(one: int, other: int) -> tuple[str, ...]:
    """The attributes in which two variants of a family differ."""
    differing = one ^ other
    return tuple(name for bit, name in ((1, "colour"), (2, "style")) if differing & bit)


def batches_from(dataset: Batches, first: int, last: int, workers: int = 0) -> Iterator[Batch]:
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


def drawn_scenes(file: Path, seed: int, families: int, side: int, workers: int) -> DrawnScenes:
    """`families` families of training scenes, drawn into `file` (.npy) unless it is there already."""
    steps = -(-families // _DRAWN_AT_ONCE)
    seeds = [
        drawn
        for step in range(steps)
        for drawn in split_seeds("train", np.random.default_rng((seed, step)), _DRAWN_AT_ONCE)
    ]
    if not file.is_file():
        batches = batches_from(SceneBatches(seed, _DRAWN_AT_ONCE, side), 0, steps, workers)
        chunks = (batch.pictures.numpy() for batch in tqdm(batches, total=steps, desc="drawing scenes"))
        _save(file, chunks, (len(seeds), VARIANTS, 3, side, side), np.uint8)
    return DrawnScenes(seeds, np.load(file, mmap_mode="r"))


def encoded_scenes(file: Path, scenes: DrawnScenes, autoencoder: AutoencoderKL) -> DrawnScenes:
    """The same scenes as latents (the posterior's means), encoded into `file` (.npy) unless it is there already."""
    if not file.is_file():
        device = next(autoencoder.parameters()).device
        families = range(0, len(scenes.seeds), _DRAWN_AT_ONCE)

        def encode(first: int) -> NDArray[np.float16]:
            pictures = torch.from_numpy(np.array(scenes.variants[first : first + _DRAWN_AT_ONCE])).flatten(0, 1)
            with torch.no_grad():
                posterior = autoencoder.encode(to_signed(pictures).to(device)).latent_dist
            latents: NDArray[np.float16] = posterior.mean.half().cpu().numpy()
            return latents

        sample = encode(0)
        chunks = (encode(first) for first in tqdm(families, desc="encoding scenes"))
        _save(file, chunks, (len(scenes.seeds), VARIANTS, *sample.shape[1:]), np.float16)
    return DrawnScenes(scenes.seeds, np.load(file, mmap_mode="r"))


def _save(
    file: Path, chunks: Iterator[NDArray[Any]], shape: tuple[int, ...], dtype: type[np.uint8] | type[np.float16]
) -> None:
    """Write chunks, one after another, as one array; to the side first, so that `file` is whole or not there."""
    file.parent.mkdir(parents=True, exist_ok=True)
    part = file.with_suffix(".part.npy")
    array = np.lib.format.open_memmap(part, mode="w+", dtype=dtype, shape=shape)
    rows = array.reshape(-1, *shape[2:])
    first = 0
    for chunk in chunks:
        rows[first : first + len(chunk)] = chunk
        first += len(chunk)
    array.flush()
    part.replace(file)
