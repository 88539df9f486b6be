"""A model without a pipeline, whose every step waits for the test: for what concerns the engine and not the picture.

And what tests do to engines on it.
"""

from __future__ import annotations

import ctypes
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from contextlib import contextmanager

import numpy as np

from overpaint_common.job import Priority
from overpaint_common.result import ModelInfo
from overpaint_worker.engine.calls import Call, Made, Painted
from overpaint_worker.engine.engine import Engine
from tests.engine.direct import call

PATIENCE = 20.0
"""Seconds after which a test that waits has failed."""


class GatedModel:
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
        """What the test does at a moment, on the engine's thread, before a call can be interrupted there."""

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
