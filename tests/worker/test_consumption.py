"""What a real Celery worker takes from a real Redis, and when it takes nothing."""

from __future__ import annotations

import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from celery import Celery, signals
from celery.app.trace import reset_worker_optimizations
from celery.exceptions import Reject
from celery.worker import state
from redis import Redis

from overpaint_common import wire
from overpaint_common.errors import BrokerUnavailable
from overpaint_common.job import Priority
from overpaint_common.tickets import declaration, message
from overpaint_producer.local.redis import EmbeddedRedis
from overpaint_worker.consumption import Consumption, SoloLoop
from overpaint_worker.shares import Shares

pytestmark = [
    # Celery announces that a later release will cancel jobs whose connection was lost.
    pytest.mark.filterwarnings("ignore::celery.exceptions.CPendingDeprecationWarning"),
    # Containers run tests as root.
    pytest.mark.filterwarnings("ignore::celery.exceptions.SecurityWarning"),
]

SLOTS = 8
PATIENCE = 20.0
BULK, STANDARD, INTERACTIVE = (wire.queue_name("mini", p) for p in ("bulk", "standard", "interactive"))


@dataclass
class Fleet:
    """One worker whose jobs last until their queue's gate opens, and what became of them."""

    redis: EmbeddedRedis
    consumption: Consumption
    leaving: threading.Event
    gates: Mapping[str, threading.Event]
    changed: threading.Condition = field(default_factory=threading.Condition)
    running: Counter[str] = field(default_factory=Counter)
    most: Counter[str] = field(default_factory=Counter)
    most_at_once: int = 0
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
            self.most_at_once = max(self.most_at_once, self.running.total())
            self.changed.notify_all()
        self.gates[queue].wait(60)
        with self.changed:
            self.running[queue] -= 1
            self.ended[queue] += 1
            self.changed.notify_all()

    def send(self, queue: str, count: int = 1) -> None:
        task = wire.SUBMIT_TASK if queue == wire.SUBMIT_QUEUE else wire.RUN_TASK
        with Redis.from_url(self.redis.url) as client:
            client.lpush(queue, *(message(task, "[]", queue) for _ in range(count)))

    def waiting(self, queue: str) -> int:
        with Redis.from_url(self.redis.url) as client:
            length = client.llen(queue)
            assert isinstance(length, int)
            return length

    def until(self, what: Callable[[], bool], patience: float = PATIENCE) -> None:
        with self.changed:
            assert self.changed.wait_for(what, patience), (self.begun, self.running, self.ended)

    def until_held(self, **expected: int) -> None:
        """Until the counts of jobs in hand are these; the last of it follows a job's end without a sign."""
        until = time.monotonic() + PATIENCE
        while self.consumption.in_hand != expected:
            assert time.monotonic() < until, self.consumption.in_hand
            time.sleep(0.01)


@contextmanager
def serving(folder: Path, slots: int = SLOTS) -> Iterator[Fleet]:
    """A worker in a thread of this process, made as the worker's own process makes it."""
    leaving = threading.Event()
    consumption = Consumption(["mini"], Shares(slots), leaving=leaving, submissions=True)
    with EmbeddedRedis(folder / "redis", append_only=True) as redis:
        fleet = Fleet(redis, consumption, leaving, {queue: threading.Event() for queue in consumption.queues})
        app = Celery("overpaint", set_as_current=False, fixups=[])
        app.conf.update(wire.celery_settings(redis.url))
        app.conf.task_queues = [declaration(queue) for queue in consumption.queues]
        consumption.attach(app)

        def work(task: Any, *_: Any) -> None:
            fleet.work(task)

        for name in (wire.RUN_TASK, wire.SUBMIT_TASK):
            app.task(name=name, bind=True, shared=False)(work)
        ready = threading.Event()

        def is_ready(**_: Any) -> None:
            ready.set()

        signals.worker_ready.connect(is_ready)
        signals.setup_logging.connect(is_ready)
        worker = app.Worker(
            pool="threads", concurrency=slots, without_gossip=True, without_mingle=True, loglevel=None, quiet=True
        )
        ready.clear()
        thread = threading.Thread(target=worker.start, name="consumer", daemon=True)
        thread.start()
        try:
            assert ready.wait(PATIENCE)
            yield fleet
        finally:
            leaving.set()
            for gate in fleet.gates.values():
                gate.set()
            state.should_stop = 0
            thread.join(PATIENCE)
            state.should_stop = None
            reset_worker_optimizations(app)
            signals.setup_logging.disconnect(is_ready)
        assert not thread.is_alive()


def test_an_interactive_job_finds_a_slot_beside_a_full_load_of_bulk(tmp_path: Path) -> None:
    """Given 200 bulk tickets, when an interactive one comes, then it runs within a second, and bulk keeps its share."""
    with serving(tmp_path) as fleet:
        fleet.send(BULK, 200)
        fleet.until(lambda: fleet.running[BULK] == 6)
        sent = time.monotonic()
        fleet.send(INTERACTIVE)
        fleet.until(lambda: fleet.running[INTERACTIVE] == 1)
        assert fleet.begun[-1][1] - sent < 1
        fleet.send(STANDARD)
        fleet.until(lambda: fleet.running[STANDARD] == 1)
        assert fleet.consumption.in_hand == {"bulk": 6, "standard": 1, "interactive": 1}
        for queue in (INTERACTIVE, STANDARD, BULK):
            fleet.gates[queue].set()
        fleet.until(lambda: fleet.ended[BULK] == 200)
        fleet.until_held()
        assert fleet.most == {BULK: 6, STANDARD: 1, INTERACTIVE: 1}
