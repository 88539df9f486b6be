"""A model of numpy alone, so that a worker starts in a second, and prompts that make any model misbehave.

A prompt may begin with one of these words, and the rest of it is the model's:

    poison:kill     SIGKILL to its own process after the first step
    poison:segv     a segmentation fault there
    poison:oom      what torch raises where the device is out of memory
    poison:hang     that step never ends, as a kernel that hangs
    poison:broken   an exception that nobody foresaw
    die:<path>      the engine's thread ends after its first step, unless `<path>` exists, and creates `<path>`
    gate:<path>     creates `<path>.<seed>` and waits at its first step until `<path>` exists
"""

from __future__ import annotations

import ctypes
import os
import signal
import threading
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np

from overpaint_common.result import ModelInfo
from overpaint_worker.engine.calls import Call, Loader, Made, Model
from overpaint_worker.engine.registry import Registry

GATE_EVERY = 0.02
"""Seconds between two steps of a call that waits at its gate."""


class OutOfMemoryError(RuntimeError):
    """Named as torch's is, by which the engine knows it."""


class Light(Model):
    """Tints the picture by its seed, in steps that take as long as told; one seed always gives the same picture."""

    info = ModelInfo(
        name="light", revision="local", digest="0" * 64, pipeline="none", scheduler="none", dtype="float32"
    )

    def __init__(self, step_seconds: float) -> None:
        self._step_seconds = step_seconds

    def run(self, call: Call, on_step: Callable[[int], None]) -> Made:
        for step in range(max(1, int(call.steps * call.strength))):
            time.sleep(self._step_seconds)
            on_step(step + 1)
        tint = np.random.default_rng(call.seed).random(3, dtype=np.float32)
        pixels = np.asarray(call.picture, dtype=np.float32) / np.float32(255)
        return Made(pixels * (1 - np.float32(call.strength)) + tint * np.float32(call.strength), 1)


class Misbehaving(Model):
    """Another model, which obeys the words at the beginning of a prompt after its first step."""

    def __init__(self, model: Model) -> None:
        self._model = model
        self.info = model.info

    def run(self, call: Call, on_step: Callable[[int], None]) -> Made:
        def step(done: int) -> None:
            on_step(done)
            if done == 1:
                _obey(call, on_step)

        return self._model.run(call, step)


def _obey(call: Call, on_step: Callable[[int], None]) -> None:
    word = call.prompt.split(" ")[0]
    match word.partition(":"):
        case "poison", _, "kill":
            os.kill(os.getpid(), signal.SIGKILL)
        case "poison", _, "segv":
            ctypes.string_at(0)
        case "poison", _, "oom":
            raise OutOfMemoryError("CUDA out of memory, on purpose")
        case "poison", _, "hang":
            threading.Event().wait()
        case "poison", _, "broken":
            raise ZeroDivisionError("on purpose")
        case "die", _, name if not Path(name).exists():
            Path(name).touch()
            thread = ctypes.c_ulong(threading.get_ident())
            ctypes.pythonapi.PyThreadState_SetAsyncExc(thread, ctypes.py_object(SystemExit))
        case "gate", _, name:
            Path(f"{name}.{call.seed}").touch()
            while not Path(name).exists():
                time.sleep(GATE_EVERY)
                on_step(1)


def loader_of(kind: str, step_seconds: float) -> Callable[[Registry, str], Loader]:
    """What loads models in place of a worker's own loader: `light`, or `real` for the registry's pipelines."""

    def light(_: Registry, __: str) -> Loader:
        return lambda _: Misbehaving(Light(step_seconds))

    def real(registry: Registry, device: str) -> Loader:
        from overpaint_worker.engine.loading import PipelineLoader

        pipelines = PipelineLoader(registry, device)
        return lambda name: Misbehaving(pipelines(name))

    return {"light": light, "real": real}[kind]
