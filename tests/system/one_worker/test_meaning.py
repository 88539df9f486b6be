"""The embedded model means what it says: on scenes it was not trained on, through the whole system."""

from __future__ import annotations

import io
from itertools import pairwise

import numpy as np
import pytest
import torch
from diffusers import (
    AutoPipelineForInpainting,
    ControlNetModel,
    StableDiffusionControlNetImg2ImgPipeline,
    StableDiffusionUpscalePipeline,
)
from PIL import Image, ImageFilter

from overpaint_producer import Img2Img, JobHandle, Producer
from overpaint_worker.engine.registry import EMBEDDED
from overpaint_worker.imaging.edges import edges as edges_of
from tests.support.stack import Stack, encoded, job
from training.captions import full_caption
from training.export import bytes_of
from training.judging import colour_of, distance, edge_energy, overlap, psnr
from training.report import recoloured
from training.scenes import SEEDS, Scene, attributes_of, draw
from training.upscaler import upscale

SIDE = 64
MOST = 0.6
"""Of pictures in the named colour; one of ten colours comes out by chance in a tenth."""


@pytest.fixture(scope="module")
def scenes() -> list[Scene]:
    """In all styles."""
    first = SEEDS["held-out"].start + 4000
    return [draw(attributes_of(seed), SIDE) for seed in range(first, first + 20)]


def submit(stack: Stack, producer: Producer, scene: Scene, prompt: str, strength: float) -> JobHandle:
    source = stack.put(f"scene-{scene.attributes.seed}.png", encoded(scene.picture))
    passes = (Img2Img(prompt=prompt, strength=strength, steps=24),)
    return producer.submit(job(stack, source=source, passes=passes, seed=scene.attributes.seed % 1000))


def painted(stack: Stack, handle: JobHandle) -> Image.Image:
    (output,) = handle.wait(timeout=100).raise_for_status().outputs
    return Image.open(io.BytesIO(stack.body(output.uri))).convert("RGB")


def test_the_colour_moves_to_the_one_that_the_prompt_names(
    serving: Stack, producer: Producer, scenes: list[Scene]
) -> None:
    """Given 20 scenes, when each is repainted in another colour at strength 0.8, then most objects have it."""
    wishes = [recoloured(scene.attributes) for scene in scenes]
    handles = [
        submit(serving, producer, scene, full_caption(wish), 0.8) for scene, wish in zip(scenes, wishes, strict=True)
    ]
    made = [painted(serving, handle) for handle in handles]
    hits = sum(colour_of(p, s.mask) == w.colour for p, s, w in zip(made, scenes, wishes, strict=True))
    assert hits > MOST * len(scenes), f"{hits} of {len(scenes)}"


@pytest.mark.long
def test_more_strength_leads_further_from_the_source(serving: Stack, producer: Producer, scenes: list[Scene]) -> None:
    """Given 4 scenes, when each is repainted at growing strengths, then each is further from its source than before."""
    strengths = (0.0, 0.2, 0.5, 0.8)
    for scene in scenes[:4]:
        prompt = full_caption(recoloured(scene.attributes))
        handles = [submit(serving, producer, scene, prompt, strength) for strength in strengths]
        away = [distance(painted(serving, handle), scene.picture) for handle in handles]
        assert away[0] == 0
        assert all(before < after for before, after in pairwise(away)), away


@pytest.mark.long
def test_a_mask_holds(scenes: list[Scene]) -> None:
    """Given masks around objects, when the model inpaints them, then most take the colour and the outside stays.

    Through diffusers' own pipeline: no worker serves `inpaint` yet.
    """
    pipeline = AutoPipelineForInpainting.from_pretrained(EMBEDDED, dtype=torch.float32)
    pipeline.set_progress_bar_config(disable=True)
    wishes = [recoloured(scene.attributes) for scene in scenes]
    masks = [Image.fromarray(scene.mask.astype(np.uint8) * 255).filter(ImageFilter.MaxFilter(7)) for scene in scenes]
    made = pipeline(
        [full_caption(wish) for wish in wishes],
        image=[scene.picture for scene in scenes],
        mask_image=masks,
        strength=0.9,
        num_inference_steps=24,
        guidance_scale=4.0,
        height=SIDE,
        width=SIDE,
        generator=torch.Generator().manual_seed(0),
    ).images
    hits = 0
    for picture, scene, mask, wish in zip(made, scenes, masks, wishes, strict=True):
        whole = Image.composite(picture, scene.picture, mask)
        outside = np.asarray(mask) == 0
        assert (np.asarray(whole)[outside] == np.asarray(scene.picture)[outside]).all()
        hits += colour_of(whole, scene.mask) == wish.colour
    assert hits > MOST * len(scenes), f"{hits} of {len(scenes)}"


