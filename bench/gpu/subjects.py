"""A model that was made, as the worker loads it and as diffusers does."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import diffusers
import torch

from bench.engine.pipelines import open_pipeline
from bench.gpu.plans import Plan
from overpaint_worker.engine.loading import PipelineLoader, Tuning
from overpaint_worker.engine.registry import ControlSpec, ModelSpec, Registry

CONTROL = "control"
"""Its name in the registry."""


@dataclass(frozen=True)
class Subject:
    """One model in its folder, on one device."""

    plan: Plan
    folder: Path
    device: str
    control: Path | None = None
    """The folder of its ControlNet, where one was made."""

    @property
    def dtype(self) -> str:
        """The one that the worker takes if nobody says otherwise."""
        return "float16" if self.device.startswith("cuda") else "float32"

    def loader(self, dtype: str, tuning: Tuning | None = None) -> PipelineLoader:
        """The worker's own, with a registry that has this model under the plan's name."""
        spec = ModelSpec.model_validate(
            {
                "path": self.folder,
                "family": self.plan.family,
                "dtype": dtype,
                "native_size": self.plan.side,
                "controls": {} if self.control is None else {CONTROL: ControlSpec(path=self.control)},
            }
        )
        return PipelineLoader(Registry(models={self.plan.name: spec}), self.device, tuning)

    def direct(self, dtype: str, *, compiled: bool = False) -> Any:
        """The img2img pipeline as diffusers loads it by itself."""
        torch_dtype: torch.dtype = getattr(torch, dtype)
        class_name = self.plan.pipeline_class("Img2Img")
        return open_pipeline(class_name, self.folder, device=self.device, dtype=torch_dtype, compiled=compiled)

    def controlled(self, pipeline: Any) -> Any:
        """A pipeline of diffusers with the same parts and the ControlNet."""
        control = diffusers.ControlNetModel.from_pretrained(self.control, dtype=pipeline.unet.dtype)
        made = getattr(diffusers, self.plan.pipeline_class("ControlNetImg2Img"))(
            **pipeline.components, controlnet=control.to(self.device)
        )
        made.set_progress_bar_config(disable=True)
        return made
