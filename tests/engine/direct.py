"""The independent side of comparisons: diffusers called as its documentation says, and calls to put beside it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import diffusers
import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image

from overpaint_worker.engine.calls import Call


class Direct:
    """A pipeline that diffusers loaded by itself."""

    def __init__(self, class_name: str, folder: Path) -> None:
        # SD3's absent T5 has to be passed as absent.
        absent = {"text_encoder_3": None, "tokenizer_3": None} if class_name.startswith("StableDiffusion3") else {}
        self.pipeline: Any = getattr(diffusers, class_name).from_pretrained(folder, dtype=torch.float32, **absent)
        self.pipeline.set_progress_bar_config(disable=True)

    def __call__(self, image: Image.Image, *, seed: int, **arguments: Any) -> NDArray[np.float32]:
        generator = torch.Generator().manual_seed(seed)
        output = self.pipeline(image=image, generator=generator, output_type="np", **arguments)
        pixels: NDArray[np.float32] = output.images[0]
        return pixels

    def picture(self, image: Image.Image, *, seed: int, **arguments: Any) -> Image.Image:
        """The same as 8-bit RGB, converted by diffusers."""
        generator = torch.Generator().manual_seed(seed)
        made: Image.Image = self.pipeline(image=image, generator=generator, **arguments).images[0]
        return made


def noise_picture(width: int = 64, height: int = 64, seed: int = 0) -> Image.Image:
    """Random blocks of 8 x 8 pixels: neither flat nor beyond what an autoencoder sees."""
    blocks = np.random.default_rng(seed).integers(0, 256, (-(-height // 8), -(-width // 8), 3), dtype=np.uint8)
    return Image.fromarray(blocks.repeat(8, 0).repeat(8, 1)[:height, :width])


def call(model: str, picture: Image.Image | None = None, **changes: Any) -> Call:
    """A call of few steps; `changes` replace its fields."""
    settings: dict[str, Any] = {
        "op": "img2img",
        "prompt": "a red cat",
        "negative_prompt": "",
        "strength": 0.6,
        "steps": 5,
        "guidance_scale": 4.0,
        "seed": 7,
    }
    return Call(model=model, picture=picture or noise_picture(), **(settings | changes))
