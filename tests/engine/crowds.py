"""Crowds: calls of one model that differ in all that may differ, run beside each other on an engine of their own."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from concurrent.futures import Future
from contextlib import contextmanager
from dataclasses import replace
from typing import NamedTuple

from overpaint_common.schedulers import SchedulerName
from overpaint_worker.engine.calls import Call, Model, Painted
from overpaint_worker.engine.engine import Engine
from tests.engine.direct import call, noise_picture
from tests.engine.tiny_families import ENTRIES, SIDE, Asked, Kind

PATIENCE = 60.0
"""Seconds after which a call has failed."""

SETTINGS: tuple[Asked, ...] = (
    {"prompt": "a red cat", "steps": 4, "strength": 0.8, "guidance_scale": 4.0},
    {"prompt": "a green tree", "steps": 6, "strength": 0.5, "guidance_scale": 9.0, "negative_prompt": "a house"},
    {"prompt": "a lake", "steps": 3, "strength": 1.0, "guidance_scale": 1.0},
    {"prompt": "a blue house", "steps": 5, "strength": 0.7, "guidance_scale": 2.0},
    {"prompt": "a boat", "steps": 8, "strength": 0.4, "guidance_scale": 1.0},
    {"prompt": "", "steps": 4, "strength": 1.0, "guidance_scale": 6.0, "negative_prompt": "a red cat"},
    {"prompt": "a red cat", "steps": 7, "strength": 0.6, "guidance_scale": 3.0},
    {"prompt": "a tower", "steps": 5, "strength": 0.9, "guidance_scale": 5.0},
)
SOME: tuple[SchedulerName | None, ...] = (None, "dpmpp_2m", "euler_a", "pndm", "unipc", "heun", "lcm", "ddpm", "euler")
"""The model's own, and such as remember, draw noise or call the denoiser more than once a step."""


class Member(NamedTuple):
    """One of a crowd."""

    kind: Kind
    call: Call


def crowd(name: str) -> list[Member]:
    """Six or eight calls of a model: all its kinds, schedulers of every sort, other pictures and settings each."""
    entry = ENTRIES[name]
    some = [scheduler for scheduler in SOME if scheduler is None or scheduler in entry.schedulers]
    size = 6 if len(entry.kinds) < 3 else 8
    return [
        member(name, number, entry.kinds[number % len(entry.kinds)], some[number % len(some)]) for number in range(size)
    ]


def member(name: str, number: int, kind: Kind, scheduler: SchedulerName | None) -> Member:
    """The call of a number: its seed, and what picture and which settings it has."""
    settings = dict(SETTINGS[number % len(SETTINGS)])
    if not ENTRIES[name].negative:
        settings.pop("negative_prompt", None)
    asked = {**settings, **kind.asked, "seed": number, "scheduler": scheduler}
    return Member(kind, call(name, noise_picture(SIDE, SIDE, seed=number), **asked))


@contextmanager
def engine_on(model: Model) -> Iterator[Engine]:
    """An engine whose only model this is; it has not started."""
    engine = Engine(lambda _: model)
    try:
        yield engine
    finally:
        engine.stop()


def at_once(engine: Engine, calls: Sequence[Call]) -> list[Painted]:
    """Submit all, then start the engine; what it made of each."""
    futures = [engine.submit(each) for each in calls]
    engine.start()
    return [future.result(PATIENCE) for future in futures]


def staggered(engine: Engine, calls: Sequence[Call], moments: Sequence[int] | None = None) -> list[Painted]:
    """Submit each as soon as the one before it has made so many steps, or one; what the engine made of each."""
    moments = moments or [1] * len(calls)
    futures: list[Future[Painted]] = []

    def submit(number: int) -> None:
        def on_progress(phase: str, steps: int) -> None:
            if phase == "denoise" and number + 1 == len(futures) < len(calls) and steps >= moments[number + 1]:
                submit(number + 1)

        futures.append(engine.submit(replace(calls[number], on_progress=on_progress)))

    submit(0)
    engine.start()
    # The next one is there when this one is done.
    return [futures[number].result(PATIENCE) for number in range(len(calls))]
