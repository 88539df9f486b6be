"""Every operation on every scheduler: what the engine paints is what diffusers paints, called directly."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any

import diffusers
import numpy as np
import pytest
import torch
from PIL import Image

from overpaint_common.schedulers import SCHEDULERS, SchedulerName
from overpaint_worker.engine.calls import ControlInput
from overpaint_worker.engine.engine import Engine
from overpaint_worker.engine.loading import PipelineLoader
from overpaint_worker.engine.registry import EMBEDDED, MODELS, ControlSpec, ModelSpec, Registry
from tests.engine.conftest import Models
from tests.engine.direct import Direct, call, noise_picture
from tests.engine.test_schedulers import MEANT, on
from tests.support import tiny_models

TOLERANCE = 1e-4
PICTURE, SHOWN = noise_picture(32, 32), noise_picture(32, 32, seed=5)
MASK = Image.new("L", PICTURE.size)
MASK.paste(255, (8, 8, 24, 32))


@dataclass(frozen=True)
class Case:
    """One operation on one kind of model: how we are asked, and how diffusers is."""

    op: str
    model: str
    class_name: str
    ours: Mapping[str, Any] = field(default_factory=dict)
    theirs: Mapping[str, Any] = field(default_factory=dict)
    sized: bool = False
    strength: bool = True


def cases() -> Iterator[Case]:
    masked: dict[str, Any] = {"ours": {"mask": MASK}, "theirs": {"mask_image": MASK}, "sized": True}
    held: dict[str, Any] = {
        "ours": {"controls": (ControlInput("first", SHOWN, scale=0.8),)},
        "theirs": {"control_image": SHOWN, "controlnet_conditioning_scale": 0.8},
        "sized": True,
    }
    for kind, prefix in (("sd", "StableDiffusion"), ("sdxl", "StableDiffusionXL")):
        yield Case("img2img", kind, f"{prefix}Img2ImgPipeline")
        yield Case("inpaint", kind, f"{prefix}InpaintPipeline", **masked)
        yield Case("inpaint", f"{kind}-inpaint", f"{prefix}InpaintPipeline", **masked)
        yield Case("img2img", f"{kind}-control", f"{prefix}ControlNetImg2ImgPipeline", **held)
    yield Case("edit", "instruct", "StableDiffusionInstructPix2PixPipeline", strength=False)
    yield Case("edit", "sdxl-instruct", "StableDiffusionXLInstructPix2PixPipeline", sized=True, strength=False)
    yield Case("img2img", "mini", "StableDiffusionImg2ImgPipeline")
    yield Case("inpaint", "mini", "StableDiffusionInpaintPipeline", **masked)
    yield Case("img2img", "mini-control", "StableDiffusionControlNetImg2ImgPipeline", **held)
    yield Case("upscale", "mini-upscaler", "StableDiffusionUpscalePipeline", {}, {"noise_level": 20}, strength=False)


CASES = [pytest.param(case, id=f"{case.op}-{case.model}") for case in cases()]


class Shelf:
    """The models of all cases, opened by the engine and by diffusers, each once."""

    def __init__(self, models: Models, root: Path) -> None:
        self._models, self._root = models, root
        self.folder = cache(self._folder)
        self.control = cache(self._control)
        self.direct = cache(self._direct)
        self.engine = Engine(lambda name: PipelineLoader(Registry(models={name: self._spec(name)}), "cpu")(name))

    def _folder(self, name: str) -> Path:
        if name.startswith("mini"):
            return MODELS / "overpaint-mini-upscaler" if name == "mini-upscaler" else EMBEDDED
        if name.endswith("-inpaint"):
            return tiny_models.tiny_inpainting(self._root / name, xl=name.startswith("sdxl"))
        return self._models.folder(name.removesuffix("-control"))

    def _control(self, name: str) -> Path:
        if name.startswith("mini"):
            return MODELS / "overpaint-mini-canny"
        return tiny_models.tiny_control(self._root / name, self.folder(name))

    def _spec(self, name: str) -> ModelSpec:
        tasks = {"inpaint": "inpaint", "instruct": "edit", "upscaler": "upscale"}
        entry: dict[str, Any] = {"task": tasks.get(name.rpartition("-")[2], "repaint")}
        if name.endswith("-control"):
            entry["controls"] = {"first": ControlSpec(path=self.control(name))}
        family = "stable-diffusion-xl" if name.startswith("sdxl") else "stable-diffusion"
        return ModelSpec.model_validate({"path": self.folder(name), "family": family, **entry})

    def _direct(self, name: str, class_name: str) -> Direct:
        opened = Direct.__new__(Direct)
        parts: dict[str, Any] = {"dtype": torch.float32}
        if name.endswith("-control"):
            parts["controlnet"] = diffusers.ControlNetModel.from_pretrained(self.control(name), dtype=torch.float32)
        opened.pipeline = getattr(diffusers, class_name).from_pretrained(self.folder(name), **parts)
        opened.pipeline.set_progress_bar_config(disable=True)
        return opened


@pytest.fixture(scope="module")
def shelf(models: Models, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Shelf]:
    made = Shelf(models, tmp_path_factory.mktemp("shelf"))
    made.engine.start()
    yield made
    made.engine.stop()


@pytest.mark.long
@pytest.mark.parametrize("scheduler", SCHEDULERS)
@pytest.mark.parametrize("case", CASES)
def test_every_operation_on_every_scheduler(shelf: Shelf, case: Case, scheduler: SchedulerName) -> None:
    """Given an operation and a scheduler, when the engine paints, then it is the direct call's picture."""
    asked = call(case.model, PICTURE, op=case.op, scheduler=scheduler, steps=4, strength=0.8, **case.ours)

    painted = shelf.engine.submit(asked).result(60)

    direct = shelf.direct(case.model, case.class_name)
    scheduler_class, options = MEANT[scheduler]
    arguments = dict(case.theirs)
    if case.sized:
        arguments |= {"width": PICTURE.width, "height": PICTURE.height}
    if case.strength:
        arguments["strength"] = 0.8
    with on(direct.pipeline, scheduler_class, **options):
        theirs = direct(PICTURE, seed=7, prompt="a red cat", num_inference_steps=4, guidance_scale=4.0, **arguments)
    assert np.abs(painted.pixels - theirs).max() <= TOLERANCE
    assert painted.scheduler == scheduler_class.__name__
