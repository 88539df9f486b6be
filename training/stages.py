"""The two things that are trained: the autoencoder, then the denoiser with its text encoder."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any, Final, Protocol

import numpy as np
import torch
from diffusers import AutoencoderKL, DDIMScheduler
from torch.nn import functional
from transformers import CLIPTokenizer

from training.batches import Batch, Batches, to_signed, to_tensor
from training.captions import full_caption
from training.diffusion import noised_towards
from training.models import Sizes, build_autoencoder, build_text_encoder, build_unet
from training.scenes import attributes_of, draw, split_seeds
from training.sheets import save_reconstructions, save_repainted
from training.tokenizer import token_ids
from training.words import STYLES

CAPTION_DROPOUT = 0.1
BLENDED_FROM: Final = 700
"""The timestep from which on a noised picture may be the source alone, and not yet the picture asked for."""
_HELD_OUT = 24


class Stage(Protocol):
    """What `train` trains."""

    name: str
    modules: torch.nn.ModuleDict
    data: Batches
    """Item `step` is that step's batch."""
    parts: tuple[str, ...]
    """Names of what `loss` returns; the first is minimised."""

    def loss(self, batch: Batch, rng: torch.Generator, device: torch.device) -> dict[str, torch.Tensor]:
        """The losses of one batch, each a scalar; all randomness from `rng`, a generator on the CPU."""
        ...

    def measure(self, average: torch.nn.ModuleDict, device: torch.device, sheet: Path) -> float:
        """Write a sheet of samples made with the averaged weights; return the figure that shows the progress."""
        ...


class AutoencoderStage:
    """Encoder and decoder together: absolute and square error, pooled absolute error, a slight pull to unit normal."""

    name = "autoencoder"
    parts: tuple[str, ...] = ("loss", "l1", "mse", "pooled", "kl")

    def __init__(self, sizes: Sizes, data: Batches) -> None:
        self.sizes = sizes
        self.modules = torch.nn.ModuleDict({"autoencoder": build_autoencoder(sizes)})
        self.data = data

    def loss(self, batch: Batch, rng: torch.Generator, device: torch.device) -> dict[str, torch.Tensor]:
        pictures = to_signed(batch.pictures.to(device))
        autoencoder: Any = self.modules["autoencoder"]
        posterior = autoencoder.encode(pictures).latent_dist
        noise = torch.randn(posterior.mean.shape, generator=rng).to(device)
        decoded = autoencoder.decode(posterior.mean + posterior.std * noise).sample.float()
        error = decoded - pictures
        l1, mse = error.abs().mean(), error.square().mean()
        pooled = functional.avg_pool2d(error, 4).abs().mean()
        mean, logvar = posterior.mean.float(), posterior.logvar.float()
        kl = 0.5 * (mean.square() + logvar.exp() - 1 - logvar).mean()
        loss = l1 + 4 * mse + 0.5 * pooled + 1e-4 * kl
        return {"loss": loss, "l1": l1, "mse": mse, "pooled": pooled, "kl": kl}

    def measure(self, average: torch.nn.ModuleDict, device: torch.device, sheet: Path) -> float:
        """PSNR in dB over held-out scenes, four of each style."""
        autoencoder: Any = average["autoencoder"]
        pictures = held_out_pictures(self.sizes.side)
        signed = to_signed(pictures).to(device)
        with torch.no_grad():
            decoded = autoencoder.decode(autoencoder.encode(signed).latent_dist.mean).sample.clamp(-1, 1)
        save_reconstructions(pictures, ((decoded.cpu() + 1) * 127.5).round().to(torch.uint8), sheet)
        return psnr(decoded, signed)


def psnr(one: torch.Tensor, other: torch.Tensor) -> float:
    """Peak signal-to-noise ratio in dB of pictures in -1 to 1, from the mean square error over all of them."""
    return 10 * math.log10(4 / max(float((one - other).square().mean()), 1e-12))


def held_out_pictures(side: int) -> torch.Tensor:
    """24 x 3 x side x side, uint8: held-out scenes, the six styles in turn."""
    seeds = split_seeds("held-out", np.random.default_rng(0), _HELD_OUT)
    styled = [attributes_of(seed).evolve(style=STYLES[index % len(STYLES)]) for index, seed in enumerate(seeds)]
    return to_tensor([draw(attributes, side).picture for attributes in styled])


def fold_statistics(autoencoder: AutoencoderKL, pictures: torch.Tensor) -> None:
    """Make latents zero-mean with unit variance, so that `scaling_factor` stays 1; decoded pictures do not change.

    The mean and the standard deviation of each channel over `pictures` (B x 3 x H x W in -1 to 1) go into
    `quant_conv` and, inverted, into `post_quant_conv`, both 1 x 1 convolutions.
    """
    with torch.no_grad():
        means = torch.cat([autoencoder.encode(chunk).latent_dist.mean for chunk in pictures.split(32)])
        centre, spread = means.mean(dim=(0, 2, 3)), means.std(dim=(0, 2, 3))
        into, out = autoencoder.quant_conv, autoencoder.post_quant_conv
        count = len(centre)
        into.weight[:count] /= spread[:, None, None, None]
        into.bias[:count] = (into.bias[:count] - centre) / spread
        into.bias[count:] -= 2 * spread.log()
        out.bias += out.weight[:, :, 0, 0] @ centre
        out.weight *= spread[None, :, None, None]


