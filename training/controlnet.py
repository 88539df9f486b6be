"""The ControlNet for edges: keeps a scene's shape where strong noise has wiped it out of the latents."""

from __future__ import annotations

import copy
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any, Final

import numpy as np
import torch
from diffusers import ControlNetModel, StableDiffusionControlNetImg2ImgPipeline, StableDiffusionImg2ImgPipeline
from PIL import Image

from overpaint_worker.imaging.edges import edges as edges_of
from training.batches import Batch, Batches, DrawnScenes, PairBatches, to_tensor
from training.captions import full_caption
from training.diffusion import late_timesteps, noised_towards
from training.models import LATENT_FACTOR
from training.scenes import attributes_of, draw, split_seeds
from training.sheets import repaint, save_grid
from training.stages import CAPTION_DROPOUT, source_share
from training.tokenizer import token_ids
from training.words import COLOURS, STYLES

_STRENGTH: Final = 0.9
"""Of the sheet's samples."""
_SIGMAS: Final = (0.7, 1.4)
"""Pixels of blur before the edges are found, in training: edges from elsewhere are finer or coarser."""
_HELD_OUT = 48
_ROWS = 6


class EdgeBatches:
    """Pairs of encoded scenes as in `PairBatches`, with the edges of the source, which has the target's outlines.

    The source is any variant of the target's family, so that edges found in one style serve for another.
    """

    def __init__(self, seed: int, batch: int, scenes: DrawnScenes, latents: DrawnScenes) -> None:
        self.seed = seed
        # Two sets of the same length and seed draw the same pairs.
        self._pictures, self._latents = (PairBatches(seed, batch, drawn) for drawn in (scenes, latents))

    def __getitem__(self, step: int) -> Batch:
        sources = self._pictures[step].sources
        assert sources is not None
        sigmas = np.random.default_rng((self.seed, step, 1)).uniform(*_SIGMAS, len(sources))
        pictures = [Image.fromarray(one) for one in sources.permute(0, 2, 3, 1).contiguous().numpy()]
        edges = to_tensor([edges_of(one, sigma=sigma) for one, sigma in zip(pictures, sigmas, strict=True)])
        return replace(self._latents[step], edges=edges)


