"""A tiny model for every pipeline class that the stepped lane knows, as we load it and as diffusers does."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import cache, partial
from pathlib import Path
from typing import Any, NamedTuple

import diffusers
import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image

from overpaint_common.schedulers import FLOW_SCHEDULERS, SCHEDULERS, SchedulerName
from overpaint_worker.engine.calls import Call, ControlInput
from overpaint_worker.engine.loading import PipelineLoader, Tuning
from overpaint_worker.engine.model import PipelineModel
from overpaint_worker.engine.registry import EMBEDDED, ControlSpec, ModelSpec, Registry
from tests.engine.direct import noise_picture
from tests.engine.test_schedulers import MEANT, on
from tests.engine.test_upscale import tiny_upscaler
from tests.support import tiny_models

SIDE = 32
"""Pixels a side of every picture."""
SEEDS = {"first": 21, "second": 22}
"""Of the control networks."""

Pixels = NDArray[np.float32]
Asked = Mapping[str, Any]
"""Fields of a call."""


@dataclass(frozen=True)
class Kind:
    """What calls of one pipeline class have that others have not."""

    class_name: str
    asked: Asked = field(default_factory=dict)


@dataclass(frozen=True)
class Entry:
    """A tiny model."""

    make: Callable[[Path], Path]
    """Fills a folder and returns it."""
    family: str
    kinds: tuple[Kind, ...]
    task: str = "repaint"
    schedulers: tuple[SchedulerName, ...] = SCHEDULERS
    """Those that its pipelines take."""
    negative: bool = True
    """Whether a negative prompt counts."""


def _tiny_sd3(folder: Path) -> Path:
    """With 16 channels of latents: of others diffusers inpaints none."""
    tiny_models.tiny_sd3(folder)
    torch.manual_seed(6)
    vae = diffusers.AutoencoderKL.load_config(folder / "vae")
    diffusers.AutoencoderKL.from_config(vae, latent_channels=16).save_pretrained(folder / "vae")
    config = diffusers.SD3Transformer2DModel.load_config(folder / "transformer")
    transformer = diffusers.SD3Transformer2DModel.from_config(config, in_channels=16, out_channels=16)
    transformer.save_pretrained(folder / "transformer")
    return folder


def _mask() -> Image.Image:
    mask = Image.new("L", (SIDE, SIDE))
    mask.paste(255, (8, 8, 24, SIDE))
    return mask


_SHOWN = [noise_picture(SIDE, SIDE, seed=seed) for seed in (51, 52, 53)]
ONE_CONTROL = (ControlInput("first", _SHOWN[0], scale=0.8),)
TWO_CONTROLS = (ControlInput("second", _SHOWN[1], 0.5, start=0.3), ControlInput("first", _SHOWN[2], 1.2, end=0.7))
INPAINT: Asked = {"op": "inpaint", "mask": _mask()}


def _repainting(prefix: str) -> tuple[Kind, ...]:
    controlled = f"{prefix}ControlNetImg2ImgPipeline"
    return (
        Kind(f"{prefix}Img2ImgPipeline"),
        Kind(f"{prefix}InpaintPipeline", INPAINT),
        Kind(controlled, {"controls": ONE_CONTROL}),
        Kind(controlled, {"controls": TWO_CONTROLS}),
    )


def _inpainting(prefix: str) -> tuple[Kind, ...]:
    return (Kind(f"{prefix}InpaintPipeline", INPAINT),)


def _editing(prefix: str) -> tuple[Kind, ...]:
    name, asked = f"{prefix}InstructPix2PixPipeline", {"op": "edit"}
    return Kind(name, asked), Kind(name, asked | {"image_guidance_scale": 2.5})


def _enlarging() -> tuple[Kind, ...]:
    return tuple(Kind("StableDiffusionUpscalePipeline", {"op": "upscale", "noise_level": level}) for level in (20, 350))


_SD, _XL = "StableDiffusion", "StableDiffusionXL"
ENTRIES: Mapping[str, Entry] = {
    "sd": Entry(tiny_models.tiny_stable_diffusion, "stable-diffusion", _repainting(_SD)),
    "sd-inpaint": Entry(tiny_models.tiny_inpainting, "stable-diffusion", _inpainting(_SD), "inpaint"),
    "instruct": Entry(tiny_models.tiny_instruct, "stable-diffusion", _editing(_SD), "edit"),
    "upscaler": Entry(tiny_upscaler, "stable-diffusion", _enlarging(), "upscale"),
    "sdxl": Entry(tiny_models.tiny_sdxl, "stable-diffusion-xl", _repainting(_XL)),
    "sdxl-inpaint": Entry(
        partial(tiny_models.tiny_inpainting, xl=True), "stable-diffusion-xl", _inpainting(_XL), "inpaint"
    ),
    "sdxl-instruct": Entry(tiny_models.tiny_sdxl_instruct, "stable-diffusion-xl", _editing(_XL), "edit"),
    "sd3": Entry(
        _tiny_sd3,
        "flow-matching",
        (Kind("StableDiffusion3Img2ImgPipeline"), Kind("StableDiffusion3InpaintPipeline", INPAINT)),
        schedulers=FLOW_SCHEDULERS,
    ),
    "flux": Entry(
        tiny_models.tiny_flux,
        "flow-matching",
        (Kind("FluxImg2ImgPipeline"), Kind("FluxInpaintPipeline", INPAINT)),
        # Its pipelines set the noise levels themselves, which Heun's does not take.
        schedulers=("euler",),
        negative=False,
    ),
    "mini": Entry(lambda _: EMBEDDED, "stable-diffusion", _repainting(_SD)[:2]),
}


class Solo(NamedTuple):
    """What diffusers made of one call by itself."""

    pixels: Pixels
    rows: list[int]
    """Of each forward of the denoiser and of the control networks."""


class Shelf:
    """The models, each opened once, by our loader and by diffusers."""

    def __init__(self, root: Path) -> None:
        self._root = root
        self.folder = cache(self._folder)
        self.control = cache(self._control)
        self.loaded = cache(self.load)
        self.opened = cache(self._opened)
        self.direct = cache(self._direct)

    def load(self, name: str, dtype: str = "float32", tuning: Tuning | None = None, **fields: Any) -> PipelineModel:
        """A model that no call has met yet; `fields` of its registry entry."""
        entry = ENTRIES[name]
        networks = {each.name for kind in entry.kinds for each in kind.asked.get("controls", ())}
        controls = {network: ControlSpec(path=self.control(name, network)) for network in networks}
        own = {"path": self.folder(name), "family": entry.family, "task": entry.task, "dtype": dtype}
        spec = ModelSpec.model_validate({"controls": controls} | own | fields)
        return PipelineLoader(Registry(models={name: spec}), "cpu", tuning)(name)

    def solo(self, kind: Kind, call: Call, dtype: str = "float32") -> Solo:
        """What the kind's class makes of a call, as its documentation says."""
        networks = tuple(each.name for each in call.controls)
        pipeline = self.direct(call.model, kind.class_name, networks, dtype)
        arguments = as_diffusers(kind, call)
        with _scheduled(pipeline, call.scheduler), _counted(pipeline) as rows:
            generator = torch.Generator().manual_seed(call.seed)
            (pixels,) = pipeline(generator=generator, output_type="np", **arguments).images
        return Solo(np.asarray(pixels, np.float32), rows)

    def _folder(self, name: str) -> Path:
        return ENTRIES[name].make(self._root / name)

    def _control(self, name: str, network: str) -> Path:
        return tiny_models.tiny_control(self._root / f"{name}-{network}", self.folder(name), seed=SEEDS[network])

    def _opened(self, name: str, dtype: str) -> Any:
        # SD3's absent T5 has to be passed as absent.
        absent = {"text_encoder_3": None, "tokenizer_3": None} if name == "sd3" else {}
        return diffusers.DiffusionPipeline.from_pretrained(self.folder(name), dtype=getattr(torch, dtype), **absent)

    def _direct(self, name: str, class_name: str, networks: tuple[str, ...], dtype: str) -> Any:
        options: dict[str, Any] = {"dtype": getattr(torch, dtype)}
        nets = [diffusers.ControlNetModel.from_pretrained(self.control(name, each), **options) for each in networks]
        if nets:
            options["controlnet"] = nets if len(nets) > 1 else nets[0]
        pipeline = getattr(diffusers, class_name).from_pipe(self.opened(name, dtype), **options)
        pipeline.set_progress_bar_config(disable=True)
        return pipeline


