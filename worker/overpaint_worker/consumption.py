"""What a worker takes from its queues: shares between priorities, and the mode in which one job has it alone."""

from __future__ import annotations

import logging
import threading
import time
import weakref
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

from celery import Celery, signals

from overpaint_common import wire
from overpaint_common.errors import BrokerUnavailable
from overpaint_common.job import PRIORITIES, Priority
from overpaint_worker.shares import Shares, Turns

log = logging.getLogger(__name__)

LOOK_AGAIN = 0.025
"""Seconds that the worker waits for tickets while it leaves out queues, which may be open again afterwards."""

POLL = 0.05
"""Seconds between two looks at whether the worker is alone."""

Claim = TypeVar("Claim")


@dataclass(frozen=True, slots=True)
class _Held:
    """A Celery request from its arrival to its end."""

    priority: Priority | None
    """None for a submission."""
    request: weakref.ref[Any]
    """Weak, so that what Celery forgets without running it, such as a call for later, holds no slot for ever."""


class Consumption:
    """Decides, each time before the worker waits for a ticket, in which queues it looks for one.

    kombu asks: its Redis transport lets a class order the queues (`queue_order_strategy`), and calls it in the
    consumer's thread right before each BRPOP. So no queue is ever cancelled or declared anew, a lost connection changes
    nothing, and no share is overstepped: between two BRPOPs at most one ticket arrives. What is in hand is counted by
    Celery's own signals, over all connections.
    """

    def __init__(self, models: Iterable[str], shares: Shares, *, leaving: threading.Event, submissions: bool) -> None:
        """Once `leaving` is set, nothing more is taken. `submissions`: whether to serve `wire.SUBMIT_QUEUE` too."""
        names = list(models)
        self._priorities: Mapping[str, Priority] = {
            wire.queue_name(model, priority): priority for priority in PRIORITIES for model in names
        }
        self.queues: tuple[str, ...] = ((wire.SUBMIT_QUEUE,) if submissions else ()) + tuple(self._priorities)
        self.received = 0
        """Tickets and submissions that have arrived."""
        self._shares = shares
        self._turns = Turns(self._priorities)
        self._leaving = leaving
        self._app: Any = None
        self._consumer: Any = None
        self._lock = threading.Lock()
        self._held: list[_Held] = []
        self._arriving = ""
        self._alone = False
        self._silent = threading.Event()

    def attach(self, app: Celery) -> None:
        """Rule over what `app`'s worker takes; to be called once, before the worker is made."""
        self._app = app
        app.conf.broker_transport_options = {
            **app.conf.broker_transport_options,
            "queue_order_strategy": lambda: _Cycle(self),
        }
        # Else Celery fetches less for a while after a lost connection, for the jobs in hand. They are counted here.
        app.conf.worker_enable_prefetch_count_reduction = False
        signals.task_received.connect(self._received)
        signals.task_postrun.connect(self._ended)
        signals.task_internal_error.connect(self._ended)

    @property
    def in_hand(self) -> Mapping[Priority, int]:
        """The jobs that have arrived and have not ended, by priority."""
        with self._lock:
            return self._count()[0]

    @property
    def is_alone(self) -> bool:
        """Whether nothing is taken because one job is to have the worker alone."""
        return self._alone

    def open_queues(self) -> list[str]:
        """The queues that a ticket may be taken from at this moment."""
        with self._lock:
            return self._open(self.queues)

    @contextmanager
    def alone(self, patience: float) -> Iterator[bool]:
        """Take nothing until the block ends; yields whether the worker is empty.

        Waits for the jobs in hand to end, up to `patience` seconds; gives up when the worker is leaving, and without
        Redis, where nobody can tell what is still to arrive. One caller at a time; raises RuntimeError for another.
        """
        with self._lock:
            if self._alone:
                raise RuntimeError("a job has the worker alone already; wait for its end")
            self._alone = True
            self._silent.clear()
        try:
            yield self._becomes_empty(patience)
        finally:
            self._alone = False

    def _becomes_empty(self, patience: float) -> bool:
        until = time.monotonic() + patience
        while not (self._silent.is_set() and self._is_empty()):
            if self._leaving.wait(POLL) or time.monotonic() > until:
                return False
        return not self._leaving.is_set()

    def _is_empty(self) -> bool:
        with self._lock:
            counts, submissions = self._count()
            return not submissions and not any(counts.values())

    def _count(self) -> tuple[Counter[Priority], int]:
        self._held = [held for held in self._held if held.request() is not None]
        return (
            Counter(held.priority for held in self._held if held.priority is not None),
            sum(held.priority is None for held in self._held),
        )

    def _open(self, queues: Iterable[str]) -> list[str]:
        if self._alone or self._leaving.is_set():
            return []
        jobs, submissions = self._count()
        return [queue for queue in queues if self._shares.admits(self._priorities.get(queue), jobs, submissions)]

    # What follows runs in the consumer's thread, except for _ended.

    def choose(self, queues: Sequence[str]) -> list[str]:
        """In which of the worker's queues to wait for the next ticket, and in which order."""
        with self._lock:
            chosen = self._turns.order(self._open(queues), self._count()[0])
            self._set_timeout(all_open=len(chosen) == len(queues))
            # kombu asks only when the last BRPOP is answered, so nothing can arrive any more.
            if self._alone:
                self._silent.set()
        return chosen

    def arrives(self, queue: str) -> None:
        """A message was found in `queue`; if it is a task, Celery tells so before anything else happens."""
        self.received += 1
        self._arriving = queue
        self._turns.taken(queue)

    def _received(self, sender: Any, request: Any, **_: Any) -> None:
        if sender.app is not self._app:
            return
        with self._lock:
            self._held.append(_Held(self._priorities.get(self._arriving), weakref.ref(request)))
            self._consumer = sender
            self._set_timeout(all_open=len(self._open(self.queues)) == len(self.queues))

    def _ended(self, sender: Any, task_id: str, **_: Any) -> None:
        """In a pool's thread. The acknowledgement that follows wakes the consumer, which then asks anew."""
        if sender.app is not self._app:
            return
        with self._lock:
            for held in self._held:
                request = held.request()
                if request is not None and request.id == task_id:
                    self._held.remove(held)
                    return

    def _set_timeout(self, *, all_open: bool) -> None:
        """A BRPOP cannot be called back, so one that leaves out queues is short."""
        channel = getattr(getattr(self._consumer, "task_consumer", None), "channel", None)
        # None of them is there before the first ticket, and the last one not between two connections.
        if channel is not None and channel.connection is not None:
            channel.brpop_timeout = channel.connection.brpop_timeout if all_open else LOOK_AGAIN


