"""The whole recipe, stage by stage, in one run's folder.

<run>/autoencoder/   checkpoint, losses.csv, sheets
<run>/vae/           the finished autoencoder, its latents' statistics folded in
<run>/scenes-N.npy   N families of scenes, drawn once
<run>/latents-N.npy  the same, encoded
<run>/denoiser/      checkpoint, losses.csv, sheets
<run>/model/         what is exported
<run>/classifier/    checkpoint, losses.csv, sheets of the judge
<run>/report/        what was measured of the model
"""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import torch
from diffusers import AutoencoderKL

from training.batches import DrawnScenes, PairBatches, PictureBatches, drawn_scenes, encoded_scenes, to_signed
from training.classifier import ClassifierStage, LabelledBatches
from training.export import export
from training.models import Sizes, build_scheduler
from training.report import Folders, Report, measure
from training.stages import AutoencoderStage, DenoiserStage, fold_statistics
from training.tokenizer import write_tokenizer
from training.train import Plan, begin, train
from training.upscaler import UpscalerSizes


@dataclass(frozen=True, slots=True)
class Recipe:
    """One run: where it lives, what it trains, how long."""

    run: Path
    autoencoder: Plan
    denoiser: Plan
    sizes: Sizes = field(default_factory=Sizes)
    autoencoder_batch: int = 8
    denoiser_batch: int = 16
    classifier_batch: int = 64
    families: int = 12_000
    """Of scenes, four in each, drawn once for all stages."""
    workers: int = 0
    """Processes that draw them."""
    statistics_families: int = 128
    """Over which the latents get mean 0 and deviation 1."""
    sheet_steps: int = 24
    """Denoising steps of each sample on the sheets and in the report."""
    classifier: Plan = field(default_factory=lambda: Plan(steps=2_000, rate=2e-3))
    controlnet: Plan = field(default_factory=lambda: Plan(steps=6_000, rate=1.2e-3))
    controlnet_batch: int = 16
    upscaler_autoencoder: Plan = field(default_factory=lambda: Plan(steps=3_000, rate=2e-3))
    upscaler: Plan = field(default_factory=lambda: Plan(steps=12_000, rate=2e-3))
    upscaler_batch: int = 16
    upscaler_sizes: UpscalerSizes = field(default_factory=UpscalerSizes)
    enlarged_families: int = 512
    """Of scenes drawn large for the upscaler, four in each."""

    @property
    def model(self) -> Path:
        return self.run / "model"


def draw_scenes(recipe: Recipe) -> DrawnScenes:
    """The run's training scenes, drawn if they are not there yet."""
    file = recipe.run / f"scenes-{recipe.families}.npy"
    return drawn_scenes(file, recipe.autoencoder.seed, recipe.families, recipe.sizes.side, recipe.workers)


def train_autoencoder(recipe: Recipe) -> None:
    """Train the autoencoder to the end of its plan and write it, statistics folded in, to `<run>/vae`."""
    if _finished_autoencoder(recipe):
        return
    plan = recipe.autoencoder
    scenes = draw_scenes(recipe)
    stage = AutoencoderStage(recipe.sizes, PictureBatches(plan.seed, recipe.autoencoder_batch, scenes))
    state = train(stage, plan, recipe.run / stage.name)
    autoencoder = state.average.module["autoencoder"]
    pictures = torch.from_numpy(np.array(scenes.variants[: recipe.statistics_families])).flatten(0, 1)
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


def train_classifier(recipe: Recipe) -> torch.nn.Module:
    """Train the judge of the report, or take the one trained before. Needs a finished autoencoder."""
    plan = recipe.classifier
    autoencoder = _autoencoder(recipe, plan.device)
    data = LabelledBatches(plan.seed, recipe.classifier_batch, draw_scenes(recipe))
    stage = ClassifierStage(recipe.sizes.side, autoencoder, data)
    classifier: torch.nn.Module = train(stage, plan, recipe.run / stage.name).average.module["classifier"]
    return classifier


def write_report(recipe: Recipe, pictures: int, model: Path | None = None) -> Report:
    """Measure a model, the exported one by default, with `pictures` in each experiment; written to `<run>/report`.

    The run's ControlNet and upscaler are measured too, where they are there.
    """
    model = model or recipe.model
    check_model(model)
    controlnet, upscaler = (
        folder if (folder / name).is_file() else None
        for folder, name in ((recipe.run / "controlnet", "config.json"), (recipe.run / "upscaler", "model_index.json"))
    )
    classifier = train_classifier(recipe).cpu()
    folders = Folders(model, controlnet, upscaler)
    report = measure(folders, classifier, recipe.sizes.side, pictures, recipe.sheet_steps)
    report.save(recipe.run / "report")
    return report


def check_model(folder: Path) -> None:
    """Raise FileNotFoundError unless a model was exported to the folder."""
    if not (folder / "model_index.json").is_file():
        raise FileNotFoundError(f"{folder} holds no model; run the stages `denoiser` and `export` first")


def _autoencoder(recipe: Recipe, device: str) -> AutoencoderKL:
    if not _finished_autoencoder(recipe):
        raise FileNotFoundError(f"{recipe.run / 'vae'} holds no autoencoder; run the stage `autoencoder` first")
    return AutoencoderKL.from_pretrained(recipe.run / "vae").to(device)


def _finished_autoencoder(recipe: Recipe) -> bool:
    return (recipe.run / "vae" / "config.json").is_file()


def _denoiser(recipe: Recipe) -> DenoiserStage:
    plan, sizes, autoencoder = recipe.denoiser, recipe.sizes, _autoencoder(recipe, recipe.denoiser.device)
    latents = encoded_scenes(recipe.run / f"latents-{recipe.families}.npy", draw_scenes(recipe), autoencoder)
    data = PairBatches(plan.seed, recipe.denoiser_batch, latents)
    return DenoiserStage(
        sizes, autoencoder, write_tokenizer(recipe.run / "tokenizer"), build_scheduler(), data, recipe.sheet_steps
    )