def as_diffusers(kind: Kind, call: Call) -> dict[str, Any]:
    """The arguments of a call in diffusers' words."""
    given: dict[str, Any] = {
        "prompt": call.prompt,
        "image": call.picture,
        "num_inference_steps": call.steps,
        "guidance_scale": call.guidance_scale,
    }
    if call.negative_prompt:
        given["negative_prompt"] = call.negative_prompt
    if call.op in ("img2img", "inpaint"):
        given["strength"] = call.strength
    if call.mask is not None:
        given["mask_image"] = call.mask
    if call.image_guidance_scale is not None:
        given["image_guidance_scale"] = call.image_guidance_scale
    if call.op == "upscale":
        given["noise_level"] = call.noise_level
    if call.controls:
        controls: dict[str, list[Any]] = {
            "control_image": [each.picture for each in call.controls],
            "controlnet_conditioning_scale": [each.scale for each in call.controls],
            "control_guidance_start": [each.start for each in call.controls],
            "control_guidance_end": [each.end for each in call.controls],
        }
        given |= controls if len(call.controls) > 1 else {name: value for name, (value,) in controls.items()}
    if "width" in inspect.signature(getattr(diffusers, kind.class_name).__call__).parameters:
        given |= {"width": call.picture.width, "height": call.picture.height}
    return given


@contextmanager
def _scheduled(pipeline: Any, name: SchedulerName | None) -> Iterator[None]:
    own = pipeline.scheduler
    scheduler_class: Any
    options: Mapping[str, Any] = {}
    if name is None:
        scheduler_class = type(own)
    elif type(own).__name__.startswith("FlowMatch"):
        flow = {"euler": diffusers.FlowMatchEulerDiscreteScheduler, "heun": diffusers.FlowMatchHeunDiscreteScheduler}
        scheduler_class = flow[name]
    else:
        scheduler_class, options = MEANT[name]
    # Also of the model's own a fresh one: those that remember do not forget between calls.
    with on(pipeline, scheduler_class, **options):
        yield


@contextmanager
def _counted(pipeline: Any) -> Iterator[list[int]]:
    """The rows of each forward of a pipeline's networks within the block."""
    rows: list[int] = []

    def see(_: Any, given: tuple[Any, ...], named: Mapping[str, Any]) -> None:
        rows.append(len(next(value for value in (*given, *named.values()) if isinstance(value, torch.Tensor))))

    control = getattr(pipeline, "controlnet", None)
    networks = [getattr(pipeline, "unet", None) or pipeline.transformer, *getattr(control, "nets", [control])]
    hooks = [each.register_forward_pre_hook(see, with_kwargs=True) for each in networks if each is not None]
    try:
        yield rows
    finally:
        for hook in hooks:
            hook.remove()
