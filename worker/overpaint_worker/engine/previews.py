"""What latents show, at a small size and without the VAE: a linear map to colours, fitted to the source."""

from __future__ import annotations

import numpy as np
import torch
from PIL import Image

MOST_SIDE = 64
"""Pixels a side of a preview."""

RIDGE = 1e-3
"""Of the latents' mean variance: what keeps the map small in directions that the source does not tell of."""


class LatentPreview:
    """Turns latents into a small RGB picture, one pixel for each of them.

    Colours are nearly a linear function of latents, and the source says which: its own latents and its own pixels are
    fitted to each other by least squares. So there are no constants of a model in here.

    The map is that of clean latents. Those of a run that is under way hold noise besides, of which a scheduler with
    large sigmas adds a multiple of the picture: early previews are noisy, late ones are not.
    """

    def __init__(self, weights: torch.Tensor, bias: torch.Tensor) -> None:
        """`weights` [channels, 3] and `bias` [3] of colours within 0..1; use `fit`."""
        self._weights = weights
        self._bias = bias

    @classmethod
    def fit(cls, latents: torch.Tensor, picture: Image.Image) -> LatentPreview:
        """Learn the map from a source.

        `latents` [1, channels, height, width], of any dtype and device: what the pipeline makes of the source before it
        adds noise, so the mean of the VAE's posterior, scaled and shifted. `picture` is what the VAE was given, of any
        mode. A flat source teaches its colour and nothing else.
        """
        _, channels, height, width = latents.shape
        small = picture.convert("RGB").resize((width, height), Image.Resampling.BOX)
        colours = torch.from_numpy(np.asarray(small, dtype=np.float64).reshape(-1, 3) / 255)
        given = _samples(latents)
        mean, bias = given.mean(0), colours.mean(0)
        centred = given - mean
        covariance = centred.T @ centred / len(centred)
        # Nothing of a flat source is left but what rounding left: that must not be fitted either.
        ridge = RIDGE * covariance.diagonal().mean() + torch.finfo(torch.float32).eps * given.square().mean() + 1e-12
        weights = torch.linalg.solve(
            covariance + ridge * torch.eye(channels, dtype=torch.float64), centred.T @ (colours - bias) / len(centred)
        )
        return cls(weights, bias - mean @ weights)

    def of(self, latents: torch.Tensor) -> Image.Image:
        """RGB, one pixel for each of `latents` [1, channels, height, width], scaled down to `MOST_SIDE` a side at most.

        Colours beyond 0..1 are clipped; what is not finite is black.
        """
        _, _, height, width = latents.shape
        colours = (_samples(latents) @ self._weights + self._bias).nan_to_num(0, 0, 0).clamp(0, 1)
        pixels = (colours * 255).round().to(torch.uint8).reshape(height, width, 3).numpy()
        picture = Image.fromarray(pixels)
        picture.thumbnail((MOST_SIDE, MOST_SIDE), Image.Resampling.BOX)
        return picture


def _samples(latents: torch.Tensor) -> torch.Tensor:
    """[height * width, channels] in float64 on the CPU, where it costs next to nothing and is always there."""
    return latents[0].detach().to("cpu", torch.float64).flatten(1).T
