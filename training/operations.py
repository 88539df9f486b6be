"""The recipes of the ControlNet and the upscaler, beside the model in the same run's folder.

<run>/controlnet-training/           checkpoint, losses.csv, sheets
<run>/controlnet/                    what is exported
<run>/enlarged-N.npy                 N families of scenes, `FACTOR` times as large
<run>/upscaler-autoencoder-training/ checkpoint, losses.csv, sheets
<run>/upscaler-vae/                  the autoencoder taught further on them, its latents scaled
<run>/upscaler-training/             checkpoint, losses.csv, sheets
<run>/upscaler/                      what is exported
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from diffusers import AutoencoderKL, StableDiffusionImg2ImgPipeline

from training.batches import DrawnScenes, drawn_scenes, encoded_scenes, to_signed
from training.controlnet import ControlNetStage, EdgeBatches, export_controlnet
from training.enlarged import FACTOR, CropBatches
from training.recipe import Recipe, check_model, draw_scenes
from training.stages import fold_statistics
from training.tokenizer import write_tokenizer
from training.train import train
from training.upscaler import UpscalerAutoencoderStage, UpscalerStage, export_upscaler, scale_latents


def train_controlnet(recipe: Recipe) -> Path:
    """Train the ControlNet to the end of its plan on the exported model; write and return `<run>/controlnet`."""
    check_model(recipe.model)
    plan = recipe.controlnet
    pipeline = StableDiffusionImg2ImgPipeline.from_pretrained(recipe.model).to(plan.device, torch.float32)
    pipeline.set_progress_bar_config(disable=True)
    scenes = draw_scenes(recipe)
    latents = encoded_scenes(recipe.run / f"latents-{recipe.families}.npy", scenes, pipeline.vae)
    stage = ControlNetStage(
        pipeline, EdgeBatches(plan.seed, recipe.controlnet_batch, scenes, latents), recipe.sheet_steps
    )
    state = train(stage, plan, recipe.run / "controlnet-training")
    folder = recipe.run / "controlnet"
    export_controlnet(state.average.module["controlnet"], folder)
    return folder


def train_upscaler(recipe: Recipe) -> Path:
    """Train the upscaler's autoencoder, then its UNet, to the end of their plans; write and return `<run>/upscaler`."""
    plan = recipe.upscaler
    side = recipe.sizes.side * FACTOR
    families = recipe.enlarged_families
    scenes = drawn_scenes(recipe.run / f"enlarged-{families}.npy", plan.seed, families, side, recipe.workers)
    autoencoder = _upscaler_autoencoder(recipe, scenes).to(plan.device)
    data = CropBatches(plan.seed, recipe.upscaler_batch, recipe.sizes.side, scenes)
    tokenizer = write_tokenizer(recipe.run / "tokenizer")
    stage = UpscalerStage(recipe.upscaler_sizes, autoencoder, tokenizer, side, data, recipe.sheet_steps)
    state = train(stage, plan, recipe.run / "upscaler-training")
    folder = recipe.run / "upscaler"
    export_upscaler(stage, state.average.module, folder)
    return folder


def _upscaler_autoencoder(recipe: Recipe, scenes: DrawnScenes) -> AutoencoderKL:
    folder = recipe.run / "upscaler-vae"
    if (folder / "config.json").is_file():
        return AutoencoderKL.from_pretrained(folder)
    if not (recipe.run / "vae" / "config.json").is_file():
        raise FileNotFoundError(f"{recipe.run / 'vae'} holds no autoencoder; run the stage `autoencoder` first")
    plan = recipe.upscaler_autoencoder
    data = CropBatches(plan.seed, recipe.autoencoder_batch, recipe.sizes.side, scenes)
    stage = UpscalerAutoencoderStage(recipe.sizes, AutoencoderKL.from_pretrained(recipe.run / "vae"), data)
    state = train(stage, plan, recipe.run / "upscaler-autoencoder-training")
    autoencoder = state.average.module["autoencoder"]
    count = max(1, recipe.statistics_families // FACTOR**2)
    pictures = torch.from_numpy(np.array(scenes.variants[:count])).flatten(0, 1)
    fold_statistics(autoencoder, to_signed(pictures).to(plan.device))
    scale_latents(autoencoder)
    part = recipe.run / "upscaler-vae.part"
    autoencoder.save_pretrained(part)
    part.rename(folder)
    return autoencoder
