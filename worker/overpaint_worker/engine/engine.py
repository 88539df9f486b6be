"""The engine: one thread that owns the device, and what others see of it."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable
from concurrent.futures import Future
from contextlib import suppress
from dataclasses import dataclass
from functools import partial

from overpaint_common.errors import EngineDied, JobCancelled, OverpaintError
from overpaint_worker.engine.calls import Call, Loader, Painted
from overpaint_worker.engine.failures import as_outcome, describe
from overpaint_worker.engine.loop import NEVER_BEGUN, Loop
from overpaint_worker.engine.policy import PriorityQueue
from overpaint_worker.engine.residents import Budget, Residents
from overpaint_worker.engine.statistics import Statistics

log = logging.getLogger(__name__)

SWITCH_PATIENCE = 4.0
"""Times the seconds of a loading that the models in use go on before they make room: loading is a fifth at most."""


@dataclass(frozen=True, slots=True)
class PhaseLimits:
    """Seconds after which a phase counts as hanging."""

    load: float = 1800
    """Loading and compiling take their time."""
    step: float = 300
    """From one denoising step of whichever call to the next, encoding and decoding included."""


class Engine:
    """Runs calls on one device, many beside each other. `submit` may be called from any thread.

    What is under way shares the device as TurnQueue says; the Loop does it. Calls for loaded models are admitted as
    they come. One for a model that has no room beside those in use waits: after SWITCH_PATIENCE times the seconds that
    loading takes, or at once where it is more urgent than all that is under way, nothing else is admitted until those
    in use have come to an end and the least recently used make room.

    When its thread dies or hangs, every call that waits or runs ends with EngineDied, `on_death` is called once with
    the reason, and later calls end with EngineDied at once: the process is to be replaced. `on_death` is for deaths
    that nobody would see: it is not called when `start` raises, nor for anything after `stop`.
    """

    def __init__(
        self,
        loader: Loader,
        *,
        limits: PhaseLimits | None = None,
        budget: Budget | None = None,
        on_death: Callable[[str], None] = lambda _: None,
    ) -> None:
        """`budget` of the weights that may be loaded at once; None has one model at a time."""
        self._residents = Residents(loader, budget)
        self._loop = Loop(self._residents, self._enter, lambda: self._dead)
        self._limits = limits or PhaseLimits()
        self._on_death = on_death
        self._lock = threading.Condition()
        self._waiting: PriorityQueue[tuple[Call, Future[Painted]]] = PriorityQueue()
        self._pending: set[Future[Painted]] = set()
        self._blocked: tuple[str, float] | None = None
        """The model that has no room for its call, and the engine's busy seconds when that was seen first."""
        self._preload: str | None = None
        self._ready: Future[None] = Future()
        self._stopping = False
        self._dead: str | None = None
        self._idle = 0.0
        self._served = False
        """Whether a call has ever come."""
        # One attribute, so that the watch never sees a new phase with the time of the old one.
        self._moment: tuple[str, float] = ("idle", time.monotonic())
        self._gone = threading.Event()
        self._thread = threading.Thread(target=self._run, name="engine", daemon=True)
        self._watch = threading.Thread(target=self._watch_thread, name="engine-watch", daemon=True)

    def start(self, preload: str | None = None) -> None:
        """Start the engine's thread, and return once it has loaded `preload`.

        Raises ModelLoadFailed or another OverpaintError if that does not work, and EngineDied if it takes longer than
        `limits.load` or the device is beyond repair. The engine is gone then, even if its thread hangs.
        """
        self._preload = preload
        self._thread.start()
        self._watch.start()
        self._ready.result()

    def submit(self, call: Call) -> Future[Painted]:
        """Queue a call. The future ends with Painted, JobCancelled, or an EngineError.

        Set `call.cancelled` to be rid of it; the future's own `cancel` does nothing.
        """
        future: Future[Painted] = Future()
        future.set_running_or_notify_cancel()
        with self._lock:
            if self._dead is not None:
                future.set_exception(EngineDied(f"the engine is gone: {self._dead}; the job goes back to the queue"))
                return future
            if call.cancelled.is_set():
                future.set_exception(JobCancelled(NEVER_BEGUN))
                return future
            self._pending.add(future)
            self._waiting.push((call, future), call.priority)
            self._lock.notify()
        return future

    def sweep(self) -> None:
        """End the waiting calls that are cancelled by now, rather than each when its turn comes."""
        with self._lock:
            swept = self._waiting.take(lambda item: item[0].cancelled.is_set())
        for _, future in swept:
            self._resolve(future, JobCancelled(NEVER_BEGUN))

    def stop(self) -> None:
        """End the thread after the calls that have begun; what still waits ends with EngineDied.

        Returns at once where the engine is gone already, even if its thread hangs.
        """
        with self._lock:
            self._stopping = True
            self._lock.notify()
        if self._thread.ident is None:
            self._die("stopped")
        elif threading.current_thread() is not self._thread:
            self._gone.wait()

    @property
    def dead(self) -> str | None:
        """Why the engine is gone: "stopped" after `stop`, else what killed it; None while it lives."""
        return self._dead

    def statistics(self) -> Statistics:
        """What it did since it started; from any thread."""
        return self._loop.statistics(self._idle)

    def _run(self) -> None:
        reason, refusal = "stopped", None
        try:
            refusal = self._load_first()
            if refusal is not None:
                reason = describe(refusal)
            while refusal is None and self._serve():
                pass
        except BaseException as error:
            reason = describe(error)
            log.exception("engine thread ends")
        finally:
            self._die(reason, refusal)
            with suppress(Exception):
                self._loop.end(reason, begun=True)

    def _load_first(self) -> OverpaintError | None:
        """Load what `start` asks for and let it return; or why it has to raise."""
        if self._preload is not None:
            try:
                self._loop.load(self._preload)
            except Exception as error:
                return as_outcome(error)
        with self._lock:
            if self._dead is None:
                self._ready.set_result(None)
        return None

    def _serve(self) -> bool:
        """Take in what waits and make one step; whether there is more to come."""
        if not self._wait():
            return False
        while self._admit():
            pass
        if self._stopping:
            self._loop.end("stopped", begun=False)
        self._loop.step()
        return True

    def _wait(self) -> bool:
        """Wait until there is something to do; whether there will ever be."""
        with self._lock:
            if self._dead is None and not self._loop:
                self._enter("idle")
                began = time.monotonic()
                while not self._stopping and self._dead is None and not self._waiting:
                    self._lock.wait()
                if self._waiting and self._served:
                    self._idle += time.monotonic() - began
                self._served = True
            return self._dead is None and (bool(self._loop) or not self._stopping)

    def _admit(self) -> bool:
        """Take in one call, if one may."""
        # A method of its own, so that an idle engine holds no picture.
        with self._lock:
            item = None if self._stopping or self._dead is not None else self._admissible()
        if item is None:
            return False
        call, future = item
        if call.cancelled.is_set():
            self._resolve(future, JobCancelled(NEVER_BEGUN))
        else:
            self._loop.admit(call, partial(self._resolve, future))
        return True

    def _admissible(self) -> tuple[Call, Future[Painted]] | None:
        """Remove and return the call that is admitted next."""
        first = self._waiting.first()
        if first is None:
            return None
        call, _ = first
        if call.cancelled.is_set() or self._residents.has_room(call.model, self._loop.models):
            self._blocked = None
            return self._waiting.pop()
        if self._blocked is None or self._blocked[0] != call.model:
            self._blocked = call.model, self._loop.busy
        waited = self._loop.busy - self._blocked[1]
        if self._loop.is_less_urgent(call.priority) or waited >= SWITCH_PATIENCE * self._loop.load_seconds:
            return None
        return self._waiting.pop(lambda item: item[0].model in self._residents)

    def _enter(self, phase: str) -> None:
        self._moment = (phase, time.monotonic())

    def _resolve(self, future: Future[Painted], outcome: Painted | OverpaintError) -> None:
        with self._lock:
            if future not in self._pending:
                return
            self._pending.discard(future)
        if isinstance(outcome, OverpaintError):
            future.set_exception(outcome)
        else:
            future.set_result(outcome)

    def _die(self, reason: str, refusal: OverpaintError | None = None) -> None:
        with self._lock:
            if self._dead is not None:
                return
            self._dead = reason
            starting = not self._ready.done()
            pending, self._pending = self._pending, set()
            self._waiting = PriorityQueue()
            self._lock.notify()
        for future in pending:
            future.set_exception(EngineDied(f"the engine is gone: {reason}; the job goes back to the queue"))
        self._gone.set()
        if starting:
            self._ready.set_exception(refusal or EngineDied(f"the engine is gone: {reason}"))
        elif not self._stopping:
            log.error("engine died reason=%s pending=%d", reason, len(pending))
            self._on_death(reason)

    def _watch_thread(self) -> None:
        limits = {"load": self._limits.load, "denoise": self._limits.step}
        while self._dead is None:
            self._thread.join(min(1.0, *(limit / 4 for limit in limits.values())))
            if not self._thread.is_alive():
                self._die("its thread ended")
            phase, since = self._moment
            limit = limits.get(phase)
            if limit is not None and time.monotonic() - since > limit:
                self._die(f"phase {phase!r} took longer than {limit:g} s")