class _Cycle:
    """The class behind kombu's `queue_order_strategy`, one for each of its channels."""

    def __init__(self, consumption: Consumption) -> None:
        self._consumption = consumption
        self._queues: list[str] = []

    def update(self, queues: Iterable[str]) -> None:
        self._queues = list(queues)

    def consume(self, _: int) -> list[str]:
        return self._consumption.choose(self._queues)

    def rotate(self, queue: str) -> str:
        self._consumption.arrives(queue)
        return queue


class SoloLoop(Generic[Claim]):
    """Looks for suspects of a crash while the worker serves, and runs each with nothing beside it."""

    def __init__(
        self,
        consumption: Consumption,
        *,
        take: Callable[[], Claim | None],
        run: Callable[[Claim], None],
        give_back: Callable[[Claim], None],
        leaving: threading.Event,
        interval: float = 1.0,
        patience: float = 600.0,
    ) -> None:
        """`take` claims a suspect or finds none; `give_back` gets those that the worker could not be emptied for.

        That takes as long as the jobs in hand, at most `patience` seconds. Looks every `interval` seconds.
        """
        self._consumption = consumption
        self._take = take
        self._run_alone = run
        self._give_back = give_back
        self._leaving = leaving
        self._interval = interval
        self._patience = patience
        self._thread = threading.Thread(target=self._loop, name="solo", daemon=True)

    def start(self) -> None:
        self._thread.start()

    def join(self) -> None:
        """Wait for the end of the loop, which follows that of the job in hand once the worker is leaving."""
        self._thread.join()

    def _loop(self) -> None:
        while not self._leaving.wait(self._interval):
            try:
                claim = self._take()
            except BrokerUnavailable as error:
                log.warning("no look for suspects: %s", error)
                continue
            except Exception:
                log.exception("no look for suspects")
                continue
            if claim is not None:
                try:
                    self._serve(claim)
                except Exception:
                    log.exception("solo job failed")

    def _serve(self, claim: Claim) -> None:
        with self._consumption.alone(self._patience) as is_alone:
            if is_alone:
                self._run_alone(claim)
            else:
                self._give_back(claim)
