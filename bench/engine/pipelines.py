"""Diffusers alone: loading a pipeline, and calling it on one job or on a batch of equal ones."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import diffusers
import numpy as np
import torch
import transformers
from numpy.typing import NDArray

from bench.engine.jobs import Job

Pixels = NDArray[np.float32]
"""[height, width, 3], 0..1."""


def open_pipeline(
    class_name: str, folder: Path, *, device: str = "cpu", dtype: torch.dtype = torch.float32, compiled: bool = False
) -> Any:
    """A pipeline as diffusers loads it by itself; `compiled` is its documentation's recipe for speed as well."""
    quiet()
    pipeline = getattr(diffusers, class_name).from_pretrained(folder, dtype=dtype).to(device)
    pipeline.set_progress_bar_config(disable=True)
    if compiled:
        compile_in_place(pipeline)
    return pipeline


def quiet() -> None:
    """No progress bars and no advice from the libraries."""
    for library in (diffusers, transformers):
        library.utils.logging.disable_progress_bar()
        library.utils.logging.set_verbosity_error()


def compile_in_place(pipeline: Any) -> None:
    """channels_last and a compiled denoiser; count its FLOPs before, since torch counts none in compiled code."""
    denoiser = torch.compile(denoiser_of(pipeline).to(memory_format=torch.channels_last))
    setattr(pipeline, _denoiser_name(pipeline), denoiser)


def denoiser_of(pipeline: Any) -> Any:
    """Its UNet or transformer."""
    return getattr(pipeline, _denoiser_name(pipeline))


def _denoiser_name(pipeline: Any) -> str:
    return "unet" if getattr(pipeline, "unet", None) is not None else "transformer"


def paint_one(pipeline: Any, job: Job) -> Pixels:
    """The pipeline called on one job, as its documentation says."""
    with torch.inference_mode():
        images = pipeline(
            prompt=job.prompt,
            image=job.picture,
            generator=torch.Generator("cpu").manual_seed(job.seed),
            **_settings(job),
        ).images
    pixels: Pixels = images[0]
    return pixels


def paint_each(pipeline: Any, jobs: Sequence[Job]) -> list[Pixels]:
    """A call of the pipeline for each job."""
    return [paint_one(pipeline, job) for job in jobs]


def paint_batch(pipeline: Any, jobs: Sequence[Job], **more: Any) -> list[Pixels]:
    """One call of the pipeline on jobs of one kind; `more` are arguments of the call, with an item for each job."""
    with torch.inference_mode():
        images = pipeline(
            prompt=[job.prompt for job in jobs],
            image=[job.picture for job in jobs],
            generator=[torch.Generator("cpu").manual_seed(job.seed) for job in jobs],
            **_settings(jobs[0]),
            **more,
        ).images
    return list(images)


def _settings(job: Job) -> dict[str, Any]:
    return {
        "num_inference_steps": job.steps,
        "strength": job.strength,
        "guidance_scale": job.guidance_scale,
        "output_type": "np",
    }
