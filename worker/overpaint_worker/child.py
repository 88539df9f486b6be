"""One worker process on one device. The supervisor starts it with the device already chosen in its environment."""

from __future__ import annotations

import logging
import os
import signal
import sys
import threading
from collections.abc import Callable
from importlib.metadata import version
from typing import Any

from celery import signals
from celery.worker import state

from overpaint_common.errors import OverpaintError, SettingsError
from overpaint_worker import exits
from overpaint_worker.engine.calls import Loader
from overpaint_worker.engine.registry import Registry
from overpaint_worker.engine.residents import Budget
from overpaint_worker.jobs import solo_loop
from overpaint_worker.runtime import Runtime, build
from overpaint_worker.settings import WorkerSettings
from overpaint_worker.tasks import create_app
from overpaint_worker.watchdog import Watchdog

log = logging.getLogger(__name__)

LAST_RESORT = 30.0
"""Seconds that a process whose engine died may take to hand its jobs back."""

OVERTIME = 5.0
"""Seconds beyond its grace that a process takes at most to end, should its supervisor not be there to kill it."""

LIBRARIES = ("overpaint", "torch", "diffusers", "transformers", "accelerate", "celery", "pillow", "numpy")


def main(loader_of: Callable[[Registry, str], Loader] | None = None) -> int:
    """Serve until told to stop; returns the exit status. `loader_of` replaces how models are loaded.

    exits.CONFIG is for errors that a new process would meet again, exits.SOFTWARE for all others.
    """
    logging.basicConfig(
        format="%(asctime)s %(levelname)s %(name)s %(threadName)s %(message)s", stream=sys.stderr, level="INFO"
    )
    _end_with_parent()
    try:
        return _serve(loader_of)
    except OverpaintError as error:
        log.error("cannot start code=%s: %s", error.code, error)
        return exits.SOFTWARE if error.retryable else exits.CONFIG
    except Exception:
        log.exception("unforeseen error")
        return exits.SOFTWARE


def _serve(loader_of: Callable[[Registry, str], Loader] | None) -> int:
    # Of all devices it has the one that the supervisor gave it, whatever OVERPAINT_DEVICES says.
    settings = WorkerSettings.load(devices=os.environ.get("OVERPAINT_DEVICE", "cpu"))
    logging.getLogger().setLevel(settings.log_level)
    registry = settings.open_registry()
    log.info("starting models=%s ledger=%s", ",".join(sorted(registry.models)), settings.ledger)
    device = "cpu" if os.environ.get("OVERPAINT_DEVICE", "cpu") == "cpu" else "cuda"
    named = device_name(device)  # Before the loader asks a device that may not be there for its memory.
    loader, budget = (loader_of(registry, device), None) if loader_of else _pipelines(registry, device, settings)
    if settings.cpu_threads:
        import torch

        torch.set_num_threads(settings.cpu_threads)
    runtime = build(
        settings,
        registry,
        loader,
        budget,
        device=named,
        software={name: version(name) for name in LIBRARIES},
        on_engine_death=lambda reason: _leave(runtime, reason),
    )
    runtime.start()
    app = create_app(runtime)
    signals.setup_logging.connect(_keep_logging)
    worker = app.Worker(
        hostname=runtime.worker.name,
        pool="threads",
        concurrency=settings.slots,
        without_gossip=True,
        without_mingle=True,
        loglevel=None,
        quiet=True,
    )

    def drain(**_: Any) -> None:
        runtime.draining.set()
        # Without Redis Celery would wait for it before it stops.
        _end_after(settings.grace + OVERTIME)

    def ready(**_: Any) -> None:
        log.info("serving models=%s device=%s slots=%d", ",".join(runtime.cards), runtime.worker.device, settings.slots)

    signals.worker_shutting_down.connect(drain)
    signals.worker_ready.connect(ready)
    solo = solo_loop(runtime)
    watchdog = Watchdog(
        runtime.consumption,
        waiting=runtime.live.waiting,
        on_stuck=lambda reason: _leave(runtime, reason),
        leaving=runtime.draining,
    )
    solo.start()
    watchdog.start()
    try:
        worker.start()
    finally:
        runtime.draining.set()
        solo.join()
        runtime.stop()
    return int(worker.exitcode or 0) or (exits.SOFTWARE if runtime.engine.dead != "stopped" else 0)


def _keep_logging(**_: Any) -> None:
    """A receiver, so that Celery leaves the logging of `main` alone."""


def device_name(device: str) -> str:
    """The device as records name it."""
    if device == "cpu":
        return "cpu"
    import torch

    if not torch.cuda.is_available():
        wanted = os.environ.get("OVERPAINT_DEVICE")
        raise SettingsError(
            f"device {wanted}: torch {torch.__version__} finds no such CUDA device; see nvidia-smi, install a torch "
            "built for CUDA, or run with --devices cpu"
        )
    return f"cuda: {torch.cuda.get_device_name()}"


def _pipelines(registry: Registry, device: str, settings: WorkerSettings) -> tuple[Loader, Budget]:
    if settings.compile_cache is not None:
        # torch reads it when it compiles for the first time.
        os.environ["TORCHINDUCTOR_CACHE_DIR"] = str(settings.compile_cache)
    from overpaint_worker.engine.acceleration import Acceleration
    from overpaint_worker.engine.loading import PipelineLoader, Tuning

    acceleration = Acceleration(settings.compilation, settings.channels_last)
    tuning = Tuning(acceleration, settings.model_bytes, settings.cache_bytes, warm_up=True)
    loader = PipelineLoader(registry, device, tuning)
    return loader, loader.budget


def _leave(runtime: Runtime, reason: str) -> None:
    """End the process: its jobs go back to the queue first, but not for longer than LAST_RESORT."""
    log.error("leaving reason=%s", reason)
    runtime.draining.set()
    state.should_stop = exits.SOFTWARE
    _end_after(LAST_RESORT)


def _end_after(seconds: float) -> None:
    """End the process by then, whatever it waits for; the leases of jobs that it still holds lapse."""
    timer = threading.Timer(seconds, os._exit, (exits.SOFTWARE,))
    timer.daemon = True
    timer.start()


def _end_with_parent() -> None:
    """Stop when the supervisor is gone: its end of the pipe on standard input closes with it."""
    if os.environ.get("OVERPAINT_PARENT_PIPE") != "1":
        return

    def watch() -> None:
        while os.read(0, 1024):
            pass
        os.kill(os.getpid(), signal.SIGTERM)

    threading.Thread(target=watch, name="parent-watch", daemon=True).start()


if __name__ == "__main__":
    # All is stored and closed by now. Python's own end would wait for threads and libraries, of which one may hang.
    os._exit(main())