class DenoiserStage:
    """UNet and text encoder together: v-prediction (Salimans and Ho 2022), taught on pairs to repaint.

    Image-to-image starts from a noised source that differs from what the prompt asks for. So the noised latents of
    training come from a blend: a share of the source that is random up to `source_share`, the rest the target. The
    model always predicts towards the target, which the caption describes. Without a source, or with the caption
    dropped, this is usual diffusion training.
    """

    name = "denoiser"
    parts: tuple[str, ...] = ("loss",)

    def __init__(
        self,
        sizes: Sizes,
        autoencoder: AutoencoderKL,
        tokenizer: CLIPTokenizer,
        scheduler: DDIMScheduler,
        data: Batches,
        sheet_steps: int = 24,
    ) -> None:
        self.sheet_steps = sheet_steps
        self.sizes, self.autoencoder, self.tokenizer, self.scheduler, self.data = (
            sizes,
            autoencoder.eval().requires_grad_(False),
            tokenizer,
            scheduler,
            data,
        )
        self.modules = torch.nn.ModuleDict({"unet": build_unet(sizes), "text_encoder": build_text_encoder(sizes)})

    def loss(self, batch: Batch, rng: torch.Generator, device: torch.device) -> dict[str, torch.Tensor]:
        latents = self._latents(batch.pictures.to(device))
        sources = latents if batch.sources is None else self._latents(batch.sources.to(device))
        count = len(latents)
        timesteps = stratified_timesteps(count, self.scheduler.config.num_train_timesteps, rng)
        dropped = torch.rand(count, generator=rng) < CAPTION_DROPOUT
        prompts = ["" if drop else text for text, drop in zip(batch.captions, dropped.tolist(), strict=True)]
        ids = torch.tensor(token_ids(self.tokenizer, prompts), device=device)
        # Below 0 the blend overshoots the target, as strong guidance does.
        share = (torch.rand(count, generator=rng) * 2 - 0.6).clamp(max=1) * source_share(self.scheduler, timesteps)
        share = share.masked_fill(dropped, 0)[:, None, None, None].to(device)

        noise = torch.randn(latents.shape, generator=rng).to(device)
        start = torch.lerp(latents, sources, share)
        noised, wanted, weights = noised_towards(latents, start, noise, self.scheduler, timesteps)
        words = self.modules["text_encoder"](ids)[0]
        predicted = self.modules["unet"](noised, timesteps.to(device), words).sample.float()
        return {"loss": (weights * (predicted - wanted).square()).mean()}

    def _latents(self, pictures: torch.Tensor) -> torch.Tensor:
        if pictures.dtype != torch.uint8:
            return pictures.float()
        with torch.no_grad():
            return self.autoencoder.encode(to_signed(pictures)).latent_dist.mean.float()

    def measure(self, average: torch.nn.ModuleDict, device: torch.device, sheet: Path) -> float:
        """The loss over fixed held-out scenes, captions, noise and timesteps."""
        parts = {"vae": self.autoencoder, "tokenizer": self.tokenizer, "scheduler": self.scheduler}
        save_repainted(average, parts, self.sizes.side, self.sheet_steps, sheet)
        trained, self.modules = self.modules, average
        try:
            with torch.no_grad():
                pictures = held_out_pictures(self.sizes.side)
                captions = _held_out_captions()
                return float(self.loss(Batch(pictures, captions), torch.Generator().manual_seed(0), device)["loss"])
        finally:
            self.modules = trained


def _held_out_captions() -> list[str]:
    seeds = split_seeds("held-out", np.random.default_rng(0), _HELD_OUT)
    return [full_caption(attributes_of(seed).evolve(style=STYLES[i % len(STYLES)])) for i, seed in enumerate(seeds)]


def source_share(scheduler: DDIMScheduler, timesteps: torch.Tensor) -> torch.Tensor:
    """The largest share of the source in the noised latents, 0 to 1, one for each timestep.

    Everything from `BLENDED_FROM` on; before it, what a deterministic sampler that started there would still carry,
    which falls with the signal-to-noise ratio.
    """
    signal = scheduler.alphas_cumprod
    ratio = (signal / (1 - signal)).sqrt()
    return (ratio[BLENDED_FROM] / ratio[timesteps]).clamp(max=1)


def stratified_timesteps(count: int, steps: int, rng: torch.Generator) -> torch.Tensor:
    """`count` timesteps in 0 to `steps` - 1, one from each of `count` equal slices, in random order."""
    slices = torch.randperm(count, generator=rng) + torch.rand(count, generator=rng)
    return (slices / count * steps).long().clamp(max=steps - 1)
