"""What every stage that denoises shares: noised latents, and the v that leads from them to the latents wanted."""

from __future__ import annotations

import torch
from diffusers import DDIMScheduler


def noised_towards(
    latents: torch.Tensor, start: torch.Tensor, noise: torch.Tensor, scheduler: DDIMScheduler, timesteps: torch.Tensor
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Noise `start` and say which v leads from there to `latents` (v-prediction: Salimans and Ho 2022).

    `latents`, `start` and `noise` are B x C x H x W, `timesteps` B. Returns the noised latents and that v, both
    B x C x H x W, and the weights of its square error, B x 1 x 1 x 1 in 0 to 1: an error of v is one of the latents
    divided by the noise's amplitude, so that almost noiseless pictures would outweigh all others.
    """
    signal = scheduler.alphas_cumprod[timesteps].to(latents.device)
    a, b = (root.sqrt()[:, None, None, None] for root in (signal, 1 - signal))
    noised = a * start + b * noise
    return noised, (a * noised - latents) / b, (10 * b.square()).clamp(max=1)


def late_timesteps(count: int, steps: int, rng: torch.Generator) -> torch.Tensor:
    """`count` timesteps in 0 to `steps` - 1 in random order: the more noise, the more often, in proportion."""
    slices = torch.randperm(count, generator=rng) + torch.rand(count, generator=rng)
    return ((slices / count).sqrt() * steps).long().clamp(max=steps - 1)
