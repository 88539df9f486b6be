"""Sheets of samples to look at while a stage trains."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import torch
from diffusers import DiffusionPipeline, StableDiffusionImg2ImgPipeline
from PIL import Image

from training.captions import full_caption
from training.scenes import attributes_of, draw, split_seeds
from training.words import COLOURS, STYLES

_ZOOM = 2
_GUIDANCE = 4.0


def save_reconstructions(pictures: torch.Tensor, decoded: torch.Tensor, file: Path) -> None:
    """Rows of sources and, below each, what the autoencoder makes of them; both B x 3 x side x side, uint8."""
    rows = []
    for before, after in zip(pictures.split(12), decoded.split(12), strict=True):
        rows += [before, after]
    save_grid([[_to_image(tile) for tile in row] for row in rows], file)


def save_repainted(average: torch.nn.ModuleDict, parts: dict[str, Any], side: int, steps: int, file: Path) -> None:
    """Held-out flat scenes, each repainted in another colour at strengths 0.5 and 0.8 and in every style at 0.8."""
    pipeline = assemble(average, parts)
    rows = []
    for index, seed in enumerate(split_seeds("held-out", np.random.default_rng(1), 4)):
        source = attributes_of(seed).evolve(style="flat")
        other = source.evolve(colour=next(c for c in COLOURS[index:] if c not in (source.colour, source.ground)))
        picture = draw(source, side).picture
        wishes = [(full_caption(other), 0.5), (full_caption(other), 0.8)]
        wishes += [(full_caption(source.evolve(style=style)), 0.8) for style in STYLES]
        rows.append(
            [picture, *(repaint(pipeline, picture, prompt, strength, seed, steps) for prompt, strength in wishes)]
        )
    save_grid(rows, file)


def assemble(average: torch.nn.ModuleDict, parts: dict[str, Any]) -> StableDiffusionImg2ImgPipeline:
    """A pipeline of the given UNet, text encoder, autoencoder, tokenizer and scheduler."""
    pipeline = StableDiffusionImg2ImgPipeline(
        **parts,
        unet=average["unet"],
        text_encoder=average["text_encoder"],
        safety_checker=None,
        feature_extractor=None,
        requires_safety_checker=False,
    )
    pipeline.set_progress_bar_config(disable=True)
    return pipeline


def repaint(
    pipeline: DiffusionPipeline,
    picture: Image.Image,
    prompt: str,
    strength: float,
    seed: int,
    steps: int,
    **more: Any,
) -> Image.Image:
    """One picture by image-to-image: guidance 4; `more` goes to the pipeline as it is."""
    result = pipeline(
        prompt=prompt,
        image=picture,
        strength=strength,
        num_inference_steps=steps,
        guidance_scale=_GUIDANCE,
        generator=torch.Generator().manual_seed(seed),
        **more,
    )
    repainted: Image.Image = result.images[0]
    return repainted


def save_grid(rows: list[list[Image.Image]], file: Path) -> None:
    """Tiles of one size, enlarged, in a PNG."""
    side = rows[0][0].width * _ZOOM
    sheet = Image.new("RGB", (len(rows[0]) * (side + 2), len(rows) * (side + 2)), "white")
    for y, row in enumerate(rows):
        for x, tile in enumerate(row):
            sheet.paste(tile.resize((side, side), Image.Resampling.NEAREST), (x * (side + 2), y * (side + 2)))
    file.parent.mkdir(parents=True, exist_ok=True)
    sheet.save(file)


def _to_image(pixels: torch.Tensor) -> Image.Image:
    return Image.fromarray(pixels.permute(1, 2, 0).contiguous().numpy())
