"""How many of a trajectory's steps a strength leaves, for each family of pipelines."""

from __future__ import annotations

from typing import Literal

from overpaint_common.errors import StrengthTooSmall

StepsRule = Literal["floor", "ceil"]
"""floor: `int(steps * strength)`, as in Stable Diffusion and SDXL; ceil: what flow-matching pipelines run."""


def effective_steps(rule: StepsRule, steps: int, strength: float) -> int:
    """The denoising steps that really run, 0 to `steps`.

    The two formulas are those of `get_timesteps` in diffusers 0.42: `min(int(steps * strength), steps)` in the SD and
    SDXL img2img pipelines, `steps - int(max(steps - min(steps * strength, steps), 0))` in the SD3 and Flux ones. Both
    are kept in floating point as they are there, since int(50 * 0.58) is 28 and not 29.
    """
    if rule == "floor":
        return min(int(steps * strength), steps)
    return steps - int(max(steps - min(steps * strength, steps), 0))


def check_strength(rule: StepsRule, steps: int, strength: float, *, where: str, max_steps: int = 1000) -> int:
    """The effective steps, or StrengthTooSmall naming the smallest `steps` that works. Strength 0 is always fine.

    `max_steps` is the most that the model takes.
    """
    running = effective_steps(rule, steps, strength)
    if running > 0 or strength == 0:
        return running
    enough = next((n for n in range(steps + 1, max_steps + 1) if effective_steps(rule, n, strength) > 0), None)
    remedy = f"use steps >= {enough}" if enough else "raise the strength"
    raise StrengthTooSmall(
        f"{where}: strength {strength} of {steps} steps leaves no step to run; {remedy}, or strength 0"
    )
