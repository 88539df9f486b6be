"""The embedded model means what it says: on scenes it was not trained on, through the whole system."""

from __future__ import annotations

import io
from itertools import pairwise

import numpy as np
import pytest
import torch
from diffusers import AutoPipelineForInpainting
from PIL import Image, ImageFilter

from overpaint_producer import Img2Img, JobHandle, Producer
from overpaint_worker.engine.registry import EMBEDDED
from tests.support.stack import Stack, encoded, job
from training.captions import full_caption
from training.judging import colour_of, distance
from training.report import recoloured
from training.scenes import SEEDS, Scene, attributes_of, draw

SIDE = 64
FAR_BEYOND_CHANCE = 1 / 3
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
    """Given 20 scenes, when each is repainted in another colour at strength 0.8, then many objects have it."""
    wishes = [recoloured(scene.attributes) for scene in scenes]
    handles = [
        submit(serving, producer, scene, full_caption(wish), 0.8) for scene, wish in zip(scenes, wishes, strict=True)
    ]
    made = [painted(serving, handle) for handle in handles]
    hits = sum(colour_of(p, s.mask) == w.colour for p, s, w in zip(made, scenes, wishes, strict=True))
    assert hits > FAR_BEYOND_CHANCE * len(scenes), f"{hits} of {len(scenes)}"


def test_more_strength_leads_further_from_the_source(serving: Stack, producer: Producer, scenes: list[Scene]) -> None:
    """Given 4 scenes, when each is repainted at growing strengths, then each is further from its source than before."""
    strengths = (0.0, 0.2, 0.5, 0.8)
    for scene in scenes[:4]:
        prompt = full_caption(recoloured(scene.attributes))
        handles = [submit(serving, producer, scene, prompt, strength) for strength in strengths]
        away = [distance(painted(serving, handle), scene.picture) for handle in handles]
        assert away[0] == 0
        assert all(before < after for before, after in pairwise(away)), away


def test_a_mask_holds(scenes: list[Scene]) -> None:
    """Given masks around objects, when the model inpaints them, then many take the colour and the outside stays.

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
    assert hits > FAR_BEYOND_CHANCE * len(scenes), f"{hits} of {len(scenes)}"
