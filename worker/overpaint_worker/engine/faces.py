"""The pipelines of one model: each operation's own class on the same weights."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from typing import Any

import diffusers
import torch

from overpaint_common.errors import NotServed
from overpaint_worker.engine.calls import Call


class Faces:
    """A model's own pipeline, and those that diffusers makes of its parts, made when first wanted."""

    def __init__(self, pipeline: Any, controls: Mapping[str, Any] | None = None) -> None:
        """`controls` are loaded control networks by name, for the model that `pipeline` is.

        Raises NotServed where diffusers has no pipeline for them.
        """
        self.own = pipeline
        self._controls = controls or {}
        self._made: dict[tuple[str, ...], Any] = {}
        for name in self._controls:
            self._controlled((name,))

    def of(self, call: Call) -> Any:
        """The pipeline for a call's operation and controls. Raises NotServed where the model has none."""
        if call.op == "inpaint" and not _takes(self.own, "mask_image"):
            return self._face("inpaint", diffusers.AutoPipelineForInpainting)
        if call.controls:
            return self._controlled(tuple(control.name for control in call.controls))
        return self.own

    def parts(self) -> list[torch.nn.Module]:
        """All networks, those for control too."""
        parts = [*self.own.components.values(), *self._controls.values()]
        return list(dict.fromkeys(part for part in parts if isinstance(part, torch.nn.Module)))

    def _controlled(self, names: tuple[str, ...]) -> Any:
        networks = [self._controls[name] for name in names]
        controlnet = networks if len(networks) > 1 else networks[0]
        return self._face("controls", diffusers.AutoPipelineForImage2Image, names, controlnet=controlnet)

    def _face(self, kind: str, auto: Any, names: tuple[str, ...] = (), **parts: Any) -> Any:
        key = (kind, *names)
        if key not in self._made:
            # A dtype given, here that of the weights, keeps from_pipe from casting the shared ones.
            made = self._from_pipe(lambda: auto.from_pipe(self.own, dtype=self._dtype(), **parts), kind)
            made.set_progress_bar_config(disable=True)
            self._made[key] = made
        return self._made[key]

    def _from_pipe(self, make: Callable[[], Any], kind: str) -> Any:
        try:
            return make()
        except ValueError as error:
            raise NotServed(f"diffusers has no {kind} pipeline for {type(self.own).__name__}: {error}") from error

    def _dtype(self) -> torch.dtype:
        denoiser = getattr(self.own, "unet", None) or self.own.transformer
        dtype: torch.dtype = denoiser.dtype
        return dtype


def _takes(pipeline: Any, name: str) -> bool:
    return name in inspect.signature(type(pipeline).__call__).parameters