@pytest.mark.long
def test_edges_hold_the_object_in_its_place() -> None:
    """Given plain scenes, when each is repainted at strength 0.9, then with its edges more of the object stays.

    Through diffusers' own pipelines: no worker serves `control` yet.
    """
    first = SEEDS["held-out"].start + 5000
    plain = [draw(attributes_of(seed).evolve(style="flat", place="plain"), SIDE) for seed in range(first, first + 12)]
    controlnet = ControlNetModel.from_pretrained(EMBEDDED.parent / "overpaint-mini-canny", dtype=torch.float32)
    pipeline = StableDiffusionControlNetImg2ImgPipeline.from_pretrained(
        EMBEDDED, controlnet=controlnet, dtype=torch.float32
    )
    pipeline.set_progress_bar_config(disable=True)
    with_edges, without = (
        pipeline(
            [full_caption(recoloured(scene.attributes)) for scene in plain],
            image=[scene.picture for scene in plain],
            control_image=[edges_of(scene.picture) for scene in plain],
            controlnet_conditioning_scale=scale,
            strength=0.9,
            num_inference_steps=24,
            guidance_scale=4.0,
            generator=[torch.Generator().manual_seed(index) for index in range(len(plain))],
        ).images
        for scale in (1.0, 0.0)
    )
    held, free = (
        np.array([overlap(picture, scene.mask) for picture, scene in zip(made, plain, strict=True)])
        for made in (with_edges, without)
    )
    assert held.mean() > free.mean() + 0.1, f"{held.mean():.2f} with edges, {free.mean():.2f} without"
    assert np.mean(held > free) > 0.75


@pytest.mark.long
def test_the_upscaler_adds_edges_and_keeps_to_the_small_picture(scenes: list[Scene]) -> None:
    """Given large scenes made small, when they are enlarged again, then they shrink to the same and are sharper."""
    truths = [draw(scene.attributes, 4 * SIDE).picture for scene in scenes[:6]]
    small = [truth.reduce(4) for truth in truths]
    pipeline = StableDiffusionUpscalePipeline.from_pretrained(
        EMBEDDED.parent / "overpaint-mini-upscaler", dtype=torch.float32
    )
    pipeline.set_progress_bar_config(disable=True)
    made = [upscale(pipeline, [picture], 24)[0] for picture in small]

    assert all(picture.size == truth.size for picture, truth in zip(made, truths, strict=True))
    faithful = [psnr(picture.reduce(4), before) for picture, before in zip(made, small, strict=True)]
    assert np.mean(faithful) >= 30, faithful
    nearer = [
        abs(edge_energy(picture) - edge_energy(truth))
        < abs(edge_energy(before.resize(truth.size, Image.Resampling.BICUBIC)) - edge_energy(truth))
        for picture, truth, before in zip(made, truths, small, strict=True)
    ]
    assert sum(nearer) >= 4, nearer


def test_the_embedded_models_keep_to_their_size() -> None:
    """The model in 12 MB; the ControlNet and the upscaler together in 6; each with its card."""
    controlnet, upscaler = (EMBEDDED.parent / f"overpaint-mini-{name}" for name in ("canny", "upscaler"))
    assert bytes_of(EMBEDDED) <= 12_000_000
    assert bytes_of(controlnet) + bytes_of(upscaler) <= 6_000_000
    assert all((folder / "README.md").is_file() for folder in (EMBEDDED, controlnet, upscaler))
