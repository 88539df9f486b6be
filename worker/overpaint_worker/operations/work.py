"""What an operation is given, and what it makes of a pass: calls to the engine and how to finish them."""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from PIL import Image

from overpaint_common.job import Job
from overpaint_common.passes import Painting
from overpaint_common.result import WarningNote
from overpaint_worker.engine.calls import Call, Painted
from overpaint_worker.imaging.fit import place
from overpaint_worker.imaging.placement import Placement

ShowPreview = Callable[[Image.Image, Placement], None]
"""Is given a preview, and how what it shows was fitted, on the engine's thread: it must not block."""


@dataclass(frozen=True, slots=True)
class Inputs:
    """The pictures of a job beside the one that its passes hand on."""

    source: Image.Image
    """RGB, as fitted: what the first pass takes."""
    placement: Placement
    """How the source was fitted."""
    others: Mapping[str, Image.Image] = field(default_factory=dict)
    """Masks and control pictures by reference, as decoded."""

    def laid(self, uri: str, size: tuple[int, int], mode: str) -> Image.Image:
        """Another picture in `mode`, brought to the source's size, laid as the source was, and scaled to `size`."""
        other = self.others[uri].convert(mode)
        if other.size != self.placement.source:
            other = other.resize(self.placement.source, Image.Resampling.LANCZOS)
        placed = place(other, self.placement)
        return placed if placed.size == size else placed.resize(size, Image.Resampling.LANCZOS)


@dataclass(frozen=True, slots=True)
class Scope:
    """One pass of one variant, about to run."""

    job: Job
    variant: int
    picture: Image.Image
    """RGB: what the pass takes."""
    inputs: Inputs
    native_size: int
    """Of the pass's model, pixels a side."""
    reads: Mapping[str, str]
    """What each control network of the pass's model reads, by name."""
    on_progress: Callable[[str, int], None]
    cancelled: threading.Event
    show: ShowPreview | None = None
    """None: nobody asks for previews of this variant."""

    def call(self, p: Painting, picture: Image.Image, *, placement: Placement | None = None, **fields: Any) -> Call:
        """The engine's call for a settled pass on `picture`; its seed is the pass's plus the variant's number.

        `placement` is how what the picture shows was laid into it: as the source was, where none is given.
        """
        if p.steps is None or p.guidance_scale is None or p.seed is None:
            raise ValueError("the pass is not settled; settle the job before running it")
        return Call(
            model=p.model or self.job.model,
            op=p.op,
            picture=picture,
            prompt=p.prompt,
            negative_prompt=p.negative_prompt,
            steps=p.steps,
            guidance_scale=p.guidance_scale,
            seed=p.seed + self.variant,
            scheduler=p.scheduler,
            loras=tuple((lora.name, lora.scale) for lora in p.loras),
            reproducible=self.job.reproducible,
            priority=self.job.priority,
            on_progress=self.on_progress,
            cancelled=self.cancelled,
            on_preview=self._on_preview(placement or self.inputs.placement),
            **fields,
        )

    def _on_preview(self, placement: Placement) -> Callable[[Image.Image], None] | None:
        show = self.show
        return None if show is None else lambda preview: show(preview, placement)


def to_picture(painted: Painted) -> Image.Image:
    """The 8-bit RGB picture, rounded as diffusers rounds."""
    return Image.fromarray((painted.pixels * 255).round().astype(np.uint8), "RGB")


@dataclass(frozen=True, slots=True)
class Work:
    """A call to the engine, and what becomes of what it paints."""

    call: Call
    finish: Callable[[Painted], Image.Image] = to_picture
    touched: Image.Image | None = None
    """L, of the size of what `finish` gives: 0 where the pass leaves the picture as it is. None: it may change all."""
    warnings: tuple[WarningNote, ...] = ()
