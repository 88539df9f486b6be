"""upscale: enlarge four times with a model that adds detail."""

from __future__ import annotations

from overpaint_common.errors import NotServed
from overpaint_common.passes import Upscale
from overpaint_worker.engine.calls import UPSCALES
from overpaint_worker.operations.work import Scope, Work

MOST_PIXELS = 100_000_000
"""Of all enlarged variants of a job together: host memory holds them as float32 until the last one is done."""


def begin(p: Upscale, scope: Scope) -> Work:
    """The call of one settled pass of one variant. Raises NotServed for more pixels than host memory should hold."""
    width, height = scope.picture.size
    enlarged = width * UPSCALES * height * UPSCALES
    if enlarged * scope.job.variants > MOST_PIXELS:
        raise NotServed(
            f"upscale makes {width * UPSCALES} x {height * UPSCALES} of {width} x {height}, {enlarged:,} pixels for "
            f"each of {scope.job.variants} variants, and at most {MOST_PIXELS:,} together; set a smaller prepare.size "
            "with a fit that scales, or ask for fewer variants"
        )
    return Work(scope.call(p, scope.picture, noise_level=p.noise_level))
