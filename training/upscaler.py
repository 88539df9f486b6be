"""The x4 upscaler: a UNet that denoises the latents of a large picture, given the small one beside them.

The prompt is not read: the UNet has no cross-attention, so that guidance, whatever its scale, changes nothing and the
small picture alone decides. The text encoder is there because the standard layout asks for one.
"""

from __future__ import annotations

import copy
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np
import torch
from diffusers import AutoencoderKL, DDIMScheduler, DDPMScheduler, StableDiffusionUpscalePipeline, UNet2DConditionModel
from PIL import Image
from torch.nn import functional
from transformers import CLIPTextModel, CLIPTokenizer

from training.batches import Batch, Batches, to_signed, to_tensor
from training.diffusion import noised_towards
from training.enlarged import FACTOR, shrink
from training.models import LATENT_CHANNELS, Sizes, build_scheduler, build_text_encoder
from training.scenes import attributes_of, draw, split_seeds
from training.sheets import save_grid, save_reconstructions
from training.stages import AutoencoderStage, psnr, stratified_timesteps
from training.words import STYLES

SCALING_FACTOR: Final = 0.08333
"""Of the latents: `StableDiffusionUpscalePipeline` overwrites any other."""
MAX_NOISE_LEVEL: Final = 350
"""Of the small picture: the pipeline's own limit."""
USUAL_NOISE_LEVEL: Final = 20
"""The pipeline's default."""
_OFF: Final = 0.1
"""The most that latents are off in the autoencoder's training, in their own deviations."""
_TEXT: Final = 16
_HELD_OUT = 12


@dataclass(frozen=True, slots=True)
class UpscalerSizes:
    """The widths that decide what the upscaler costs. The defaults are the shipped one's."""

    unet: tuple[int, ...] = (48, 72)
    """Channels of the blocks; multiples of 8."""
    layers: int = 1


def build_upscaling_unet(sizes: UpscalerSizes) -> UNet2DConditionModel:
    """Random weights; predicts v for latents with the small picture beside them, B x 7 x H x W, at noise levels B."""
    count = len(sizes.unet)
    unet = UNet2DConditionModel(
        in_channels=LATENT_CHANNELS + 3,
        out_channels=LATENT_CHANNELS,
        down_block_types=("DownBlock2D",) * count,
        mid_block_type="UNetMidBlock2D",
        up_block_types=("UpBlock2D",) * count,
        block_out_channels=sizes.unet,
        layers_per_block=sizes.layers,
        cross_attention_dim=_TEXT,
        # Few groups: each forgets its own mean, and with many of them a crop's plain colour is hard to keep.
        norm_num_groups=2,
        num_class_embeds=1000,
    )
    # Each noise level is seen seldom: from 0, the levels start as one.
    torch.nn.init.zeros_(unet.class_embedding.weight)
    return unet


def build_low_res_scheduler() -> DDPMScheduler:
    """Noise for the small picture: a deviation of 0.017 at level 20 and of 0.2 at level 350, in units of -1 to 1."""
    return DDPMScheduler(num_train_timesteps=1000, beta_start=1e-5, beta_end=2e-3, beta_schedule="scaled_linear")


def build_upscaling_scheduler() -> DDIMScheduler:
    """The model's schedule, but the last timestep is noise alone and sampling starts there (Lin et al. 2023).

    Else the mean of the first noise would pass for a colour.
    """
    return DDIMScheduler.from_config(build_scheduler().config, rescale_betas_zero_snr=True, timestep_spacing="trailing")


