"""A loaded model: whatever operation a call asks for, in the lane that its pipeline can run in."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from typing import Any

import torch

from overpaint_common.errors import NotServed, UnsafePicture
from overpaint_common.result import ModelInfo
from overpaint_worker.engine import controls as control_networks
from overpaint_worker.engine import schedulers, tiled
from overpaint_worker.engine.acceleration import Acceleration
from overpaint_worker.engine.adapters import Adapters
from overpaint_worker.engine.arguments import Arguments, arguments_of, padded
from overpaint_worker.engine.calls import UPSCALES, Call, Made, Model
from overpaint_worker.engine.controls import ControlNetwork
from overpaint_worker.engine.faces import Faces
from overpaint_worker.engine.families.family import Family
from overpaint_worker.engine.kernels import deterministic
from overpaint_worker.engine.memory import Memory
from overpaint_worker.engine.pipelines import (
    AttentionProcessors,
    callback,
    copy_for_call,
    finished_steps,
    pixels_of,
    size_multiple,
    times,
)
from overpaint_worker.engine.prompts import cut_prompts
from overpaint_worker.engine.routines import held
from overpaint_worker.engine.rows import RowCount, Rows
from overpaint_worker.engine.safety import SafetyChecker
from overpaint_worker.engine.showing import Showing
from overpaint_worker.engine.statistics import CacheUse
from overpaint_worker.engine.stepped import SteppedLane
from overpaint_worker.engine.tiles import Tiling

CACHE_BYTES = 256 * 1024 * 1024
"""Of prompt embeddings and VAE posteriors, a model."""


class PipelineModel(Model):
    """A model as diffusers runs it: a pipeline for each operation, all on the same weights.

    Pipelines keep what belongs to a call on themselves and on their scheduler, so each call gets copies of those, and
    many calls may be under way. Those of a family that the stepped lane knows share forwards; others run as a whole.
    """

    def __init__(
        self,
        pipeline: Any,
        info: ModelInfo,
        *,
        controls: Mapping[str, ControlNetwork] | None = None,
        adapters: Adapters | None = None,
        safety: SafetyChecker | None = None,
        cache_bytes: int = CACHE_BYTES,
        acceleration: Acceleration | None = None,
        memory: Memory | None = None,
    ) -> None:
        """`pipeline` is only ever copied, so it stays as it was loaded; nobody else may call it.

        `controls` by name, and `adapters` of that pipeline, are what calls may name; `safety` None checks nothing.
        `cache_bytes` may be kept of embeddings and posteriors; `memory` is that of the device the weights are on, which
        None takes for the CPU. Raises NotServed where diffusers has no pipeline for the controls.
        """
        self._controls = controls or {}
        self._faces = Faces(pipeline, {name: control.network for name, control in self._controls.items()})
        self._adapters = adapters or Adapters(pipeline)
        self._safety = safety
        self._rows = Rows(pipeline)
        self._vae_dtype = getattr(getattr(pipeline, "vae", None), "dtype", None)
        self._lane = SteppedLane(
            info.name,
            self._adapters,
            memory or Memory("cpu"),
            cache_bytes=cache_bytes,
            acceleration=acceleration or Acceleration(),
        )
        self.info = info

    def run(self, call: Call, on_step: Callable[[int], None]) -> Made:
        """Call the operation's pipeline on one picture with a CPU generator of the call's seed.

        The pixels are of the picture's own size, of four times that for upscale; the rows are those that the
        largest forward of the whole lane held. `on_step` gets the number of finished steps after each call of the
        denoiser, of which some schedulers make several a step, and after each tile of a picture that is upscaled in
        tiles; whatever it raises ends the call there.
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

        count = RowCount()
        with ExitStack() as around:
            around.enter_context(held(torch.inference_mode))
            family = self._family(face, call)
            showing = Showing(call, getattr(getattr(pipeline, "vae", None), "config", None))
            if family is not None:
                self._lane.prepare(pipeline, family, call, showing)
            else:
                self._hold(around, pipeline, call, count)
            arguments |= self._control_arguments(call, multiple)
            arguments |= callback(parameters, after_call, finished, showing.step)
            arguments["generator"] = torch.Generator("cpu").manual_seed(call.seed)
            tiling = _tiling(pipeline, call)
            if tiling is not None:
                images = tiled.upscale(pipeline, arguments, tiling, lambda: on_step(done))
            else:
                images = pipeline(**arguments, output_type="np").images
        texts = {"prompt": call.prompt, "negative_prompt": call.negative_prompt}
        scale = UPSCALES if call.op == "upscale" else 1
        pixels = pixels_of(images, times(arguments["image"].size, scale), times(call.picture.size, scale))
        if self._safety is not None and self._safety.refuses(pixels):
            raise UnsafePicture(
                f"the safety checker of model {self.info.name!r} refuses what was painted with seed {call.seed}; "
                'change prompt, seed or source, or have the operator set safety = "off" in its registry entry'
            )
        return Made(
            pixels, count.largest, (*warnings, *cut_prompts(pipeline, texts)), type(pipeline.scheduler).__name__
        )

    def warm_up(self, call: Call) -> None:
        """Run a call of the model's native size: compiles what is to be compiled, and measures what forwards take."""
        if self.stepped(call):
            self._lane.warm_up(lambda: self.run(call, lambda _: None))
        else:
            self.run(call, lambda _: None)

    @property
    def bytes(self) -> int:
        """Of its weights; of a model that is offloaded, those of its largest part."""
        parts = self._faces.parts()
        sizes = [sum(tensor.nbytes for tensor in (*part.parameters(), *part.buffers())) for part in parts]
        offloaded = any(hasattr(part, "_hf_hook") for part in parts)
        return max(sizes) if offloaded else sum(sizes)

    def stepped(self, call: Call) -> bool:
        try:
            return self._family(self._faces.of(call), call) is not None
        except NotServed:
            return False

    def caches(self) -> Mapping[str, CacheUse]:
        return self._lane.caches()

    def _family(self, face: Any, call: Call) -> Family | None:
        """The family that the call shares forwards with; None where it runs as a whole."""
        return None if _tiling(face, call) is not None else self._lane.family_of(face)

    def _hold(self, around: ExitStack, pipeline: Any, call: Call, count: RowCount) -> None:
        """What holds while a call of the whole lane computes, and not while others do."""
        around.enter_context(held(lambda: self._vae_as_found(pipeline)))
        if hasattr(pipeline, "pag_attn_processors"):
            around.enter_context(held(AttentionProcessors(pipeline).as_left))
        around.enter_context(held(lambda: self._adapters.using(call.loras)))
        around.enter_context(held(lambda: deterministic(call.reproducible)))
        around.enter_context(held(lambda: self._rows.counted(count)))

    def _control_arguments(self, call: Call, multiple: int) -> Arguments:
        if not call.controls:
            return {}
        pictures = [self._controls[each.name].picture(each, call.picture) for each in call.controls]
        return control_networks.arguments_of(call.controls, pictures, multiple)

    @contextmanager
    def _vae_as_found(self, pipeline: Any) -> Iterator[None]:
        """SDXL moves a float16 VAE to float32 and back around its use; a call that fails leaves it there."""
        try:
            yield
        finally:
            if self._vae_dtype is not None and pipeline.vae.dtype != self._vae_dtype:
                pipeline.vae.to(self._vae_dtype)


def _tiling(pipeline: Any, call: Call) -> Tiling | None:
    """How a picture that is too large for the device is cut; None where it is not."""
    tiling = tiled.tiling_of(pipeline) if call.op == "upscale" else None
    if tiling is None or tiling.fits(padded(call.picture, size_multiple(pipeline)).size):
        return None
    return tiling
