"""How diffusers' pipelines are called: copied for each call, told of every step, and left as they were found."""

from __future__ import annotations

import copy
import itertools
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import diffusers
import numpy as np
from numpy.typing import NDArray

from overpaint_common.errors import PipelineFailed


def callback(
    parameters: Mapping[str, Any],
    after_call: Callable[[int], None],
    finished: Callable[[int], None],
    show: Callable[[Any], None],
) -> dict[str, Any]:
    """What makes a pipeline tell of each call of its denoiser and show its latents, or in diffusers' old way tell of
    each finished step.
    """
    steps = itertools.count(1)

    def at_step_end(_: Any, index: int, __: Any, tensors: dict[str, Any]) -> dict[str, Any]:
        show(tensors.get("latents"))
        after_call(index + 1)
        return tensors

    def at_step(*_: Any) -> None:
        finished(next(steps))

    if "callback_on_step_end" in parameters:
        return {"callback_on_step_end": at_step_end}
    return {"callback": at_step, "callback_steps": 1}


def copy_for_call(pipeline: Any, copies: dict[int, Any] | None = None) -> Any:
    """A pipeline of the same parts, but with schedulers of its own; pipelines within it are copied likewise.

    A fraction of a millisecond while the schedulers have not been used: those that have hold latents.
    """
    copies = {} if copies is None else copies
    mine = copies[id(pipeline)] = copy.copy(pipeline)
    for name, part in vars(pipeline).items():
        if id(part) not in copies and isinstance(part, diffusers.SchedulerMixin):
            copies[id(part)] = copy.deepcopy(part)
        elif id(part) not in copies and isinstance(part, diffusers.DiffusionPipeline):
            copy_for_call(part, copies)
        if id(part) in copies:
            setattr(mine, name, copies[id(part)])
    return mine


def size_multiple(pipeline: Any) -> int:
    """Pixels of which both sides of a picture must be multiples; diffusers resizes or refuses others."""
    processor = getattr(pipeline, "image_processor", None)
    resized_to = processor.config.vae_scale_factor if processor is not None else 1
    factor = getattr(pipeline, "vae_scale_factor", 1)
    # Transformers see patches of latents.
    patches = getattr(pipeline, "transformer", None) is not None
    return int(max(resized_to, factor * getattr(pipeline, "patch_size", 2 if patches else 1)))


def finished_steps(pipeline: Any, steps: int, calls: int) -> int:
    """Denoising steps that are complete after `calls` calls of the denoiser, of a trajectory of `steps` steps.

    Heun and its kin call it twice a step but for the last, PNDM once or more before the first: counted as diffusers'
    own progress bar counts.
    """
    of_run = getattr(pipeline, "num_timesteps", None)
    order = getattr(pipeline.scheduler, "order", 1)
    if of_run is None:
        # Such pipelines tell of whole steps, and besides of what PNDM needs before the first.
        return int(max(0, calls - max(0, len(pipeline.scheduler.timesteps) - steps * order)))
    running = steps - (len(pipeline.scheduler.timesteps) - of_run) // order
    if calls >= of_run:
        return int(running)
    return int(max(0, calls - max(0, of_run - running * order)) // order)


def times(size: tuple[int, int], scale: int) -> tuple[int, int]:
    return size[0] * scale, size[1] * scale


def pixels_of(images: Any, padded: tuple[int, int], size: tuple[int, int]) -> NDArray[np.float32]:
    if len(images) != 1:
        raise PipelineFailed(f"the pipeline returned {len(images)} pictures for one")
    pixels = np.asarray(images[0], dtype=np.float32)
    if pixels.shape != (padded[1], padded[0], 3):
        raise PipelineFailed(
            f"the pipeline returned pixels of shape {pixels.shape} for a picture of {padded[0]} x {padded[1]}"
        )
    pixels = pixels[: size[1], : size[0]]
    if not np.isfinite(pixels).all():
        raise PipelineFailed("the pipeline returned NaN; set dtype float32 or bfloat16 in the model's registry entry")
    return pixels


class AttentionProcessors:
    """Perturbed attention guidance (PAG) exchanges a denoiser's attention processors for the length of a call."""

    def __init__(self, pipeline: Any) -> None:
        self._denoiser = pipeline.unet if hasattr(pipeline, "unet") else pipeline.transformer
        self._left: dict[str, Any] | None = None

    @contextmanager
    def as_left(self) -> Iterator[None]:
        """Within the block they are as the block before left them; afterwards, as they were found."""
        found = dict(self._denoiser.attn_processors)
        if self._left is not None:
            self._denoiser.set_attn_processor(self._left)
        try:
            yield
        finally:
            self._left = dict(self._denoiser.attn_processors)
            self._denoiser.set_attn_processor(found)
