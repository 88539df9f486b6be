"""The whole lane: a diffusers pipeline called as one, with progress and cancelling at every step."""

from __future__ import annotations

import copy
import inspect
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import diffusers
import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image

from overpaint_common.errors import PipelineFailed
from overpaint_common.result import ModelInfo, WarningNote
from overpaint_worker.engine.calls import Call
from overpaint_worker.engine.prompts import cut_prompts


class WholeModel:
    """Any image-to-image pipeline that diffusers can load.

    Pipelines keep what belongs to a call on themselves and on their scheduler, so each call gets copies of those, and
    a call may run within another's step.
    """

    def __init__(self, pipeline: Any, info: ModelInfo) -> None:
        """`pipeline` is only ever copied, so it stays as it was loaded; nobody else may call it."""
        self._pipeline = pipeline
        self._vae_dtype = getattr(getattr(pipeline, "vae", None), "dtype", None)
        self._parameters = inspect.signature(type(pipeline).__call__).parameters
        self._multiple = size_multiple(pipeline)
        self.info = info

    def run(
        self, call: Call, on_step: Callable[[int], None]
    ) -> tuple[NDArray[np.float32], int, tuple[WarningNote, ...]]:
        """Call the pipeline on one picture with a CPU generator of the call's seed.

        Returns pixels [height, width, 3] in 0..1 of the picture's own size, the rows a forward held (2 with guidance),
        and warnings. `on_step` gets the number of finished steps after each call of the denoiser, of which some
        schedulers make several a step; whatever it raises ends the call there, and it may `run` another call. Raises
        PipelineFailed where the result is no picture.
        """
        pipeline = copy_for_call(self._pipeline)

        def after_step(_: Any, index: int, __: Any, tensors: dict[str, Any]) -> dict[str, Any]:
            on_step(finished_steps(pipeline, call.steps, index + 1))
            return tensors

        arguments, warnings = self._arguments(call)
        with torch.inference_mode(), self._parts_as_found(pipeline):
            images = pipeline(
                **arguments,
                generator=torch.Generator("cpu").manual_seed(call.seed),
                output_type="np",
                callback_on_step_end=after_step,
            ).images
        rows = 2 if getattr(pipeline, "do_classifier_free_guidance", False) else 1
        texts = {"prompt": call.prompt, "negative_prompt": call.negative_prompt}
        return _pixels(images, call.picture.size), rows, (*warnings, *cut_prompts(pipeline, texts))

    @contextmanager
    def _parts_as_found(self, pipeline: Any) -> Iterator[None]:
        """Undo what a call that fails leaves behind on the parts that calls share; one that ends well does it itself.

        SDXL moves a float16 VAE to float32 and back around its use, and perturbed attention guidance (PAG) exchanges
        attention processors for the length of a call.
        """
        processors: dict[str, Any] = {}
        if hasattr(pipeline, "pag_attn_processors"):
            denoiser = pipeline.unet if hasattr(pipeline, "unet") else pipeline.transformer
            processors = denoiser.attn_processors
        try:
            yield
        except BaseException:
            if self._vae_dtype is not None and pipeline.vae.dtype != self._vae_dtype:
                pipeline.vae.to(self._vae_dtype)
            if processors:
                denoiser.set_attn_processor(processors)
            raise

    def _arguments(self, call: Call) -> tuple[dict[str, Any], tuple[WarningNote, ...]]:
        picture = _padded(call.picture, self._multiple)
        arguments: dict[str, Any] = {
            "prompt": call.prompt,
            "image": picture,
            "strength": call.strength,
            "num_inference_steps": call.steps,
            "guidance_scale": call.guidance_scale,
        }
        # Pipelines that take a size fall back to their native one instead of the picture's.
        sizes = {"width": picture.width, "height": picture.height}
        arguments |= {name: value for name, value in sizes.items() if name in self._parameters}
        if not call.negative_prompt:
            return arguments, ()
        why_not = self._no_negative_prompt(call.guidance_scale)
        if why_not is None:
            return {**arguments, "negative_prompt": call.negative_prompt}, ()
        return arguments, (WarningNote(code="negative_prompt_ignored", message=f"negative_prompt left out: {why_not}"),)

    def _no_negative_prompt(self, guidance_scale: float) -> str | None:
        """Why a negative prompt would change nothing, or None where it counts."""
        if "negative_prompt" not in self._parameters:
            return f"{self.info.pipeline} takes none"
        true_scale = self._parameters.get("true_cfg_scale")
        if true_scale is None:
            return None if guidance_scale > 1 else f"guidance_scale {guidance_scale:g} runs without it; use more than 1"
        return None if true_scale.default > 1 else f"{self.info.pipeline} is guided without one"


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
    # Transformers see patches of latents; only pipelines that take a size are built on them.
    takes_size = "height" in inspect.signature(type(pipeline).__call__).parameters
    return int(max(resized_to, factor * getattr(pipeline, "patch_size", 2 if takes_size else 1)))


def finished_steps(pipeline: Any, steps: int, calls: int) -> int:
    """Denoising steps that are complete after `calls` calls of the denoiser, of a trajectory of `steps` steps.

    Heun and its kin call it twice a step but for the last, PNDM once or more before the first: counted as diffusers'
    own progress bar counts.
    """
    of_run = getattr(pipeline, "num_timesteps", None)
    if of_run is None:
        return calls
    order = getattr(pipeline.scheduler, "order", 1)
    running = steps - (len(pipeline.scheduler.timesteps) - of_run) // order
    if calls >= of_run:
        return int(running)
    return int(max(0, calls - max(0, of_run - running * order)) // order)


def _padded(picture: Image.Image, multiple: int) -> Image.Image:
    across, down = -picture.width % multiple, -picture.height % multiple
    if not across and not down:
        return picture
    return Image.fromarray(np.pad(np.asarray(picture), ((0, down), (0, across), (0, 0)), mode="edge"))


def _pixels(images: Any, size: tuple[int, int]) -> NDArray[np.float32]:
    width, height = size
    if len(images) != 1:
        raise PipelineFailed(f"the pipeline returned {len(images)} pictures for one")
    pixels = np.asarray(images[0], dtype=np.float32)[:height, :width]
    if pixels.shape != (height, width, 3):
        raise PipelineFailed(
            f"the pipeline returned pixels of shape {pixels.shape} for a picture of {width} x {height}"
        )
    if not np.isfinite(pixels).all():
        raise PipelineFailed("the pipeline returned NaN; set dtype float32 or bfloat16 in the model's registry entry")
    return pixels
