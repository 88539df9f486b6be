"""What the peers are asked to paint, and when: workloads drawn from a seed, and arrivals."""

from __future__ import annotations

import zlib
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from PIL import Image

from tests.engine.direct import noise_picture
from training.words import COLOURS, PLACES, SHAPES, STYLES


@dataclass(frozen=True, eq=False)
class Job:
    """One picture to repaint, with the arguments of a diffusers call."""

    picture: Image.Image
    prompt: str
    steps: int
    strength: float
    guidance_scale: float
    """1 runs without guidance."""
    seed: int

    @property
    def kind(self) -> tuple[object, ...]:
        """What jobs have to share to fit into one pipeline call."""
        return self.picture.size, self.steps, self.strength, self.guidance_scale


@dataclass(frozen=True)
class Workload:
    """What jobs are drawn from: each value of a field as often as the others."""

    name: str
    steps: Sequence[int]
    strengths: Sequence[float]
    guidance_scales: Sequence[float]

    def jobs(self, count: int, *, seed: int, size: tuple[int, int]) -> list[Job]:
        """That many, the same ones for the same seed; all prompts, pictures and seeds differ. `size`: in pixels."""
        # With its name, so that no two workloads share a picture that could wait in a cache.
        rng = np.random.default_rng((zlib.crc32(self.name.encode()), seed))
        names = (COLOURS, SHAPES, PLACES, STYLES)
        shape = tuple(len(words) for words in names)
        prompts = rng.choice(int(np.prod(shape)), count, replace=False)
        columns = [rng.permutation(np.resize(each, count)) for each in (self.steps, self.strengths)]
        columns.append(rng.permutation(np.resize(self.guidance_scales, count)))
        jobs = []
        for prompt, number, steps, strength, scale in zip(
            prompts, rng.integers(2**32, size=count), *columns, strict=True
        ):
            colour, thing, place, style = (
                words[index] for words, index in zip(names, np.unravel_index(prompt, shape), strict=True)
            )
            jobs.append(
                Job(
                    picture=noise_picture(*size, seed=int(number)),
                    prompt=f"a {colour} {thing} on {place}, {style}",
                    steps=int(steps),
                    strength=float(strength),
                    guidance_scale=float(scale),
                    seed=int(number),
                )
            )
        return jobs


WORKLOADS = {
    each.name: each
    for each in (
        Workload("uniform", steps=(50,), strengths=(0.5,), guidance_scales=(4.0,)),
        Workload(
            "mixed",
            # As people set them: in steps, so that jobs of one kind do meet.
            steps=(20, 25, 30, 35, 40, 45, 50),
            strengths=(0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9),
            guidance_scales=(4.0, 4.0, 4.0, 1.0),
        ),
    )
}

WARM_UP = Workload("warm-up", steps=(10, 15, 20), strengths=(0.3, 0.4), guidance_scales=(4.0, 1.0))


def saturation(count: int) -> list[float]:
    """Seconds of arrival: all at once."""
    return [0.0] * count


def poisson(count: int, rate: float, *, seed: int) -> list[float]:
    """Seconds of arrival from the first on, `rate` a second on average and independent of each other."""
    gaps = np.random.default_rng(seed).exponential(1 / rate, count)
    return [float(at) for at in np.cumsum(gaps) - gaps[0]]