class ControlNetStage:
    """The ControlNet alone (Zhang et al. 2023), on a finished model that stays as it is."""

    name = "controlnet"
    parts: tuple[str, ...] = ("loss",)

    def __init__(self, pipeline: StableDiffusionImg2ImgPipeline, data: Batches, sheet_steps: int = 24) -> None:
        self.pipeline, self.data, self.sheet_steps = pipeline, data, sheet_steps
        for frozen in (pipeline.unet, pipeline.text_encoder, pipeline.vae):
            frozen.eval().requires_grad_(False)
        controlnet = ControlNetModel.from_unet(pipeline.unet, conditioning_embedding_out_channels=(16, 32, 64))
        # Of the two layers that start at 0, one is enough to begin as the model alone; both would learn very slowly.
        controlnet.controlnet_cond_embedding.conv_out.reset_parameters()
        self.modules = torch.nn.ModuleDict({"controlnet": controlnet.requires_grad_(True)})

    def loss(self, batch: Batch, rng: torch.Generator, device: torch.device) -> dict[str, torch.Tensor]:
        return {"loss": self._loss(batch, rng, device, self.modules["controlnet"])}

    def _loss(
        self, batch: Batch, rng: torch.Generator, device: torch.device, controlnet: torch.nn.Module | None
    ) -> torch.Tensor:
        """As the denoiser's, with timesteps from strong noise above all."""
        if batch.sources is None or batch.edges is None:
            raise ValueError("a batch for the ControlNet has sources and edges; this one has not")
        scheduler = self.pipeline.scheduler
        latents, sources = (one.to(device).float() for one in (batch.pictures, batch.sources))
        count = len(latents)
        timesteps = late_timesteps(count, scheduler.config.num_train_timesteps, rng)
        dropped = torch.rand(count, generator=rng) < CAPTION_DROPOUT
        prompts = ["" if drop else text for text, drop in zip(batch.captions, dropped.tolist(), strict=True)]
        words = self.pipeline.text_encoder(torch.tensor(token_ids(self.pipeline.tokenizer, prompts), device=device))[0]
        share = torch.rand(count, generator=rng) * source_share(scheduler, timesteps)
        share = share.masked_fill(dropped, 0)[:, None, None, None].to(device)
        noise = torch.randn(latents.shape, generator=rng).to(device)
        start = torch.lerp(latents, sources, share)
        noised, wanted, weights = noised_towards(latents, start, noise, scheduler, timesteps)
        timesteps = timesteps.to(device)
        residuals: dict[str, Any] = {}
        if controlnet is not None:
            edges = batch.edges.to(device).float() / 255
            down, middle = controlnet(noised, timesteps, words, edges, return_dict=False)
            residuals = {"down_block_additional_residuals": down, "mid_block_additional_residual": middle}
        predicted = self.pipeline.unet(noised, timesteps, words, **residuals).sample.float()
        return (weights * (predicted - wanted).square()).mean()

    def measure(self, average: torch.nn.ModuleDict, device: torch.device, sheet: Path) -> float:
        """The loss with the ControlNet over the loss without, on fixed held-out scenes, captions, noise and timesteps.

        The sheet has held-out scenes, their edges, and each repainted at strength 0.9 without and with the ControlNet.
        """
        self._save_sheet(average["controlnet"], sheet)
        batch = self._held_out_batch(device)
        with torch.no_grad():
            ours, without = (
                float(self._loss(batch, torch.Generator().manual_seed(0), device, controlnet))
                for controlnet in (average["controlnet"], None)
            )
        return ours / without

    def _held_out_batch(self, device: torch.device) -> Batch:
        """Scenes in the six styles in turn, each with its flat drawing as the source."""
        seeds = split_seeds("held-out", np.random.default_rng(3), _HELD_OUT)
        shown = [attributes_of(seed).evolve(style=STYLES[index % len(STYLES)]) for index, seed in enumerate(seeds)]
        flat = [draw(one.evolve(style="flat"), self.side).picture for one in shown]
        encoded = [
            self.pipeline.vae.encode(self.pipeline.image_processor.preprocess(pictures).to(device)).latent_dist.mean
            for pictures in ([draw(one, self.side).picture for one in shown], flat)
        ]
        edges = to_tensor([edges_of(picture) for picture in flat])
        return Batch(encoded[0], [full_caption(one) for one in shown], encoded[1], edges=edges)

    def _save_sheet(self, controlnet: torch.nn.Module, file: Path) -> None:
        rows = []
        with_edges = self.assemble(controlnet)
        for index, seed in enumerate(split_seeds("held-out", np.random.default_rng(4), _ROWS)):
            source = attributes_of(seed).evolve(style="flat")
            colour = next(name for name in COLOURS[index:] if name not in (source.colour, source.ground))
            prompt = full_caption(source.evolve(colour=colour, style=STYLES[index % len(STYLES)]))
            picture = draw(source, self.side).picture
            edges = edges_of(picture)
            without = repaint(self.pipeline, picture, prompt, _STRENGTH, seed, self.sheet_steps)
            ours = repaint(with_edges, picture, prompt, _STRENGTH, seed, self.sheet_steps, control_image=edges)
            rows.append([picture, edges, without, ours])
        save_grid(rows, file)

    @property
    def side(self) -> int:
        """Native pixels a side."""
        return int(self.pipeline.unet.config.sample_size) * LATENT_FACTOR

    def assemble(self, controlnet: torch.nn.Module) -> StableDiffusionControlNetImg2ImgPipeline:
        """The model's pipeline with the ControlNet."""
        pipeline = StableDiffusionControlNetImg2ImgPipeline(
            **self.pipeline.components, controlnet=controlnet, requires_safety_checker=False
        )
        pipeline.set_progress_bar_config(disable=True)
        return pipeline


def export_controlnet(controlnet: ControlNetModel, folder: Path) -> None:
    """Write config.json and float16 safetensors; beside the folder first, and moved into place at the end."""
    part = folder.with_name(folder.name + ".part")
    shutil.rmtree(part, ignore_errors=True)
    copy.deepcopy(controlnet).to(torch.float16).save_pretrained(part, safe_serialization=True)
    shutil.rmtree(folder, ignore_errors=True)
    part.rename(folder)
