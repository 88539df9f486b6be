"""img2img: repaint the whole picture towards a prompt."""

from __future__ import annotations

import threading
from collections.abc import Callable

import numpy as np
from PIL import Image

from overpaint_common.job import Job
from overpaint_common.passes import Img2Img
from overpaint_worker.engine.calls import Call, Painted


def call(
    job: Job,
    p: Img2Img,
    variant: int,
    picture: Image.Image,
    on_progress: Callable[[str, int], None],
    cancelled: threading.Event,
) -> Call:
    """The engine call of one settled pass of one variant; its seed is the pass's plus the variant's number."""
    if p.steps is None or p.guidance_scale is None or p.seed is None:
        raise ValueError("the pass is not settled; settle the job before running it")
    return Call(
        model=job.model,
        op=p.op,
        picture=picture,
        prompt=p.prompt,
        negative_prompt=p.negative_prompt,
        strength=p.strength,
        steps=p.steps,
        guidance_scale=p.guidance_scale,
        seed=p.seed + variant,
        priority=job.priority,
        on_progress=on_progress,
        cancelled=cancelled,
    )


def to_picture(painted: Painted) -> Image.Image:
    """The 8-bit RGB picture, rounded as diffusers rounds."""
    return Image.fromarray((painted.pixels * 255).round().astype(np.uint8), "RGB")
