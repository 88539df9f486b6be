"""What the engine paints is what diffusers paints when called directly."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from PIL import Image

from overpaint_worker.engine.engine import Engine
from tests.engine.conftest import Models
from tests.engine.direct import call, noise_picture

TOLERANCE = 1e-4
EVERY = ["mini", "sd", "sdxl", "sd3", "flux"]


def largest_difference(engine: Engine, models: Models, name: str, picture: Image.Image, **asked: Any) -> float:
    """Between the engine's pixels and those of a direct call; `asked` in the words of `Call`."""
    ours = engine.submit(call(name, picture, **asked)).result(60)
    given = call(name, picture, **asked)
    arguments: dict[str, Any] = {
        "prompt": given.prompt,
        "strength": given.strength,
        "num_inference_steps": given.steps,
        "guidance_scale": given.guidance_scale,
    }
    if given.negative_prompt:
        arguments["negative_prompt"] = given.negative_prompt
    if name in ("sd3", "flux"):
        arguments |= {"width": picture.width, "height": picture.height}
    theirs = models.direct(name)(picture, seed=given.seed, **arguments)
    assert ours.pixels.shape == theirs.shape == (picture.height, picture.width, 3)
    return float(np.abs(ours.pixels - theirs).max())


@pytest.mark.parametrize("strength", [0.3, 1.0])
@pytest.mark.parametrize("name", EVERY)
def test_every_family_at_several_strengths(engine: Engine, models: Models, name: str, strength: float) -> None:
    assert largest_difference(engine, models, name, noise_picture(), strength=strength, seed=11) <= TOLERANCE


@pytest.mark.parametrize("guidance_scale", [1.0, 9.5])
@pytest.mark.parametrize("name", EVERY)
def test_with_and_without_guidance(engine: Engine, models: Models, name: str, guidance_scale: float) -> None:
    assert largest_difference(engine, models, name, noise_picture(), guidance_scale=guidance_scale) <= TOLERANCE


@pytest.mark.parametrize("name", ["mini", "sd", "sdxl", "sd3"])
def test_with_a_negative_prompt(engine: Engine, models: Models, name: str) -> None:
    assert largest_difference(engine, models, name, noise_picture(), negative_prompt="a blue house") <= TOLERANCE


@pytest.mark.parametrize("size", [(96, 64)])
@pytest.mark.parametrize("name", EVERY)
def test_pictures_that_are_not_square(engine: Engine, models: Models, name: str, size: tuple[int, int]) -> None:
    assert largest_difference(engine, models, name, noise_picture(*size)) <= TOLERANCE


@pytest.mark.parametrize("scheduler", ["pndm", "heun"])
def test_schedulers_that_call_the_denoiser_more_often(engine: Engine, models: Models, scheduler: str) -> None:
    assert largest_difference(engine, models, scheduler, noise_picture()) <= TOLERANCE


@pytest.mark.parametrize(
    ("name", "size", "multiple"),
    [("mini", (66, 70), 4), ("sd", (70, 61), 8), ("sdxl", (60, 76), 8), ("sd3", (72, 40), 16), ("flux", (72, 70), 16)],
)
def test_other_sizes_come_back_at_their_own_size(
    engine: Engine, models: Models, name: str, size: tuple[int, int], multiple: int
) -> None:
    # diffusers would scale such a picture to the next smaller multiple, or refuse it (SD3).
    picture = noise_picture(*size)
    width, height = (-(-side // multiple) * multiple for side in size)
    widened = Image.new("RGB", (width, height))
    for x in range(width):
        for y in range(height):
            widened.putpixel((x, y), picture.getpixel((min(x, size[0] - 1), min(y, size[1] - 1))))  # type: ignore[arg-type]
    sizes = {"width": width, "height": height} if name in ("sd3", "flux") else {}

    ours = engine.submit(call(name, picture)).result(60).pixels

    theirs = models.direct(name)(
        widened, seed=7, prompt="a red cat", strength=0.6, num_inference_steps=5, guidance_scale=4.0, **sizes
    )
    assert ours.shape == (size[1], size[0], 3)
    assert np.abs(ours - theirs[: size[1], : size[0]]).max() <= TOLERANCE


def test_the_prompt_the_seed_and_the_strength_all_count(engine: Engine) -> None:
    base = call("sd")
    changed = [call("sd", prompt="a green tree"), call("sd", seed=8), call("sd", strength=0.9)]
    first = engine.submit(base).result(60).pixels

    assert all(np.abs(engine.submit(other).result(60).pixels - first).max() > 0.01 for other in changed)
