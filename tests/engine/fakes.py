"""Models without a pipeline, for what concerns the engine and not the picture: one whose every step waits for the test,
and one whose calls share forwards. And what tests do to engines on them.
"""

from __future__ import annotations

import ctypes
import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future
from contextlib import contextmanager

import numpy as np
from numpy.typing import NDArray

from overpaint_common.job import Priority
from overpaint_common.result import ModelInfo
from overpaint_worker.engine.calls import Call, Made, Model, Painted
from overpaint_worker.engine.engine import Engine
from overpaint_worker.engine.routines import Turn, wait
from tests.engine.direct import call

PATIENCE = 20.0
"""Seconds after which a test that waits has failed."""


class GatedModel(Model):
    """Runs `call.steps` steps; each waits until `gate` is open, in a loop, as pipelines run Python between kernels."""

    def __init__(self, name: str = "gated") -> None:
        self.info = ModelInfo(name=name, revision="local", digest="", pipeline="", scheduler="", dtype="")
        self.gate = threading.Event()
        self.entered = threading.Event()
        self.ran: list[str] = []
        self.before_step: Callable[[Call], None] = lambda _: None

    def run(self, call: Call, on_step: Callable[[int], None]) -> Made:
        self.ran.append(call.prompt)
        for step in range(call.steps):
            self.entered.set()
            while not self.gate.wait(0.005):
                pass
            self.before_step(call)
            on_step(step + 1)
        return Made(np.zeros((call.picture.height, call.picture.width, 3), np.float32), 1)


class SteppedModel(Model):
    """Runs `call.steps` steps, each of which is a turn of two rows, one without guidance; calls of one size share them.

    What it makes of a call is the same whoever shares its forwards, bit for bit.
    """

    def __init__(self, name: str = "stepped", *, most: int = 32) -> None:
        self.info = ModelInfo(name=name, revision="local", digest="", pipeline="", scheduler="", dtype="")
        self.most = most
        self.forwards: list[list[str]] = []
        """The prompts of each, those that failed too."""
        self.before_forward: Callable[[list[str]], None] = lambda _: None
        self.when: dict[int, Callable[[], object]] = {}
        """What the test does at the beginning of a forward, of the first as 1, on the engine's thread."""

    def stepped(self, _: Call) -> bool:
        return True

    def run(self, call: Call, on_step: Callable[[int], None]) -> Made:
        width, height = call.picture.size
        rows = 2 if call.guidance_scale > 1 else 1
        latents = np.random.default_rng(call.seed).random((rows, height, width, 3), np.float32)
        for step in range(call.steps):
            group = self.info.name, call.picture.size, call.reproducible
            latents = wait(
                Turn(group, self._forward, (call.prompt, latents), rows, call.reproducible, self.most, _next_even)
            )
            on_step(step + 1)
        return Made(latents[0], 1)

    def _forward(self, wanted: Sequence[tuple[str, NDArray[np.float32]]]) -> list[NDArray[np.float32]]:
        prompts = [prompt for prompt, _ in wanted]
        self.forwards.append(prompts)
        self.when.pop(len(self.forwards), lambda: None)()
        self.before_forward(prompts)
        made = np.cos(3 * np.concatenate([latents for _, latents in wanted])) ** 2
        return np.split(made, np.cumsum([len(latents) for _, latents in wanted])[:-1])


def _next_even(rows: int) -> int:
    return rows + rows % 2


class Deaths:
    """What `on_death` was told."""

    def __init__(self) -> None:
        self.reasons: list[str] = []
        self.happened = threading.Event()

    def __call__(self, reason: str) -> None:
        self.reasons.append(reason)
        self.happened.set()


Start = Callable[..., Engine]
"""Starts an engine: on a loader, if the one gated model will not do, and with the limits named."""


def kill(engine: Engine) -> None:
    """Raise SystemExit in the engine's thread, wherever it is."""
    ident = ctypes.c_ulong(engine._thread.ident or 0)
    assert ctypes.pythonapi.PyThreadState_SetAsyncExc(ident, ctypes.py_object(SystemExit)) == 1


class Story:
    """What the calls of one engine tell, in order, as "name step" and "name done"."""

    def __init__(self, engine: Engine) -> None:
        self.engine = engine
        self.told: list[str] = []
        self.when: dict[str, Callable[[], object]] = {}
        """What the test does at a moment, on the engine's thread, before another call gets on."""

    def submit(self, name: str, priority: Priority, *, model: str = "gated", steps: int = 2) -> Future[Painted]:
        return self.run(call(model, prompt=name, priority=priority, steps=steps, on_progress=self.tells(name)))

    def run(self, given: Call) -> Future[Painted]:
        future = self.engine.submit(given)
        future.add_done_callback(lambda _: self._tell(f"{given.prompt} done"))
        return future

    def tells(self, name: str) -> Callable[[str, int], None]:
        return lambda phase, steps: None if phase == "load" else self._tell(f"{name} {steps}")

    def _tell(self, moment: str) -> None:
        self.told.append(moment)
        self.when.pop(moment, lambda: None)()


@contextmanager
def engine_on(model: GatedModel) -> Iterator[Engine]:
    """A running engine whose only model this is; at the end the gate opens and it stops."""
    engine = Engine(lambda _: model)
    engine.start()
    yield engine
    model.gate.set()
    engine.stop()
