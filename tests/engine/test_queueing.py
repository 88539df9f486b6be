"""Which call runs next, with which model, and what an engine keeps afterwards."""

from __future__ import annotations

import gc
import logging
import subprocess
import sys
import weakref
from collections.abc import Callable
from concurrent.futures import Future
from typing import Any

import numpy as np
import pytest
import torch

from overpaint_common.errors import (
    DeviceOutOfMemory,
    JobCancelled,
    ModelLoadFailed,
    PipelineFailed,
    UnknownModel,
)
from overpaint_common.job import Priority
from overpaint_worker.engine.calls import Call, Painted
from overpaint_worker.engine.engine import Engine
from tests.engine.direct import call
from tests.engine.fakes import PATIENCE, GatedModel


def test_urgent_calls_overtake_those_that_wait(gated: Engine, model: GatedModel) -> None:
    def submit(name: str, priority: Priority) -> Future[Painted]:
        return gated.submit(call("gated", prompt=name, priority=priority))

    futures = [submit("running", "interactive")]
    assert model.entered.wait(PATIENCE)
    futures += [submit("bulk", "bulk"), submit("standard", "standard"), submit("interactive", "interactive")]
    model.gate.set()
    for future in futures:
        future.result(PATIENCE)

    assert model.ran == ["running", "interactive", "standard", "bulk"]


def test_a_call_cancelled_while_it_waits_never_runs(gated: Engine, model: GatedModel) -> None:
    gated.submit(call("gated", prompt="running"))
    assert model.entered.wait(PATIENCE)
    waiting = call("gated", prompt="waiting")
    future = gated.submit(waiting)
    waiting.cancelled.set()
    model.gate.set()

    assert isinstance(future.exception(PATIENCE), JobCancelled)
    assert model.ran == ["running"]


@pytest.mark.parametrize(
    ("raised", "expected", "message"),
    [
        (ValueError("shapes differ"), PipelineFailed, "the pipeline raised ValueError: shapes differ"),
        (torch.OutOfMemoryError("CUDA out of memory."), DeviceOutOfMemory, "CUDA out of memory.*use a smaller size"),
        (MemoryError(), PipelineFailed, "the pipeline raised MemoryError"),
    ],
)
def test_a_call_that_fails_leaves_the_engine_alive(
    gated: Engine, model: GatedModel, raised: Exception, expected: type[Exception], message: str
) -> None:
    def fail(_: Call) -> None:
        raise raised

    model.gate.set()
    model.before_step = fail
    with pytest.raises(expected, match=message):
        gated.submit(call("gated")).result(PATIENCE)
    model.before_step = lambda _: None

    assert gated.submit(call("gated")).result(PATIENCE).steps == 5
    assert gated.dead is None


@pytest.mark.parametrize("error", [ValueError("bad"), torch.OutOfMemoryError("full"), None])
def test_an_error_that_somebody_keeps_holds_no_tensor(
    gated: Engine, model: GatedModel, error: Exception | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Log records hold tracebacks too, and pytest keeps those.
    monkeypatch.setattr(logging.getLogger("overpaint_worker.engine.failures"), "disabled", True)
    tensors: list[weakref.ref[np.ndarray[Any, Any]]] = []
    given = call("gated")

    def fail(_: Call) -> None:
        latents = np.zeros(1000)
        tensors.append(weakref.ref(latents))
        if error is None:
            given.cancelled.set()
            return
        raise error.with_traceback(None)

    model.gate.set()
    model.before_step = fail
    kept = gated.submit(given).exception(PATIENCE)
    if error is not None:
        error.with_traceback(None)
    gc.collect()

    assert kept is not None
    assert kept.__traceback__ is None
    assert kept.__context__ is None
    assert [ref() for ref in tensors] == [None]


def test_an_idle_engine_keeps_neither_picture_nor_pixels(gated: Engine, model: GatedModel) -> None:
    model.gate.set()
    given = call("gated")
    picture = weakref.ref(given.picture)
    painted = gated.submit(given).result(PATIENCE)
    pixels = weakref.ref(painted.pixels)
    del given, painted
    # Once this one is through, the engine has let go of the one before.
    gated.submit(call("gated")).result(PATIENCE)
    gc.collect()

    assert picture() is None
    assert pixels() is None


def test_one_model_is_in_memory_and_the_one_before_is_freed() -> None:
    alive: weakref.WeakSet[GatedModel] = weakref.WeakSet()
    seen: list[list[str]] = []

    def load(name: str) -> GatedModel:
        seen.append(sorted(model.info.name for model in alive))
        model = GatedModel(name)
        model.gate.set()
        alive.add(model)
        return model

    engine = Engine(load)
    engine.start(preload="first")
    used = [engine.submit(call(name)).result(PATIENCE).model.name for name in ("first", "second", "second", "first")]
    engine.stop()

    assert used == ["first", "second", "second", "first"]
    # Each load found an empty device: "first" at the start, "second", and "first" again.
    assert seen == [[], [], []]


def test_loading_is_told_and_not_counted_as_painting() -> None:
    model = GatedModel()
    model.gate.set()
    phases: list[tuple[str, int]] = []
    engine = Engine(lambda _: model)
    engine.start()

    for _ in range(2):
        engine.submit(call("gated", steps=2, on_progress=lambda *moment: phases.append(moment))).result(PATIENCE)
    engine.stop()

    painting = [("denoise", 0), ("denoise", 1), ("denoise", 2)]
    assert phases == [("load", 0), *painting, *painting]


@pytest.mark.parametrize(
    ("cause", "expected"),
    [(None, UnknownModel), (OSError("disk"), ModelLoadFailed), (torch.OutOfMemoryError("full"), DeviceOutOfMemory)],
)
def test_a_model_that_does_not_load_fails_its_call_alone(cause: Exception | None, expected: type[Exception]) -> None:
    def load(name: str) -> GatedModel:
        if name == "good":
            good = GatedModel(name)
            good.gate.set()
            return good
        if cause is None:
            raise UnknownModel(f"no {name}")
        raise ModelLoadFailed(f"{name} does not load") from cause

    engine = Engine(load)
    engine.start()

    assert type(engine.submit(call("bad")).exception(PATIENCE)) is expected
    assert engine.submit(call("good")).result(PATIENCE).model.name == "good"
    engine.stop()


def test_the_parts_that_decide_import_no_torch() -> None:
    modules = [
        "engine.policy",
        "engine.turns",
        "engine.routines",
        "engine.loop",
        "engine.residents",
        "engine.caches",
        "engine.families.family",
        "engine.engine",
        "engine.failures",
        "engine.registry",
        "engine.calls",
        "operations.passes",
    ]
    imports = "; ".join(f"import overpaint_worker.{module}" for module in modules)
    code = f"{imports}; import sys; print(sorted({{'torch', 'diffusers', 'transformers'}} & sys.modules.keys()))"

    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)

    assert done.stdout.strip() == "[]"


def test_progress_that_raises_fails_the_call_and_not_the_engine(gated: Engine, model: GatedModel) -> None:
    def broken(_: str, __: int) -> None:
        raise RuntimeError("nobody listens")

    model.gate.set()
    silent: Callable[[str, int], None] = lambda _, __: None  # noqa: E731

    assert isinstance(gated.submit(call("gated", on_progress=broken)).exception(PATIENCE), PipelineFailed)
    assert gated.submit(call("gated", on_progress=silent)).result(PATIENCE).steps == 5
