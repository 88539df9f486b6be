"""When the engine's thread dies or hangs, nobody waits for ever and the process learns of it once."""

from __future__ import annotations

import threading

import pytest
import torch

from overpaint_common.errors import (
    DeviceOutOfMemory,
    EngineDied,
    ModelLoadFailed,
    ModelUnreachable,
    OverpaintError,
)
from overpaint_worker.engine.calls import Call
from overpaint_worker.engine.engine import Engine, PhaseLimits
from overpaint_worker.engine.loading import PipelineLoader
from tests.engine.conftest import Models
from tests.engine.direct import call
from tests.engine.fakes import PATIENCE, Deaths, GatedModel, Start, kill


def test_a_killed_thread_ends_every_call(model: GatedModel, deaths: Deaths, start: Start) -> None:
    engine = start()
    futures = [engine.submit(call("gated")) for _ in range(4)]
    assert model.entered.wait(PATIENCE)

    kill(engine)

    assert {type(future.exception(PATIENCE)) for future in futures} == {EngineDied}
    assert deaths.happened.wait(PATIENCE)
    assert deaths.reasons == ["SystemExit"]
    assert engine.dead == "SystemExit"


def test_a_dead_engine_refuses_at_once(model: GatedModel, deaths: Deaths, start: Start) -> None:
    engine = start()
    engine.submit(call("gated"))
    assert model.entered.wait(PATIENCE)
    kill(engine)
    assert deaths.happened.wait(PATIENCE)

    late = engine.submit(call("gated"))

    assert late.done()
    with pytest.raises(EngineDied, match="the engine is gone: SystemExit; the job goes back to the queue"):
        late.result(0)


def test_a_real_pipeline_killed_while_it_denoises(models: Models, deaths: Deaths, start: Start) -> None:
    engine = start(models.loaded)
    at_step_two = threading.Event()

    def on_progress(_: str, step: int) -> None:
        if step == 2:
            at_step_two.set()

    running = engine.submit(call("sd", steps=500, strength=1.0, on_progress=on_progress))
    assert at_step_two.wait(PATIENCE)
    kill(engine)

    assert isinstance(running.exception(PATIENCE), EngineDied)
    assert deaths.happened.wait(PATIENCE)


def test_an_idle_thread_that_is_killed_dies_with_the_next_call(deaths: Deaths, start: Start, model: GatedModel) -> None:
    engine = start()
    kill(engine)

    assert isinstance(engine.submit(call("gated")).exception(PATIENCE), EngineDied)
    assert deaths.happened.wait(PATIENCE)
    assert model.ran == []


@pytest.mark.parametrize(
    "error",
    [
        torch.AcceleratorError("CUDA error: an illegal memory access was encountered"),
        RuntimeError("CUDA error: device-side assert triggered"),
    ],
)
def test_an_error_that_poisons_the_device_ends_the_engine(
    model: GatedModel, deaths: Deaths, start: Start, error: Exception
) -> None:
    def fail(_: Call) -> None:
        raise error

    model.before_step = fail
    engine = start()
    futures = [engine.submit(call("gated")) for _ in range(3)]
    model.gate.set()

    assert {type(future.exception(PATIENCE)) for future in futures} == {EngineDied}
    assert deaths.happened.wait(PATIENCE)
    assert len(deaths.reasons) == 1
    assert str(error) in deaths.reasons[0]