class UpscalerAutoencoderStage(AutoencoderStage):
    """The finished autoencoder, taught further on crops of large pictures, with latents that are easy to predict.

    A latent's mean colour shall be a linear function of it, as the UNet sees that colour beside it; and the decoder
    shall bear latents that are a little off.
    """

    parts: tuple[str, ...] = ("loss", "l1", "mse", "pooled", "colour")

    def __init__(self, sizes: Sizes, finished: AutoencoderKL, data: Batches) -> None:
        super().__init__(sizes, data)
        self.modules["autoencoder"].load_state_dict(finished.state_dict())
        self.modules["colour"] = torch.nn.Conv2d(LATENT_CHANNELS, 3, 1)

    def loss(self, batch: Batch, rng: torch.Generator, device: torch.device) -> dict[str, torch.Tensor]:
        pictures = to_signed(batch.pictures.to(device))
        autoencoder: Any = self.modules["autoencoder"]
        latents = autoencoder.encode(pictures).latent_dist.mean
        spread = latents.detach().std(dim=(0, 2, 3), keepdim=True)
        off = _OFF * torch.rand(len(latents), 1, 1, 1, generator=rng) * torch.randn(latents.shape, generator=rng)
        decoded = autoencoder.decode(latents + spread * off.to(device)).sample.float()
        error = decoded - pictures
        l1, mse, pooled = error.abs().mean(), error.square().mean(), functional.avg_pool2d(error, FACTOR).abs().mean()
        colours = functional.avg_pool2d(pictures, FACTOR)
        colour = (self.modules["colour"](latents) - colours).square().mean()
        loss = l1 + 4 * mse + 2 * pooled + 3 * colour + 1e-3 * latents.square().mean()
        return {"loss": loss, "l1": l1, "mse": mse, "pooled": pooled, "colour": colour}

    def measure(self, average: torch.nn.ModuleDict, device: torch.device, sheet: Path) -> float:
        """PSNR in dB over held-out crops, two of each style."""
        autoencoder: Any = average["autoencoder"]
        pictures = held_out_crops(self.sizes.side * FACTOR)
        signed = to_signed(pictures).to(device)
        with torch.no_grad():
            decoded = autoencoder.decode(autoencoder.encode(signed).latent_dist.mean).sample.clamp(-1, 1)
        save_reconstructions(pictures, ((decoded.cpu() + 1) * 127.5).round().to(torch.uint8), sheet)
        return psnr(decoded, signed)


def scale_latents(autoencoder: AutoencoderKL) -> None:
    """Divide latents of unit variance by `SCALING_FACTOR`, as the pipeline expects; decoded pictures do not change."""
    with torch.no_grad():
        into, out = autoencoder.quant_conv, autoencoder.post_quant_conv
        into.weight[:LATENT_CHANNELS] /= SCALING_FACTOR
        into.bias[:LATENT_CHANNELS] /= SCALING_FACTOR
        into.bias[LATENT_CHANNELS:] -= 2 * np.log(SCALING_FACTOR)
        out.weight *= SCALING_FACTOR
    autoencoder.register_to_config(scaling_factor=SCALING_FACTOR)


