"""Calls that pictures are compared on, and how far two pictures of one call may lie apart."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, Self

import diffusers
import numpy as np
import torch
from PIL import Image

from bench.engine.jobs import Job, Workload
from bench.engine.peers import call_of
from bench.engine.pipelines import Pixels
from bench.gpu.device import full_precision, released
from bench.gpu.plans import Plan
from bench.gpu.subjects import Subject
from overpaint_worker.engine.calls import Call

EXACT = 1e-4
"""In float32: that any pixel may differ by, of 0..1."""
HALF = 2.0
"""In half precision: times as far from float32 as the half-precision run of diffusers."""
CONTRAST = 0.02
"""Standard deviation of a picture's pixels below which a comparison would say little."""
SHORT = Workload("sample", steps=(6, 8, 10), strengths=(0.4, 0.5), guidance_scales=(4.0, 1.0))


@dataclass(frozen=True)
class Sample:
    """Calls of one model that differ in all that may differ."""

    jobs: tuple[Job, ...]
    calls: tuple[Call, ...]
    """Those of the jobs, and others that are no jobs of a workload."""

    @classmethod
    def of(cls, plan: Plan) -> Self:
        jobs = SHORT.jobs(4, seed=0, size=plan.size)
        repainted, other, third, _ = (call_of(job, plan.name) for job in jobs)
        mask = Image.new("L", plan.size)
        mask.paste(255, (plan.side // 4, plan.side // 4, plan.side, plan.side // 2))
        more = (
            replace(repainted, op="inpaint", mask=mask, negative_prompt="a red house", seed=5),
            replace(other, op="inpaint", mask=mask, guidance_scale=7.0, seed=6),
            replace(third, scheduler="dpmpp_2m", seed=7),
        )
        return cls(tuple(jobs), (*(call_of(job, plan.name) for job in jobs), *more))


@dataclass(frozen=True)
class Yardstick:
    """What diffusers makes of a sample's calls, each by itself."""

    dtype: str
    truth: tuple[Pixels, ...]
    """In float32."""
    solo: tuple[Pixels, ...]
    """In that dtype."""

    def exact(self, pictures: Sequence[Pixels]) -> tuple[bool, str]:
        """Whether the pictures of all calls, or of the first ones, are as near to the truth as they have to be."""
        count = len(pictures)
        if self.dtype == "float32":
            return _largest(pictures, self.truth[:count])
        far = [
            _apart(mine, true) / max(_apart(solo, true), 1e-9)
            for mine, true, solo in zip(pictures, self.truth[:count], self.solo[:count], strict=True)
        ]
        worst = float(np.nan_to_num(max(far), nan=np.inf))
        return worst <= HALF, f"at most {worst:.2f} times as far from float32 as diffusers alone (limit {HALF:g})"

    def alike(self, pictures: Sequence[Pixels], others: Sequence[Pixels]) -> tuple[bool, str]:
        """The same of two pictures of each call, neither of which is the truth."""
        if self.dtype == "float32":
            return _largest(pictures, others)
        unit = max(_apart(solo, true) for solo, true in zip(self.solo, self.truth, strict=True))
        worst = max(_apart(mine, other) for mine, other in zip(pictures, others, strict=True)) / max(unit, 1e-9)
        return (
            worst <= HALF,
            f"apart by at most {worst:.2f} times what half precision costs diffusers (limit {HALF:g})",
        )


def solo(subject: Subject, dtype: str, calls: Sequence[Call]) -> tuple[Pixels, ...]:
    """What diffusers makes of each call by itself."""
    with full_precision():
        pipeline = subject.direct(dtype)
        # Its parts as they are: from_pipe would cast them.
        inpaint = getattr(diffusers, subject.plan.pipeline_class("Inpaint"))(**pipeline.components)
        inpaint.set_progress_bar_config(disable=True)
        own = pipeline.scheduler
        made = tuple(_painted(inpaint if call.mask is not None else pipeline, own, call) for call in calls)
    del pipeline, inpaint, own
    released(subject.device)
    return made


def contrast(pictures: Sequence[Pixels]) -> float:
    """The least of any picture: standard deviation of its pixels."""
    return min(float(picture.std()) for picture in pictures)


def _painted(pipeline: Any, own: Any, call: Call) -> Pixels:
    # A fresh one for each: those that remember do not forget between calls.
    wanted = diffusers.DPMSolverMultistepScheduler if call.scheduler == "dpmpp_2m" else type(own)
    pipeline.scheduler = wanted.from_config(own.config)
    with torch.inference_mode():
        images = pipeline(
            prompt=call.prompt,
            negative_prompt=call.negative_prompt or None,
            image=call.picture,
            num_inference_steps=call.steps,
            strength=call.strength,
            guidance_scale=call.guidance_scale,
            generator=torch.Generator("cpu").manual_seed(call.seed),
            output_type="np",
            **({} if call.mask is None else {"mask_image": call.mask}),
        ).images
    pixels: Pixels = np.asarray(images[0], np.float32)
    return pixels


def _apart(mine: Pixels, other: Pixels) -> float:
    return float(np.abs(mine - other).mean())


def _largest(pictures: Sequence[Pixels], others: Sequence[Pixels]) -> tuple[bool, str]:
    differences = (np.abs(mine - other).max() for mine, other in zip(pictures, others, strict=True))
    worst = float(np.nan_to_num(max(differences), nan=np.inf))
    return worst <= EXACT, f"no pixel differs by more than {worst:.1e} (limit {EXACT:g})"
