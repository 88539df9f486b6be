"""A real Celery worker in this process, whose jobs do nothing but last, on a real Redis."""

from __future__ import annotations

import threading
import time
import warnings
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from celery import Celery, signals
from celery.app.trace import reset_worker_optimizations
from celery.exceptions import CPendingDeprecationWarning, Reject, SecurityWarning
from celery.worker import state
from redis import Redis

from overpaint_common import wire
from overpaint_common.tickets import declaration, message
from overpaint_producer.local.redis import EmbeddedRedis
from overpaint_worker.consumption import Consumption
from overpaint_worker.shares import Shares

SLOTS = 8
PATIENCE = 20.0
BULK, STANDARD, INTERACTIVE = (wire.queue_name("mini", p) for p in ("bulk", "standard", "interactive"))


@dataclass
class BusyWorker:
    """One worker whose jobs last until their queue's gate opens, and what became of them."""

    redis: EmbeddedRedis
    consumption: Consumption
    leaving: threading.Event
    gates: dict[str, threading.Event]
    changed: threading.Condition = field(default_factory=threading.Condition)
    running: Counter[str] = field(default_factory=Counter)
    most: Counter[str] = field(default_factory=Counter)
    most_held: int = 0
    begun: list[tuple[str, float]] = field(default_factory=list)
    ended: Counter[str] = field(default_factory=Counter)

    def work(self, task: Any) -> None:
        """The body of the task."""
        if self.leaving.is_set():
            raise Reject("leaving", requeue=True)
        queue = task.request.delivery_info["routing_key"]
        with self.changed:
            self.begun.append((queue, time.monotonic()))
            self.running[queue] += 1
            self.most[queue] = max(self.most[queue], self.running[queue])
            self.changed.notify_all()
            gate = self.gates[queue]
        gate.wait(60)
        with self.changed:
            self.running[queue] -= 1
            self.ended[queue] += 1
            self.changed.notify_all()

    def received(self, **_: Any) -> None:
        """Celery's signal, in the consumer's thread."""
        self.most_held = max(self.most_held, sum(self.consumption.in_hand.values()))

    def send(self, queue: str, count: int = 1) -> None:
        task = wire.SUBMIT_TASK if queue == wire.SUBMIT_QUEUE else wire.RUN_TASK
        with Redis.from_url(self.redis.url) as client:
            client.lpush(queue, *(message(task, "[]", queue) for _ in range(count)))

    def waiting(self, queue: str) -> int:
        with Redis.from_url(self.redis.url) as client:
            length = client.llen(queue)
            assert isinstance(length, int)
            return length

    def end_jobs(self, queue: str) -> None:
        """Those at work; jobs that begin afterwards last again."""
        with self.changed:
            self.gates[queue].set()
            self.gates[queue] = threading.Event()

    def nothing_begins(self, seconds: float) -> bool:
        with self.changed:
            before = len(self.begun)
            return not self.changed.wait_for(lambda: len(self.begun) > before, seconds)

    def until(self, what: Callable[[], bool], patience: float = PATIENCE) -> None:
        with self.changed:
            assert self.changed.wait_for(what, patience), (self.begun, self.running, self.ended)

    def until_running(self, jobs: int) -> None:
        self.until(lambda: self.running.total() == jobs)

    def until_begun(self, jobs: int) -> None:
        """Jobs so far, those that have ended included."""
        self.until(lambda: len(self.begun) == jobs)

    def until_it_waits(self) -> None:
        """Until Redis holds the worker's BRPOP, which it then does for up to a second."""
        with Redis.from_url(self.redis.url) as client:
            while not client.info("clients")["blocked_clients"]:
                time.sleep(0.001)

    def until_held(self, **expected: int) -> None:
        """Until the counts of jobs in hand are these: they fall right after a job's body has ended."""
        until = time.monotonic() + PATIENCE
        while self.consumption.in_hand != expected:
            assert time.monotonic() < until, self.consumption.in_hand
            time.sleep(0.01)


@contextmanager
def serving(folder: Path, slots: int = SLOTS) -> Iterator[BusyWorker]:
    """A worker in a thread of this process, made as the worker's own process makes it; ends in order."""
    leaving = threading.Event()
    consumption = Consumption(["mini"], Shares(slots), leaving=leaving, submissions=True)
    with EmbeddedRedis(folder / "redis", append_only=True) as redis:
        busy = BusyWorker(redis, consumption, leaving, {queue: threading.Event() for queue in consumption.queues})
        app = _app(busy)
        with connected(signals.setup_logging, lambda **_: None), connected(signals.task_received, busy.received):
            worker = _worker(app, slots)
            ready = threading.Event()
            thread = threading.Thread(target=worker.start, name="consumer", daemon=True)
            try:
                with connected(signals.worker_ready, lambda **_: ready.set()):
                    thread.start()
                    assert ready.wait(PATIENCE)
                yield busy
            finally:
                leaving.set()
                for gate in busy.gates.values():
                    gate.set()
                state.should_stop = 0
                worker.hub.call_soon(lambda: None)
                thread.join(PATIENCE)
                state.should_stop = None
                reset_worker_optimizations(app)
        assert not thread.is_alive()


def _worker(app: Celery, slots: int) -> Any:
    with warnings.catch_warnings():
        # Containers run tests as root.
        warnings.simplefilter("ignore", SecurityWarning)
        worker = app.Worker(
            pool="threads", concurrency=slots, without_gossip=True, without_mingle=True, loglevel=None, quiet=True
        )
    # Celery announces that a later release will cancel jobs whose connection was lost.
    warnings.simplefilter("ignore", CPendingDeprecationWarning)
    return worker


def _app(busy: BusyWorker) -> Celery:
    app = Celery("overpaint", set_as_current=False, fixups=[])
    app.conf.update(wire.celery_settings(busy.redis.url))
    app.conf.worker_redirect_stdouts = False
    app.conf.task_queues = [declaration(queue) for queue in busy.consumption.queues]
    busy.consumption.attach(app)

    def work(task: Any, *_: Any) -> None:
        busy.work(task)

    for name in (wire.RUN_TASK, wire.SUBMIT_TASK):
        app.task(name=name, bind=True, shared=False)(work)
    return app


@contextmanager
def connected(signal: Any, receiver: Callable[..., None]) -> Iterator[None]:
    """One of Celery's signals reaches `receiver` until the block ends."""
    signal.connect(receiver, weak=False)
    try:
        yield
    finally:
        signal.disconnect(receiver)
