"""What will run of a trajectory, told before anything runs: no fleet and no Redis are asked."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from types import MappingProxyType

from overpaint_common.job import Job
from overpaint_common.passes import Diffusion, Img2Img, Inpaint
from overpaint_common.steps import StepsRule, effective_steps

FAMILIES: Mapping[str, StepsRule] = MappingProxyType(
    {"stable-diffusion": "floor", "stable-diffusion-xl": "floor", "flow-matching": "ceil"}
)
"""How each family of models counts its steps; the same names as in a worker's registry."""

STRENGTHS = tuple(tenth / 10 for tenth in range(11))


@dataclass(frozen=True, slots=True)
class Stretch:
    """The part of a trajectory of `steps` denoising steps that is run: from `start` to the end."""

    label: str
    """What it is the stretch of: a strength, or a pass."""
    steps: int
    running: int
    """Denoising steps that run, 0 to `steps`."""
    strength: float | None = None
    """0 to 1; None where a pass has none and runs them all."""

    @property
    def start(self) -> int:
        """Index of the first step that runs; `steps` where none does."""
        return self.steps - self.running

    @property
    def refused(self) -> bool:
        """Whether no step is left although the strength asks for a change: a job with it is not accepted."""
        return self.running == 0 and self.steps > 0 and self.strength != 0


def stretches(rule: StepsRule, steps: int, strengths: Iterable[float] = STRENGTHS) -> list[Stretch]:
    """What `steps` steps leave to run at each strength (0 to 1)."""
    return [Stretch(f"{each:g}", steps, effective_steps(rule, steps, each), each) for each in strengths]


def plan_job(job: Job, rule: StepsRule, steps: int) -> list[Stretch]:
    """What each pass of one variant runs; `steps` stands in for the passes that leave their steps to the model.

    A pass that runs no model has no steps.
    """
    planned = []
    for index, p in enumerate(job.passes):
        label = f"{index} {p.op}"
        if not isinstance(p, Diffusion):
            planned.append(Stretch(label, 0, 0))
            continue
        whole = steps if p.steps is None else p.steps
        strength = p.strength if isinstance(p, Img2Img | Inpaint) else None
        running = whole if strength is None else effective_steps(rule, whole, strength)
        planned.append(Stretch(label, whole, running, strength))
    return planned
