"""Upscaling in tiles: the canvas is in host memory, and the device holds one tile at a time."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import diffusers
import numpy as np
import torch
from numpy.typing import NDArray

from overpaint_common.errors import NotServed
from overpaint_worker.engine.norms import SharedNorms
from overpaint_worker.engine.tiles import Size, Tiling

USUAL_SIDE = 64
"""Of a tile, pixels before upscaling, where the UNet's configuration names no sample size."""
OVERLAPS = 4
"""Neighbouring tiles share at least one of so many parts of a side."""
DECODINGS = 3
"""Times that the VAE decodes every tile: the first ones tell how to normalise, and in nine cases two came within 22 dB
of the picture decoded in one piece at worst, three within 30."""


def check_noise_level(pipeline: Any, noise_level: int) -> None:
    """Raises NotServed for a noise level that the upscaler was never trained with."""
    most = getattr(pipeline.config, "max_noise_level", None)
    if most is not None and noise_level > most:
        raise NotServed(f"noise_level {noise_level}: this upscaler takes 0 to {most}; use {most} or less")


def tiling_of(pipeline: Any) -> Tiling | None:
    """How an upscaler's pictures are cut: into tiles of what its UNet was trained on. None for other pipelines."""
    if not isinstance(pipeline, diffusers.StableDiffusionUpscalePipeline):
        return None
    trained = pipeline.unet.config.sample_size or USUAL_SIDE
    side = trained if isinstance(trained, int) else min(trained)
    return Tiling(side, max(1, side // OVERLAPS))


def upscale(
    pipeline: Any, arguments: Mapping[str, Any], tiling: Tiling, between: Callable[[], None]
) -> NDArray[np.float32]:
    """What a StableDiffusionUpscalePipeline makes of a picture, [1, height, width, 3] within 0..1, tile by tile.

    The pipeline runs on the CPU in float32 and draws its noise once for the whole canvas, in its own order; each time
    it calls its UNet, that predicts every tile on the device, and the predictions are blended before the scheduler's
    one step (MultiDiffusion, Bar-Tal et al. 2023). Then the VAE decodes every tile, and the pixels are blended. Both
    networks normalise by the whole canvas, see SharedNorms, so a UNet without attention predicts nearly what it would
    for the canvas in one piece.

    `arguments` are those of the pipeline's call. `between` is called after each tile, when nothing of this call is on
    the device: it may raise, and it may run other calls on the same parts.
    """
    device = pipeline._execution_device
    given = dict(arguments)
    positive, negative = pipeline.encode_prompt(
        given.pop("prompt"), device, 1, given["guidance_scale"] > 1, given.pop("negative_prompt", None)
    )
    canvas = copy.copy(pipeline)
    canvas.text_encoder = None
    canvas.unet = _TiledUNet(pipeline.unet, device, tiling, between)
    canvas.vae = _ConfigAlone(pipeline.vae.config)
    given |= {"prompt_embeds": _on_host(positive), "output_type": "latent"}
    if negative is not None:
        given["negative_prompt_embeds"] = _on_host(negative)
    latents = canvas(**given).images / pipeline.vae.config.scaling_factor
    return _decoded(pipeline, latents, device, tiling, between)[None]


class _ConfigAlone:
    """Stands in for a part that a pipeline looks at and does not run."""

    def __init__(self, config: Any) -> None:
        self.config = config


class _TiledUNet(_ConfigAlone):
    """Stands in for a UNet whose input is too large for the device."""

    dtype = torch.float32

    def __init__(self, unet: Any, device: torch.device, tiling: Tiling, between: Callable[[], None]) -> None:
        super().__init__(unet.config)
        self._unet = unet
        self._device = device
        self._tiling = tiling
        self._between = between
        self._norms: SharedNorms | None = None

    def __call__(
        self, sample: torch.Tensor, timestep: torch.Tensor, encoder_hidden_states: torch.Tensor, **given: Any
    ) -> tuple[torch.Tensor]:
        """The prediction for a sample of [rows, channels, height, width], as with return_dict=False."""
        size = sample.shape[3], sample.shape[2]
        given |= {
            "timestep": timestep.to(self._device),
            "encoder_hidden_states": encoder_hidden_states.to(self._device, self._unet.dtype),
            "class_labels": given["class_labels"].to(self._device),
        }
        if self._norms is None:
            self._norms = SharedNorms(self._unet, self._tiling.shares(size))
            # Only to learn how to normalise.
            self._round(self._norms, sample, size, given)
        return (self._round(self._norms, sample, size, given),)

    def _round(self, norms: SharedNorms, sample: torch.Tensor, size: Size, given: Mapping[str, Any]) -> torch.Tensor:
        tiles, fades = self._tiling.tiles(size), self._tiling.fades(size)
        total = torch.zeros(len(sample), self.config.out_channels, *sample.shape[2:])
        for number in norms.order:
            left, top, right, bottom = tiles[number]
            tile = sample[:, :, top:bottom, left:right].to(self._device, self._unet.dtype)
            with norms.tile(number, self._device):
                made = self._unet(tile, **given)[0]
            total[:, :, top:bottom, left:right] += _on_host(made) * torch.from_numpy(np.outer(*fades[number]))
            self._between()
        return total


def _decoded(
    pipeline: Any, latents: torch.Tensor, device: torch.device, tiling: Tiling, between: Callable[[], None]
) -> NDArray[np.float32]:
    """Pixels of [height, width, 3] from latents of [1, channels, height, width] that are no longer scaled."""
    height, width = latents.shape[2:]
    size, scale = (width, height), pipeline.vae_scale_factor
    norms = SharedNorms(pipeline.vae.decoder, tiling.shares(size))
    tiles, fades = tiling.tiles(size), tiling.fades(size, scale)
    pixels = np.zeros((height * scale, width * scale, 3), np.float32)
    for decoding in range(DECODINGS):
        for number in norms.order:
            left, top, right, bottom = tiles[number]
            with _wide_enough(pipeline.vae) as dtype, norms.tile(number, device):
                tile = latents[:, :, top:bottom, left:right].to(device, dtype)
                made = pipeline.vae.decode(tile, return_dict=False)[0]
            if decoding == DECODINGS - 1:
                part = pixels[top * scale : bottom * scale, left * scale : right * scale]
                part += _on_host(made[0]).permute(1, 2, 0).numpy() * np.outer(*fades[number])[:, :, None]
            between()
    # In place, since this is the largest thing in host memory.
    pixels *= 0.5
    pixels += 0.5
    return np.clip(pixels, 0, 1, out=pixels)


@contextmanager
def _wide_enough(vae: Any) -> Iterator[torch.dtype]:
    """The dtype to decode in: float32 within the block where the VAE overflows in float16."""
    dtype = vae.dtype
    if not (dtype == torch.float16 and vae.config.force_upcast):
        yield dtype
        return
    vae.to(dtype=torch.float32)
    try:
        yield torch.float32
    finally:
        vae.to(dtype=dtype)


def _on_host(tensor: torch.Tensor) -> torch.Tensor:
    return tensor.to("cpu", torch.float32)
