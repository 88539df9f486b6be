"""The engine: one thread that owns the device and runs one call after another, or a more urgent one within another."""

from __future__ import annotations

import gc
import logging
import threading
import time
from collections.abc import Callable
from concurrent.futures import Future
from dataclasses import dataclass
from datetime import UTC, datetime

from overpaint_common.errors import EngineDied, JobCancelled, OverpaintError
from overpaint_worker.engine.calls import Call, Loader, Model, Painted
from overpaint_worker.engine.failures import as_outcome, describe
from overpaint_worker.engine.policy import PriorityQueue

log = logging.getLogger(__name__)

_NEVER_BEGUN = "cancelled while waiting for the engine"


@dataclass(frozen=True, slots=True)
class PhaseLimits:
    """Seconds after which a phase counts as hanging."""

    load: float = 1800
    """Loading and compiling take their time."""
    step: float = 300
    """From one denoising step of whichever call to the next, encoding and decoding included."""


class Engine:
    """Runs calls on one device. `submit` may be called from any thread.

    PriorityQueue says which waiting call is next. One for the loaded model that is strictly more urgent than the
    running call does not wait for its end: it runs at the next step boundary, within the running call, which goes on
    where it was and paints the same pixels as if alone. One call runs at a boundary, so the interrupted one makes a
    step (with some schedulers one of the model's calls of which they make several a step) between any two, and ends
    however many keep arriving. A call for another model waits for the end, since loading its model would evict the
    one that the running call needs.

    When its thread dies or hangs, every call that waits or runs ends with EngineDied, `on_death` is called once with
    the reason, and later calls end with EngineDied at once: the process is to be replaced. `on_death` is for deaths
    that nobody would see: it is not called when `start` raises, nor for anything after `stop`.
    """

    def __init__(
        self,
        loader: Loader,
        *,
        limits: PhaseLimits | None = None,
        on_death: Callable[[str], None] = lambda _: None,
    ) -> None:
        self._loader = loader
        self._limits = limits or PhaseLimits()
        self._on_death = on_death
        self._lock = threading.Condition()
        self._waiting: PriorityQueue[tuple[Call, Future[Painted]]] = PriorityQueue()
        self._pending: set[Future[Painted]] = set()
        self._preload: str | None = None
        self._ready: Future[None] = Future()
        self._loaded: tuple[str, Model] | None = None
        self._stopping = False
        self._dead: str | None = None
        # One attribute, so that the watch never sees a new phase with the time of the old one.
        self._moment: tuple[str, float] = ("idle", time.monotonic())
        self._gone = threading.Event()
        self._thread = threading.Thread(target=self._loop, name="engine", daemon=True)
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
                future.set_exception(JobCancelled(_NEVER_BEGUN))
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
            self._resolve(future, JobCancelled(_NEVER_BEGUN))

    def stop(self) -> None:
        """End the thread after the running call and those it interrupted; what still waits ends with EngineDied.

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

    def _loop(self) -> None:
        reason, refusal = "stopped", None
        try:
            refusal = self._load_first()
            if refusal is not None:
                reason = describe(refusal)
            while refusal is None and self._serve_next():
                pass
        except BaseException as error:
            reason = describe(error)
            log.exception("engine thread ends")
        finally:
            self._die(reason, refusal)

    def _load_first(self) -> OverpaintError | None:
        """Load what `start` asks for and let it return; or why it has to raise."""
        if self._preload is not None:
            try:
                self._model(self._preload)
            except Exception as error:
                return as_outcome(error)
        with self._lock:
            if self._dead is None:
                self._ready.set_result(None)
        return None

    def _serve_next(self) -> bool:
        # A method of its own, so that an idle engine holds no picture.
        item = self._next()
        if item is None:
            return False
        self._serve(*item)
        return True

    def _next(self) -> tuple[Call, Future[Painted]] | None:
        with self._lock:
            self._enter("idle")
            while not self._stopping and self._dead is None:
                item = self._waiting.pop()
                if item is not None:
                    return item
                self._lock.wait()
            return None

    def _let_pass(self, running: Call) -> float:
        """Run the call that may interrupt `running` at this step, if one waits; the seconds it took."""

        def may(item: tuple[Call, Future[Painted]]) -> bool:
            return item[0].model == running.model and not item[0].cancelled.is_set()

        with self._lock:
            item = None if self._stopping else self._waiting.pop_above(running.priority, may)
        if item is None:
            return 0.0
        began = time.monotonic()
        self._serve(*item)
        self._enter("denoise")
        return time.monotonic() - began

    def _serve(self, call: Call, future: Future[Painted]) -> None:
        self._resolve(future, self._outcome(call))

    def _outcome(self, call: Call) -> Painted | OverpaintError:
        if call.cancelled.is_set():
            return JobCancelled(_NEVER_BEGUN)
        try:
            return self._run(call)
        except Exception as error:
            return as_outcome(error)

    def _run(self, call: Call) -> Painted:
        model = self._model(call.model, lambda: call.on_progress("load", 0))
        started_at, started, done, interrupted = datetime.now(UTC), time.monotonic(), 0, 0.0
        self._enter("denoise")
        call.on_progress("denoise", 0)

        def check(steps: int) -> None:
            if call.cancelled.is_set():
                raise JobCancelled(f"cancelled at step {steps}")
            if self._dead is not None:
                raise EngineDied(f"the engine is gone: {self._dead}")

        def on_step(steps: int) -> None:
            nonlocal done, interrupted
            self._enter("denoise")
            if steps != done:
                done = steps
                call.on_progress("denoise", steps)
            check(steps)
            interrupted += self._let_pass(call)
            check(steps)

        made = model.run(call, on_step)
        seconds = time.monotonic() - started - interrupted
        scheduler = made.scheduler or model.info.scheduler
        return Painted(made.pixels, model.info, done, made.rows, started_at, seconds, made.warnings, scheduler)

    def _model(self, name: str, on_load: Callable[[], None] = lambda: None) -> Model:
        if self._loaded is None or self._loaded[0] != name:
            self._enter("load")
            on_load()
            if self._loaded is not None:
                self._loaded = None
                gc.collect()
            self._loaded = (name, self._loader(name))
        return self._loaded[1]

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