def test_a_device_poisoned_while_loading_ends_the_engine(
    models: Models, deaths: Deaths, start: Start, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Given a device that fails when the weights arrive there: the loader calls that a model that does not load.
    def to_poisoned(*_: object) -> None:
        raise RuntimeError("CUDA error: uncorrectable ECC error encountered")

    models.folder("sd")
    monkeypatch.setattr("diffusers.StableDiffusionImg2ImgPipeline.to", to_poisoned)
    engine = start(PipelineLoader(models.registry, "cpu"))

    assert isinstance(engine.submit(call("sd")).exception(PATIENCE), EngineDied)
    assert deaths.happened.wait(PATIENCE)


def test_a_step_that_hangs_ends_the_engine(deaths: Deaths, start: Start) -> None:
    engine = start(step=0.2)

    futures = [engine.submit(call("gated")) for _ in range(2)]

    assert {type(future.exception(PATIENCE)) for future in futures} == {EngineDied}
    assert deaths.happened.wait(PATIENCE)
    assert deaths.reasons == ["phase 'denoise' took longer than 0.2 s"]


def test_a_hanging_thread_that_comes_back_paints_nothing_more(model: GatedModel, deaths: Deaths, start: Start) -> None:
    engine = start(step=0.2)
    steps: list[tuple[str, int]] = []
    engine.submit(call("gated", prompt="first", on_progress=lambda phase, step: steps.append((phase, step))))
    engine.submit(call("gated", prompt="second"))
    assert deaths.happened.wait(PATIENCE)

    model.gate.set()
    engine._thread.join(PATIENCE)
    assert not engine._thread.is_alive()

    assert model.ran == ["first"]
    assert steps == [("load", 0), ("denoise", 0), ("denoise", 1)]
    assert len(deaths.reasons) == 1


def test_loading_may_take_longer_than_a_step(model: GatedModel, deaths: Deaths, start: Start) -> None:
    model.gate.set()

    def slowly(_: str) -> GatedModel:
        threading.Event().wait(1.0)
        return model

    engine = start(slowly, step=0.4, load=60)

    assert engine.submit(call("gated")).result(PATIENCE).steps == 5
    assert engine.dead is None
    assert deaths.reasons == []


def test_loading_that_hangs_ends_the_engine(model: GatedModel, deaths: Deaths, start: Start) -> None:
    def never(_: str) -> GatedModel:
        model.gate.wait()
        return model

    engine = start(never, load=0.2)

    assert isinstance(engine.submit(call("gated")).exception(PATIENCE), EngineDied)
    assert deaths.happened.wait(PATIENCE)
    assert deaths.reasons == ["phase 'load' took longer than 0.2 s"]


def test_an_idle_engine_does_not_hang(model: GatedModel, deaths: Deaths, start: Start) -> None:
    model.gate.set()
    engine = start(step=0.5, load=0.5)
    threading.Event().wait(0.9)

    assert engine.submit(call("gated")).result(PATIENCE).steps == 5
    assert deaths.reasons == []


def test_stop_ends_the_running_call_first(model: GatedModel, deaths: Deaths, start: Start) -> None:
    engine = start()
    running, waiting = engine.submit(call("gated")), engine.submit(call("gated"))
    assert model.entered.wait(PATIENCE)

    stopping = threading.Thread(target=engine.stop)
    stopping.start()
    assert not running.done()
    model.gate.set()
    stopping.join(PATIENCE)

    assert running.result(0).steps == 5
    assert isinstance(waiting.exception(0), EngineDied)
    assert engine.dead == "stopped"
    assert deaths.reasons == []
    assert isinstance(engine.submit(call("gated")).exception(0), EngineDied)


def test_stop_before_start_leaves_nobody_waiting(model: GatedModel) -> None:
    engine = Engine(lambda _: model)
    early = engine.submit(call("gated"))

    engine.stop()

    assert isinstance(early.exception(0), EngineDied)
    assert engine.dead == "stopped"


def test_stop_does_not_wait_for_a_thread_that_hangs(deaths: Deaths, start: Start) -> None:
    engine = start(step=0.2)
    engine.submit(call("gated"))
    assert deaths.happened.wait(PATIENCE)

    stopping = threading.Thread(target=engine.stop, daemon=True)
    stopping.start()
    stopping.join(PATIENCE)

    assert not stopping.is_alive()
    assert engine.dead == "phase 'denoise' took longer than 0.2 s"


def test_on_death_may_stop_the_engine(model: GatedModel) -> None:
    stopped = threading.Event()

    def on_death(_: str) -> None:
        engine.stop()
        stopped.set()

    engine = Engine(lambda _: model, on_death=on_death)
    engine.start()
    engine.submit(call("gated"))
    assert model.entered.wait(PATIENCE)
    kill(engine)

    assert stopped.wait(PATIENCE)


def test_a_waiter_cannot_upset_the_engine_by_cancelling_its_future(model: GatedModel, start: Start) -> None:
    engine = start()
    first, second = engine.submit(call("gated")), engine.submit(call("gated"))

    assert not first.cancel()
    assert not second.cancel()
    model.gate.set()

    assert [future.result(PATIENCE).steps for future in (first, second)] == [5, 5]


def test_the_preload_runs_where_all_calls_run(model: GatedModel) -> None:
    loaded_on: list[threading.Thread] = []

    def load(_: str) -> GatedModel:
        loaded_on.append(threading.current_thread())
        return model

    engine = Engine(load)
    engine.start(preload="gated")
    model.gate.set()

    assert engine.submit(call("gated")).result(PATIENCE).steps == 5
    assert loaded_on == [engine._thread]
    engine.stop()


@pytest.mark.parametrize(
    ("error", "expected"),
    [
        (OverpaintError("no first"), OverpaintError),
        (ModelLoadFailed("no first"), ModelLoadFailed),
        (ModelUnreachable("no first"), ModelUnreachable),
        (torch.OutOfMemoryError("no first"), DeviceOutOfMemory),
        (torch.AcceleratorError("CUDA error: no first"), EngineDied),
    ],
)
def test_a_preload_that_fails_is_raised_and_ends_the_engine(
    deaths: Deaths, error: Exception, expected: type[Exception]
) -> None:
    def failing(_: str) -> GatedModel:
        raise error

    engine = Engine(failing, on_death=deaths)
    with pytest.raises(expected, match="no first") as raised:
        engine.start(preload="first")

    assert raised.type is expected
    assert "no first" in str(engine.dead)
    assert isinstance(engine.submit(call("first")).exception(0), EngineDied)
    engine._thread.join(PATIENCE)
    engine._watch.join(PATIENCE)
    assert not engine._thread.is_alive()
    assert not engine._watch.is_alive()
    engine.stop()
    assert deaths.reasons == []


def test_a_preload_that_hangs_is_raised_and_ends_the_engine(model: GatedModel, deaths: Deaths) -> None:
    def never(_: str) -> GatedModel:
        model.gate.wait()
        return model

    engine = Engine(never, limits=PhaseLimits(load=0.2), on_death=deaths)
    early = engine.submit(call("gated"))
    with pytest.raises(EngineDied, match=r"phase 'load' took longer than 0\.2 s"):
        engine.start(preload="gated")

    assert engine.dead == "phase 'load' took longer than 0.2 s"
    assert isinstance(early.exception(0), EngineDied)
    engine.stop()

    # When the load comes back after all.
    model.gate.set()
    engine._thread.join(PATIENCE)

    assert not engine._thread.is_alive()
    assert model.ran == []
    assert deaths.reasons == []


def test_a_death_after_a_preload_is_told(model: GatedModel, deaths: Deaths) -> None:
    engine = Engine(lambda _: model, on_death=deaths)
    engine.start(preload="gated")
    running = engine.submit(call("gated"))
    assert model.entered.wait(PATIENCE)
    kill(engine)

    assert isinstance(running.exception(PATIENCE), EngineDied)
    assert deaths.happened.wait(PATIENCE)
    assert deaths.reasons == ["SystemExit"]
