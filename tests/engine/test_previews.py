"""Small pictures of latents, held against what the real VAE and the real pipeline make of the same latents."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from skimage import data

from overpaint_producer.local.scene import draw_scene
from overpaint_worker.engine.previews import MOST_SIDE, LatentPreview
from overpaint_worker.engine.registry import EMBEDDED
from tests.engine.direct import Direct, noise_picture

LATENT = (16, 16)
"""Of 64 x 64 pixels in the embedded model."""

SOURCES = {
    "scene": draw_scene(),
    "astronaut": Image.fromarray(data.astronaut()),
    "coffee": Image.fromarray(data.coffee()),
    "chelsea": Image.fromarray(data.chelsea()),
    "rocket": Image.fromarray(data.rocket()),
}


@pytest.fixture(scope="module")
def direct() -> Direct:
    return Direct("StableDiffusionImg2ImgPipeline", EMBEDDED)


def source(name: str) -> Image.Image:
    return SOURCES[name].convert("RGB").resize((64, 64), Image.Resampling.LANCZOS)


def latents_of(picture: Image.Image, direct: Direct) -> torch.Tensor:
    """The mean of the posterior, scaled, as the pipeline does it."""
    pipeline = direct.pipeline
    with torch.inference_mode():
        mean: torch.Tensor = pipeline.vae.encode(pipeline.image_processor.preprocess(picture)).latent_dist.mean
    return mean * pipeline.vae.config.scaling_factor


def small(picture: Image.Image) -> Image.Image:
    return picture.resize(LATENT, Image.Resampling.BOX)


def blank(picture: Image.Image) -> Image.Image:
    """Its mean colour, everywhere: the best guess of who sees nothing of it."""
    return picture.resize((1, 1), Image.Resampling.BOX).resize(LATENT)


def psnr(one: Image.Image, other: Image.Image) -> float:
    difference = (np.asarray(one, np.float64) - np.asarray(other, np.float64)) / 255
    return -10 * math.log10(np.square(difference).mean())


@pytest.mark.parametrize("name", SOURCES)
def test_a_sources_own_latents_give_it_back_small(direct: Direct, name: str) -> None:
    """Given a source, when its own latents are shown, then at least 23 dB are between that and the source itself."""
    picture = source(name)
    latents = latents_of(picture, direct)

    preview = LatentPreview.fit(latents, picture).of(latents)

    assert (preview.mode, preview.size) == ("RGB", LATENT)
    assert psnr(preview, small(picture)) > 23


@pytest.mark.parametrize(("fitted", "shown"), [("scene", "astronaut"), ("coffee", "scene"), ("astronaut", "coffee")])
def test_other_latents_give_their_own_picture(direct: Direct, fitted: str, shown: str) -> None:
    """Given the map of one source, when another one's latents are shown, then more is seen of it than its colour."""
    preview = LatentPreview.fit(latents_of(source(fitted), direct), source(fitted))
    other = source(shown)

    made = preview.of(latents_of(other, direct))

    assert psnr(made, small(other)) > psnr(blank(other), small(other)) + 4


def test_previews_come_nearer_to_what_is_painted(direct: Direct) -> None:
    """Given latents after each step of a job, when they are shown, then each preview is nearer to the finished picture
    than the one before, and the last one nearer than the source or a blank."""
    picture = source("scene")
    preview = LatentPreview.fit(latents_of(picture, direct), picture)
    shown: list[Image.Image] = []

    def on_step(_: Any, __: int, ___: Any, tensors: dict[str, Any]) -> dict[str, Any]:
        shown.append(preview.of(tensors["latents"]))
        return tensors

    painted = direct.picture(
        picture,
        seed=3,
        prompt="a green house in snow",
        strength=0.6,
        num_inference_steps=10,
        guidance_scale=4.0,
        callback_on_step_end=on_step,
    )

    near = [psnr(each, small(painted)) for each in shown]
    assert near == sorted(near)
    assert near[-1] > max(psnr(small(picture), small(painted)), psnr(blank(painted), small(painted))) + 4


def test_a_flat_source_is_shown_flat(direct: Direct) -> None:
    """Given a source of one colour, which teaches no map, when any latents are shown, then in that colour."""
    flat = Image.new("RGB", (64, 64), (30, 120, 200))
    preview = LatentPreview.fit(latents_of(flat, direct), flat)

    for latents in (latents_of(flat, direct), torch.randn(1, 4, *LATENT, generator=torch.Generator().manual_seed(0))):
        assert np.abs(np.asarray(preview.of(latents), int) - (30, 120, 200)).max() <= 1


@pytest.mark.parametrize("channels", [4, 16])
def test_constant_latents_are_no_reason_to_fail(channels: int) -> None:
    latents = torch.zeros(1, channels, *LATENT)
    preview = LatentPreview.fit(latents, noise_picture())

    assert psnr(preview.of(latents), blank(noise_picture())) > 45


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_changes_next_to_nothing(direct: Direct, dtype: torch.dtype) -> None:
    picture = source("coffee")
    latents = latents_of(picture, direct)
    exact = LatentPreview.fit(latents, picture).of(latents)

    assert psnr(LatentPreview.fit(latents.to(dtype), picture).of(latents.to(dtype)), exact) > 35


def test_large_latents_are_shown_small_and_in_their_shape() -> None:
    latents = torch.randn(1, 4, 96, 160, generator=torch.Generator().manual_seed(0))

    assert LatentPreview.fit(latents, noise_picture(1280, 768)).of(latents).size == (MOST_SIDE, 38)


def test_what_is_not_finite_is_black(direct: Direct) -> None:
    preview = LatentPreview.fit(latents_of(source("scene"), direct), source("scene"))

    assert np.asarray(preview.of(torch.full((1, 4, *LATENT), torch.nan))).max() == 0
