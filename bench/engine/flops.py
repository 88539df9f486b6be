"""What pictures cost in floating-point operations, and how many the device can do."""

from __future__ import annotations

import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import torch
from PIL import Image
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

from bench.engine.jobs import Job

PEAK_SIDES = {"cpu": (1024, 2048), "cuda": (8192,)}
"""Of the square matrices that a device's peak is measured with."""


class Priced(Protocol):
    """Knows what jobs cost."""

    def total(self, jobs: Iterable[Job], /) -> int:
        """FLOP of plain diffusers calls."""


@dataclass(frozen=True)
class Costs:
    """FLOP of the parts of a pipeline call on one picture, a multiply-add counted as two."""

    row: int
    """One sample in one forward of the denoiser."""
    fixed: int
    """Picture and prompt in, picture out."""
    guidance: int
    """What guidance costs besides its rows: the other prompt."""

    def of(self, job: Job) -> int:
        """A call's FLOP, where the pipeline runs `int(steps * strength)` steps."""
        guided = job.guidance_scale > 1
        rows = int(job.steps * job.strength) * (2 if guided else 1)
        return self.fixed + rows * self.row + (self.guidance if guided else 0)

    def total(self, jobs: Iterable[Job]) -> int:
        return sum(self.of(job) for job in jobs)


def costs_of(pipeline: Any, size: tuple[int, int], **more: Any) -> Costs:
    """Counted by torch over three calls of at most two steps; of a pipeline that is not compiled.

    `size`: in pixels. `more` are arguments of the calls.
    """
    picture = Image.new("RGB", size)
    calls = ((1, 1.0), (2, 1.0), (1, 2.0))
    one, two, guided = (_count(pipeline, picture, steps, scale, more) for steps, scale in calls)
    row = two - one
    return Costs(row=row, fixed=one - row, guidance=guided - one - row)


def _count(pipeline: Any, picture: Image.Image, steps: int, scale: float, more: Mapping[str, Any]) -> int:
    # torch counts no FLOP in the attention kernels that it has for the CPU.
    with sdpa_kernel(SDPBackend.MATH), FlopCounterMode(display=False) as counter:
        pipeline(
            prompt="a blue house",
            image=picture,
            strength=1.0,
            num_inference_steps=steps,
            guidance_scale=scale,
            output_type="np",
            **more,
        )
    return int(counter.get_total_flops())


def measure_peak(device: str, dtype: torch.dtype, *, sides: Sequence[int] = (), repeats: int = 20) -> float:
    """FLOP a second of the best of some matrix products, on the threads that torch has."""
    best = 0.0
    for side in sides or PEAK_SIDES[torch.device(device).type]:
        left, right = (torch.randn(side, side, device=device, dtype=dtype) for _ in range(2))
        for _ in range(repeats):
            _settle(device)
            began = time.perf_counter()
            torch.matmul(left, right)
            _settle(device)
            best = max(best, 2 * side**3 / (time.perf_counter() - began))
    return best


def _settle(device: str) -> None:
    if device.startswith("cuda"):
        torch.cuda.synchronize()
