"""The whole lane: a diffusers pipeline called as one, with progress and cancelling at every step."""

from __future__ import annotations

import copy
import inspect
import itertools
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from typing import Any

import diffusers
import numpy as np
import torch
from numpy.typing import NDArray

from overpaint_common.errors import PipelineFailed, UnsafePicture
from overpaint_common.result import ModelInfo
from overpaint_worker.engine import controls as control_networks
from overpaint_worker.engine import schedulers, tiled
from overpaint_worker.engine.adapters import Adapters
from overpaint_worker.engine.arguments import Arguments, arguments_of
from overpaint_worker.engine.calls import UPSCALES, Call, Made
from overpaint_worker.engine.controls import ControlNetwork
from overpaint_worker.engine.faces import Faces
from overpaint_worker.engine.prompts import cut_prompts
from overpaint_worker.engine.rows import Rows
from overpaint_worker.engine.safety import SafetyChecker


class WholeModel:
    """A model as diffusers runs it: a pipeline for each operation, all on the same weights.

    Pipelines keep what belongs to a call on themselves and on their scheduler, so each call gets copies of those, and
    a call may run within another's step.
    """

    def __init__(
        self,
        pipeline: Any,
        info: ModelInfo,
        *,
        controls: Mapping[str, ControlNetwork] | None = None,
        adapters: Adapters | None = None,
        safety: SafetyChecker | None = None,
    ) -> None:
        """`pipeline` is only ever copied, so it stays as it was loaded; nobody else may call it.

        `controls` by name, and `adapters` of that pipeline, are what calls may name; `safety` None checks nothing.
        Raises NotServed where diffusers has no pipeline for the controls.
        """
        self._controls = controls or {}
        self._faces = Faces(pipeline, {name: control.network for name, control in self._controls.items()})
        self._adapters = adapters or Adapters(pipeline)
        self._safety = safety
        self._rows = Rows(pipeline)
        self._vae_dtype = getattr(getattr(pipeline, "vae", None), "dtype", None)
        self.info = info

    def run(self, call: Call, on_step: Callable[[int], None]) -> Made:
        """Call the operation's pipeline on one picture with a CPU generator of the call's seed.

        The pixels are of the picture's own size, of four times that for upscale; the rows are those that the
        largest forward held. `on_step` gets the number of finished steps after each call of the denoiser, of which
        some schedulers make several a step, and after each tile of a picture that is upscaled in tiles; whatever it
        raises ends the call there, and it may `run` another call.
        Raises PipelineFailed where the result is no picture, NotServed for what the model has no pipeline for, and
        UnsafePicture where the model's safety checker is asked and refuses the result.
        """
        face = self._faces.of(call)
        if call.op == "upscale":
            tiled.check_noise_level(face, call.noise_level)
        pipeline = copy_for_call(face)
        if call.scheduler is not None:
            pipeline.scheduler = schedulers.make(call.scheduler, pipeline.scheduler)
        parameters = inspect.signature(type(pipeline).__call__).parameters
        multiple = size_multiple(pipeline)
        arguments, warnings = arguments_of(call, parameters, multiple, type(pipeline).__name__)

        done = 0

        def after_call(calls: int) -> None:
            finished(finished_steps(pipeline, call.steps, calls))

        def finished(steps: int) -> None:
            nonlocal done
            done = steps
            on_step(done)

        with ExitStack() as around:
            around.enter_context(torch.inference_mode())
            around.enter_context(self._parts_as_found(pipeline))
            around.enter_context(self._adapters.using(call.loras))
            around.enter_context(deterministic(call.reproducible))
            rows = around.enter_context(self._rows.counted())
            arguments |= self._control_arguments(call, multiple)
            arguments |= _callback(parameters, after_call, finished)
            arguments["generator"] = torch.Generator("cpu").manual_seed(call.seed)
            tiling = tiled.tiling_of(pipeline) if call.op == "upscale" else None
            if tiling is not None and not tiling.fits(arguments["image"].size):
                images = tiled.upscale(pipeline, arguments, tiling, lambda: on_step(done))
            else:
                images = pipeline(**arguments, output_type="np").images
        texts = {"prompt": call.prompt, "negative_prompt": call.negative_prompt}
        scale = UPSCALES if call.op == "upscale" else 1
        pixels = _pixels(images, _times(arguments["image"].size, scale), _times(call.picture.size, scale))
        if self._safety is not None and self._safety.refuses(pixels):
            raise UnsafePicture(
                f"the safety checker of model {self.info.name!r} refuses what was painted with seed {call.seed}; "
                'change prompt, seed or source, or have the operator set safety = "off" in its registry entry'
            )
        return Made(pixels, rows.largest, (*warnings, *cut_prompts(pipeline, texts)), type(pipeline.scheduler).__name__)

    def _control_arguments(self, call: Call, multiple: int) -> Arguments:
        if not call.controls:
            return {}
        pictures = [self._controls[each.name].picture(each, call.picture) for each in call.controls]
        return control_networks.arguments_of(call.controls, pictures, multiple)

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


@contextmanager
def deterministic(wanted: bool) -> Iterator[None]:
    """Within the block use deterministic kernels alone, or whatever is fastest; calls within calls may differ."""
    before = torch.are_deterministic_algorithms_enabled(), torch.backends.cudnn.benchmark
    torch.use_deterministic_algorithms(wanted)
    torch.backends.cudnn.benchmark = before[1] and not wanted
    try:
        yield
    finally:
        torch.use_deterministic_algorithms(before[0])
        torch.backends.cudnn.benchmark = before[1]


def _callback(
    parameters: Mapping[str, Any], after_call: Callable[[int], None], finished: Callable[[int], None]
) -> dict[str, Any]:
    """What makes a pipeline tell of each call of its denoiser, or in diffusers' old way of each finished step."""
    steps = itertools.count(1)

    def at_step_end(_: Any, index: int, __: Any, tensors: dict[str, Any]) -> dict[str, Any]:
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


def _times(size: tuple[int, int], scale: int) -> tuple[int, int]:
    return size[0] * scale, size[1] * scale


def _pixels(images: Any, padded: tuple[int, int], size: tuple[int, int]) -> NDArray[np.float32]:
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