class UpscalerStage:
    """The upscaler's UNet: v-prediction on crops' latents of unit variance, the crop made small noised beside them."""

    name = "upscaler"
    parts: tuple[str, ...] = ("loss",)

    def __init__(
        self, sizes: UpscalerSizes, autoencoder: AutoencoderKL, tokenizer: CLIPTokenizer, side: int, data: Batches,
        sheet_steps: int = 24,
    ) -> None:  # fmt: skip
        """`autoencoder` has scaled latents (`scale_latents`); `side` is that of the large scenes, in pixels."""
        self.autoencoder = autoencoder.eval().requires_grad_(False)
        self.tokenizer, self.side, self.data, self.sheet_steps = tokenizer, side, data, sheet_steps
        self.scheduler, self.low_res_scheduler = build_upscaling_scheduler(), build_low_res_scheduler()
        self.text_encoder: CLIPTextModel = build_text_encoder(Sizes(text=_TEXT, text_layers=1)).eval()
        self.modules = torch.nn.ModuleDict({"unet": build_upscaling_unet(sizes)})

    def loss(self, batch: Batch, rng: torch.Generator, device: torch.device) -> dict[str, torch.Tensor]:
        pictures = batch.pictures.to(device)
        # The autoencoder's latents depend on all that it sees: those of a whole picture, cropped, are not the crop's.
        with torch.no_grad():
            latents = self.autoencoder.encode(to_signed(pictures)).latent_dist.mean.float() * SCALING_FACTOR
        low = to_signed(shrink(pictures))
        count = len(latents)
        levels = (torch.rand(count, generator=rng).pow(3) * (MAX_NOISE_LEVEL + 1)).long().clamp(max=MAX_NOISE_LEVEL)
        low = self.low_res_scheduler.add_noise(low, torch.randn(low.shape, generator=rng).to(device), levels)
        timesteps = stratified_timesteps(count, self.scheduler.config.num_train_timesteps, rng)
        noise = torch.randn(latents.shape, generator=rng).to(device)
        noised, wanted, weights = noised_towards(latents, latents, noise, self.scheduler, timesteps)
        words = torch.zeros(count, 1, _TEXT, device=device)
        predicted = self.modules["unet"](
            torch.cat([noised, low], dim=1), timesteps.to(device), words, class_labels=levels.to(device)
        ).sample.float()
        return {"loss": (weights * (predicted - wanted).square()).mean()}

    def measure(self, average: torch.nn.ModuleDict, device: torch.device, sheet: Path) -> float:
        """PSNR in dB of the whole pipeline over held-out crops, two of each style.

        The sheet has the small picture, its bicubic enlargement, the upscaler's and the truth side by side.
        """
        truth = held_out_crops(self.side)
        low = pictures_of(shrink(truth))
        size = (self.side // 2, self.side // 2)
        pipeline = self.assemble(average).to(device)
        ours = upscale(pipeline, low, self.sheet_steps)
        bicubic = [picture.resize(size, Image.Resampling.BICUBIC) for picture in low]
        nearest = [picture.resize(size, Image.Resampling.NEAREST) for picture in low]
        tiles = [list(row) for row in zip(nearest, bicubic, ours, pictures_of(truth), strict=True)]
        save_grid([[*one, *other] for one, other in zip(tiles[::2], tiles[1::2], strict=True)], sheet)
        return psnr(to_signed(to_tensor(ours)), to_signed(truth))

    def assemble(self, average: torch.nn.ModuleDict) -> StableDiffusionUpscalePipeline:
        """The pipeline with the given UNet."""
        pipeline = StableDiffusionUpscalePipeline(
            vae=self.autoencoder,
            text_encoder=self.text_encoder,
            tokenizer=self.tokenizer,
            unet=average["unet"],
            low_res_scheduler=self.low_res_scheduler,
            scheduler=self.scheduler,
            max_noise_level=MAX_NOISE_LEVEL,
        )
        pipeline.set_progress_bar_config(disable=True)
        return pipeline


def upscale(pipeline: StableDiffusionUpscalePipeline, low: list[Image.Image], steps: int) -> list[Image.Image]:
    """Four times the size, without guidance, at the usual noise level; one seed for all pictures."""
    result: list[Image.Image] = pipeline(
        prompt=[""] * len(low),
        image=low,
        num_inference_steps=steps,
        guidance_scale=1.0,
        noise_level=USUAL_NOISE_LEVEL,
        generator=torch.Generator().manual_seed(0),
    ).images
    return result


def export_upscaler(stage: UpscalerStage, average: torch.nn.ModuleDict, folder: Path) -> None:
    """Write the standard folder of the upscaler in float16, the modules left as they are.

    Written beside the folder first and moved into its place at the end.
    """
    part = folder.with_name(folder.name + ".part")
    shutil.rmtree(part, ignore_errors=True)
    copy.deepcopy(stage.assemble(average)).to(torch.float16).save_pretrained(part, safe_serialization=True)
    shutil.rmtree(folder, ignore_errors=True)
    part.rename(folder)


def held_out_crops(side: int) -> torch.Tensor:
    """12 x 3 x side/2 x side/2, uint8: the middles of held-out scenes of `side` pixels, the six styles in turn."""
    seeds = split_seeds("held-out", np.random.default_rng(2), _HELD_OUT)
    styled = [attributes_of(seed).evolve(style=STYLES[index % len(STYLES)]) for index, seed in enumerate(seeds)]
    pictures = to_tensor([draw(attributes, side).picture for attributes in styled])
    return pictures[..., side // 4 : side * 3 // 4, side // 4 : side * 3 // 4].contiguous()


def pictures_of(pixels: torch.Tensor) -> list[Image.Image]:
    """B x 3 x height x width, uint8, as RGB pictures."""
    return [Image.fromarray(one) for one in pixels.permute(0, 2, 3, 1).contiguous().numpy()]
