"""What goes into the engine and what comes out."""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, NamedTuple, Protocol

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from overpaint_common.job import Priority
from overpaint_common.result import ModelInfo, WarningNote
from overpaint_common.schedulers import SchedulerName
from overpaint_worker.engine.statistics import CacheUse

UPSCALES = 4
"""Times that an upscaler enlarges."""


def _ignore(_: str, __: int) -> None:
    pass


@dataclass(frozen=True, slots=True)
class ControlInput:
    """What one control network is given."""

    name: str
    """Of the model's registry entry."""
    picture: Image.Image | None
    """RGB, of the call's picture's size; None lets the model estimate it from the call's picture."""
    scale: float = 1.0
    start: float = 0.0
    """Share of the running steps after which it sets in."""
    end: float = 1.0


@dataclass(frozen=True, slots=True)
class Call:
    """One pass of one variant."""

    model: str
    op: str
    picture: Image.Image
    """RGB, already of the size that the model shall work at."""
    prompt: str
    negative_prompt: str
    steps: int
    guidance_scale: float
    seed: int
    """Of a CPU generator, as a direct diffusers call would take it."""
    strength: float = 1.0
    """Within 0..1, and large enough that at least one step runs; 1 for operations that know no strength."""
    scheduler: SchedulerName | None = None
    """None is the model's own."""
    loras: tuple[tuple[str, float], ...] = ()
    """Names of the model's registry entry, and how much of each."""
    mask: Image.Image | None = None
    """For inpaint: L, of the picture's size; from 128 on it is repainted."""
    controls: tuple[ControlInput, ...] = ()
    noise_level: int = 20
    """For upscale."""
    image_guidance_scale: float | None = None
    """For edit, in models that are guided by the picture."""
    reproducible: bool = False
    """Use deterministic kernels alone."""
    priority: Priority = "standard"
    """The more urgent, the more of the device's time it gets."""
    on_progress: Callable[[str, int], None] = _ignore
    """Told the phase ("load", "denoise") and the steps done so far, on the engine's thread: it must not block."""
    on_preview: Callable[[Image.Image], None] | None = None
    """Told small RGB pictures of the latents now and then, on the engine's thread: it must not block."""
    cancelled: threading.Event = field(default_factory=threading.Event)
    """Once set, the call ends with JobCancelled at its next step."""


@dataclass(frozen=True, slots=True)
class Painted:
    """What a call made."""

    pixels: NDArray[np.float32]
    """[height, width, 3], 0..1, before rounding to 8 bits."""
    model: ModelInfo
    steps: int
    """Denoising steps that ran."""
    rows: int
    """Rows of the largest forward."""
    started_at: datetime
    seconds: float
    """On the engine's thread, without loading; of what it shared with other calls, its share by rows."""
    warnings: tuple[WarningNote, ...] = ()
    scheduler: str = ""
    """The class that ran."""


class Made(NamedTuple):
    """What a model made of a call."""

    pixels: NDArray[Any]
    """As in `Painted`."""
    rows: int
    """Of the largest forward."""
    warnings: tuple[WarningNote, ...] = ()
    scheduler: str | None = None
    """The class that ran, where it is not the one that the model's `info` names."""


class Model(Protocol):
    """A loaded model."""

    info: ModelInfo

    def run(self, call: Call, on_step: Callable[[int], None]) -> Made:
        """Paint.

        `on_step` is called after each step. It may raise, and it may let other calls on this model go on before it
        returns: that changes nobody's pixels, whether they end well or raise.
        """

    def stepped(self, call: Call) -> bool:  # noqa: ARG002
        """Whether it hands out turns for what it wants computed, and so gets on beside other calls at no loss."""
        return False

    def caches(self) -> Mapping[str, CacheUse]:
        """What its caches were good for, by name."""
        return {}


class Loader(Protocol):
    """Loads a model by name; raises ModelLoadFailed."""

    def __call__(self, name: str, /) -> Model: ...
