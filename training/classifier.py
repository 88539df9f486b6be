"""A small classifier of the generator's own scenes: the judge of what the trained model paints."""

from __future__ import annotations

from pathlib import Path
from typing import Final

import numpy as np
import torch
from diffusers import AutoencoderKL
from PIL import Image
from torch import nn
from torch.nn import functional

from training.batches import Batch, Batches, DrawnScenes, to_signed, to_tensor
from training.scenes import VARIANTS, Attributes, attributes_of, draw, family_of, split_seeds
from training.sheets import save_grid
from training.words import SHAPES, STYLES

NAMES: Final[dict[str, tuple[str, ...]]] = {"shape": SHAPES, "style": STYLES}
"""What it tells, in the order of its logits."""

_HELD_OUT = 300
_SHIFT = 4
"""Pixels by which training pictures are moved, at most."""
_NOISE = 0.08
"""Largest standard deviation of the noise added in training; pictures reach from -1 to 1."""


def build_classifier(width: int = 24) -> nn.Sequential:
    """Random weights; pictures B x 3 x H x W in -1 to 1 to logits B x 16: ten shapes, then six styles."""
    return nn.Sequential(
        _block(3, width, 5, 2),
        _block(width, 2 * width, 3, 2),
        _block(2 * width, 2 * width, 3, 1),
        _block(2 * width, 4 * width, 3, 2),
        _block(4 * width, 4 * width, 3, 1),
        nn.AdaptiveAvgPool2d(4),
        nn.Flatten(),
        nn.Linear(64 * width, 128),
        nn.SiLU(),
        nn.Linear(128, sum(len(words) for words in NAMES.values())),
    )


def names_of(classifier: nn.Module, pictures: list[Image.Image]) -> dict[str, list[str]]:
    """The likeliest "shape" and "style" of each RGB picture."""
    with torch.no_grad():
        logits = _by_name(classifier(to_signed(to_tensor(pictures))))
    return {name: [NAMES[name][row] for row in logits[name].argmax(1).tolist()] for name in NAMES}


class LabelledBatches:
    """Batches of single pictures from a fixed set, with what each shows."""

    def __init__(self, seed: int, batch: int, scenes: DrawnScenes) -> None:
        self.seed, self.batch, self._scenes = seed, batch, scenes

    def __getitem__(self, step: int) -> Batch:
        rng = np.random.default_rng((self.seed, step))
        rows = rng.integers(len(self._scenes.seeds), size=self.batch)
        variants = rng.integers(VARIANTS, size=self.batch)
        shown = tuple(family_of(self._scenes.seeds[row])[v] for row, v in zip(rows, variants, strict=True))
        return Batch(torch.from_numpy(np.array(self._scenes.variants[rows, variants])), [], shown=shown)


class ClassifierStage:
    """Cross-entropy over shapes and styles, on pictures moved, noised, and partly put through the autoencoder.

    The last is what the judged pictures have in common, and is no part of what they are judged by.
    """

    name = "classifier"
    parts: tuple[str, ...] = ("loss", "shape", "style")

    def __init__(self, side: int, autoencoder: AutoencoderKL, data: Batches) -> None:
        self.side, self.data = side, data
        self.autoencoder = autoencoder.eval().requires_grad_(False)
        self.modules = nn.ModuleDict({"classifier": build_classifier()})

    def loss(self, batch: Batch, rng: torch.Generator, device: torch.device) -> dict[str, torch.Tensor]:
        pictures = self._augmented(to_signed(batch.pictures.to(device)), rng)
        logits = _by_name(self.modules["classifier"](pictures))
        losses = {
            name: functional.cross_entropy(logits[name], _labels(batch.shown, name).to(device), label_smoothing=0.05)
            for name in NAMES
        }
        return {"loss": losses["shape"] + losses["style"], **losses}

    def _augmented(self, pictures: torch.Tensor, rng: torch.Generator) -> torch.Tensor:
        quarter = max(1, len(pictures) // 4)
        with torch.no_grad():
            decoded = self.autoencoder.decode(self.autoencoder.encode(pictures[:quarter]).latent_dist.mean).sample
        pictures = torch.cat([decoded.float().clamp(-1, 1), pictures[quarter:]])
        down, right = torch.randint(0, 2 * _SHIFT + 1, (2,), generator=rng).tolist()
        padded = functional.pad(pictures, (_SHIFT,) * 4, mode="replicate")
        moved = padded[..., down : down + self.side, right : right + self.side]
        spread = torch.rand(len(moved), 1, 1, 1, generator=rng) * _NOISE
        return moved + (spread * torch.randn(moved.shape, generator=rng)).to(moved.device)

    def measure(self, average: nn.ModuleDict, device: torch.device, sheet: Path) -> float:
        """The share of held-out scenes of which both shape and style are named; the sheet shows those of which not."""
        pictures, shown = held_out(self.side)
        told = names_of(average["classifier"].cpu(), pictures)
        average.to(device)
        right = [
            (shape, style) == (scene.shape, scene.style)
            for shape, style, scene in zip(told["shape"], told["style"], shown, strict=True)
        ]
        wrong = [picture for picture, hit in zip(pictures, right, strict=True) if not hit]
        if wrong:
            save_grid([wrong[:12]], sheet)
        return sum(right) / len(right)


def held_out(side: int, count: int = _HELD_OUT) -> tuple[list[Image.Image], list[Attributes]]:
    """Held-out scenes that no stage sees while it trains, and what each shows."""
    shown = [attributes_of(seed) for seed in split_seeds("held-out", np.random.default_rng(2), count)]
    return [draw(attributes, side).picture for attributes in shown], shown


def _by_name(logits: torch.Tensor) -> dict[str, torch.Tensor]:
    parts = logits.split([len(words) for words in NAMES.values()], dim=1)
    return dict(zip(NAMES, parts, strict=True))


def _labels(shown: tuple[Attributes, ...], name: str) -> torch.Tensor:
    return torch.tensor([NAMES[name].index(getattr(attributes, name)) for attributes in shown])


def _block(before: int, after: int, kernel: int, stride: int) -> nn.Sequential:
    return nn.Sequential(
        nn.Conv2d(before, after, kernel, stride, kernel // 2), nn.GroupNorm(4, after), nn.SiLU(inplace=True)
    )
