"""The bare pipeline call: diffusers alone, as its documentation says, on the weights of the embedded model."""

from __future__ import annotations

import time
from collections.abc import Callable

import diffusers
import torch
import transformers
from PIL import Image

from overpaint_worker.engine.registry import EMBEDDED


def load_directly() -> Callable[[Image.Image, str, int], float]:
    """A function that repaints a picture with a prompt and a number of steps, and returns the seconds that it took."""
    for library in (diffusers, transformers):
        library.utils.logging.disable_progress_bar()
        library.utils.logging.set_verbosity_error()
    pipeline = diffusers.StableDiffusionImg2ImgPipeline.from_pretrained(EMBEDDED, dtype=torch.float32)
    pipeline.set_progress_bar_config(disable=True)

    def call(picture: Image.Image, prompt: str, steps: int) -> float:
        generator = torch.Generator("cpu").manual_seed(1)
        started = time.perf_counter()
        # As the worker does: it is quicker than the pipeline's own no_grad.
        with torch.inference_mode():
            pipeline(
                prompt=prompt,
                image=picture,
                strength=1,
                num_inference_steps=steps,
                guidance_scale=4.0,
                generator=generator,
            )
        return time.perf_counter() - started

    return call
