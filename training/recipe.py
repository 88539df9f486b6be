"""The whole recipe, stage by stage, in one run's folder.

    <run>/autoencoder/   checkpoint, losses.csv, sheets
    <run>/vae/           the finished autoencoder, its latents' statistics folded in
    <run>/latents-N.npy  N encoded scenes, where the denoiser trains from a fixed set
    <run>/denoiser/      checkpoint, losses.csv, sheets
    <run>/model/         what is exported

The ControlNet, the upscaler and the classifier become further stages beside these two.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from diffusers import AutoencoderKL

from training.batches import Batches, SceneBatches, encode_scenes, to_signed, to_tensor
from training.export import export
from training.models import Sizes, build_scheduler
from training.scenes import attributes_of, draw, split_seeds
from training.stages import AutoencoderStage, DenoiserStage, fold_statistics
from training.tokenizer import write_tokenizer
from training.train import Plan, begin, train


@dataclass(frozen=True, slots=True)
class Recipe:
    """One run: where it lives, what it trains, how long."""

    run: Path
    autoencoder: Plan
    denoiser: Plan
    sizes: Sizes = field(default_factory=Sizes)
    autoencoder_batch: int = 8
    denoiser_batch: int = 64
    encoded_scenes: int = 0
    """Scenes drawn and encoded once for the denoiser to train on; 0 draws and encodes each batch anew."""

    statistics_scenes: int = 512
    """Scenes over which the latents get mean 0 and deviation 1."""
    sheet_steps: int = 24
    """Denoising steps of each sample on the denoiser's sheets."""

    @property
    def model(self) -> Path:
        return self.run / "model"


def train_autoencoder(recipe: Recipe) -> None:
    """Train the autoencoder to the end of its plan and write it, statistics folded in, to `<run>/vae`."""
    if _finished_autoencoder(recipe):
        return
    plan = recipe.autoencoder
    stage = AutoencoderStage(recipe.sizes, plan.seed, recipe.autoencoder_batch)
    state = train(stage, plan, recipe.run / stage.name)
    autoencoder = state.average.module["autoencoder"]
    seeds = split_seeds("train", np.random.default_rng((plan.seed, 1 << 40)), recipe.statistics_scenes)
    pictures = to_tensor([draw(attributes_of(seed), recipe.sizes.side).picture for seed in seeds])
    fold_statistics(autoencoder, to_signed(pictures).to(plan.device))
    part = recipe.run / "vae.part"
    autoencoder.save_pretrained(part)
    part.rename(recipe.run / "vae")


def train_denoiser(recipe: Recipe) -> None:
    """Train UNet and text encoder to the end of their plan. Needs a finished autoencoder."""
    stage = _denoiser(recipe)
    train(stage, recipe.denoiser, recipe.run / stage.name)


def export_model(recipe: Recipe, folder: Path | None = None) -> Path:
    """Write the averaged weights of the latest checkpoint as a Stable Diffusion folder in float16; return it."""
    stage = _denoiser(recipe)
    state = begin(stage, recipe.denoiser)
    if not state.load(recipe.run / stage.name):
        raise FileNotFoundError(f"{recipe.run / stage.name} holds no checkpoint; run the stage `denoiser` first")
    parts = {"vae": stage.autoencoder, "tokenizer": stage.tokenizer, "scheduler": stage.scheduler}
    target = folder or recipe.model
    export(state.average.module, parts, target)
    return target


def _finished_autoencoder(recipe: Recipe) -> bool:
    return (recipe.run / "vae" / "config.json").is_file()


def _denoiser(recipe: Recipe) -> DenoiserStage:
    if not _finished_autoencoder(recipe):
        raise FileNotFoundError(f"{recipe.run / 'vae'} holds no autoencoder; run the stage `autoencoder` first")
    plan, sizes = recipe.denoiser, recipe.sizes
    autoencoder = AutoencoderKL.from_pretrained(recipe.run / "vae").to(plan.device)
    # Another seed than the autoencoder's, so that a step's scenes are not the same ones again.
    seed = plan.seed + 1_000_003
    data: Batches = SceneBatches(seed, recipe.denoiser_batch, sizes.side)
    if recipe.encoded_scenes:
        file = recipe.run / f"latents-{recipe.encoded_scenes}.npy"
        latents = encode_scenes(autoencoder, file, seed, recipe.encoded_scenes, sizes.side, plan.workers)
        latents.batch = recipe.denoiser_batch
        data = latents
    return DenoiserStage(
        sizes, autoencoder, write_tokenizer(recipe.run / "tokenizer"), build_scheduler(), data, recipe.sheet_steps
    )
