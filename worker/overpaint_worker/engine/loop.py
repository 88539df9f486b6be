"""The loop on the engine's thread: admit, gather rows, one forward, scatter, retire. Torch-free."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from typing import Any

from overpaint_common.errors import EngineDied, JobCancelled, OverpaintError
from overpaint_common.job import PRIORITIES, Priority
from overpaint_worker.engine.calls import Call, Made, Model, Painted
from overpaint_worker.engine.failures import as_outcome, describe, out_of_memory, poisons_device
from overpaint_worker.engine.residents import Residents
from overpaint_worker.engine.routines import Routine, Turn, wait
from overpaint_worker.engine.statistics import CacheUse, Statistics
from overpaint_worker.engine.turns import Claim, TurnQueue

log = logging.getLogger(__name__)

NEVER_BEGUN = "cancelled while waiting for the engine"

Resolve = Callable[[Painted | OverpaintError], None]


@dataclass(slots=True, eq=False)
class _Task:
    """A call that was admitted."""

    call: Call
    resolve: Resolve
    model: Model
    arrival: int
    begins: Turn
    """Stands for its beginning."""
    routine: Routine[Made] | None = None
    outcome: Painted | OverpaintError | None = None
    started_at: datetime = field(default_factory=lambda: datetime.now(UTC))
    steps: int = 0
    rows: int = 1
    """Of the largest forward that it was in."""
    seconds: float = 0.0
    """Its share of the turns that it was in."""
    shared: bool = False
    """Whether it handed out a turn since its last step."""

    @property
    def turn(self) -> Turn:
        return self.begins if self.routine is None or self.routine.turn is None else self.routine.turn


class Loop:
    """The calls that are under way.

    Every call runs as a routine. In the stepped lane it hands out a turn whenever it wants a network computed, and
    turns of one group, of whichever calls, are computed together. In the whole lane it computes by itself and its
    turns are its steps; such calls of one model and priority go one after another.
    """

    def __init__(self, residents: Residents, enter: Callable[[str], None], dead: Callable[[], str | None]) -> None:
        """`enter` is told each phase that begins; `dead` tells why the engine is gone, once it is."""
        self._residents = residents
        self._enter = enter
        self._dead = dead
        self._queue: TurnQueue[_Task] = TurnQueue()
        self._tasks: dict[_Task, None] = {}
        self._most: dict[Hashable, int] = {}
        """Rows of a forward, by group, since a larger one ran out of memory."""
        self._arrivals = 0
        self._forwards = self._rows = self._padded = 0
        self.busy = 0.0
        """Seconds of all turns and loadings so far."""
        self.load_seconds = 1.0
        """Of the last loading."""

    def __len__(self) -> int:
        return len(self._tasks)

    @property
    def models(self) -> set[str]:
        """Those of the calls under way."""
        return {task.call.model for task in self._tasks}

    def is_less_urgent(self, priority: Priority) -> bool:
        """Whether all calls under way are less urgent than that."""
        return all(PRIORITIES.index(task.call.priority) > PRIORITIES.index(priority) for task in self._tasks)

    def load(self, name: str, on_load: Callable[[], None] = lambda: None) -> Model:
        """The model, loaded if it is not yet. Raises what the loader raises."""
        if name in self._residents:
            return self._residents.use(name)
        self._enter("load")
        on_load()
        began = time.monotonic()
        try:
            return self._residents.load(name, self.models)
        finally:
            self.load_seconds = time.monotonic() - began
            self.busy += self.load_seconds

    def admit(self, call: Call, resolve: Resolve) -> None:
        """Take in a call, whose model is loaded first if need be; it begins with one of the next steps."""
        try:
            model = self.load(call.model, lambda: call.on_progress("load", 0))
            lane = "begin" if model.stepped(call) else "whole"
        except Exception as error:
            resolve(as_outcome(error))
            return
        task = _Task(call, resolve, model, self._arrivals, Turn((call.model, lane), _nothing, alone=True))
        self._arrivals += 1
        self._tasks[task] = None
        self._put(task)

    def step(self) -> None:
        """Compute the turns that are next, and let their calls go on, each up to its next one."""
        self._drop(lambda task: task.call.cancelled.is_set(), _cancelled)
        batch = self._queue.next()
        if not batch:
            return
        self._enter("denoise")
        claims, tasks = [claim for claim, _ in batch], [task for _, task in batch]
        rows = sum(claim.rows for claim in claims)
        began = time.monotonic()
        for task, result in zip(tasks, self._results(tasks), strict=True):
            if not isinstance(result, _Again):
                task.rows = max(task.rows, rows)
                self._go_on(task, result)
        seconds = time.monotonic() - began
        self.busy += seconds
        self._queue.charge(claims, seconds)
        for claim, task in batch:
            task.seconds += seconds * claim.rows / rows
            self._settle(task)

    def end(self, reason: str, *, begun: bool) -> None:
        """End the calls that have not begun, and with `begun` the others too, with EngineDied."""
        gone = f"the engine is gone: {reason}; the job goes back to the queue"
        self._drop(lambda task: begun or task.routine is None, lambda _: EngineDied(gone))

    def statistics(self, idle: float) -> Statistics:
        """So far; `idle` are the seconds without a call."""
        caches: dict[str, CacheUse] = {}
        for model in list(self._residents):
            for name, use in model.caches().items():
                caches[name] = caches.get(name, CacheUse()) + use
        return Statistics(self._forwards, self._rows, self._padded, self.busy, idle, caches)

    def _put(self, task: _Task) -> None:
        turn = task.turn
        most = min(turn.most, self._most.get(turn.group, turn.most))
        self._queue.put(task, Claim(turn.group, turn.rows, most, turn.alone, task.call.priority, task.arrival))

    def _drop(self, wanted: Callable[[_Task], bool], why: Callable[[_Task], OverpaintError]) -> None:
        for task in self._queue.take(wanted):
            if task.routine is not None:
                self._go_on(task, why(task))
            task.outcome = task.outcome or why(task)
            self._settle(task)

    def _results(self, tasks: Sequence[_Task]) -> Sequence[Any]:
        """A result for each task's turn, the exception that it ended with, or `_Again`."""
        turns = [task.turn for task in tasks]
        turn = turns[0]
        rows = sum(each.rows for each in turns)
        try:
            results = turn.compute([each.wanted for each in turns])
        except Exception as error:
            if poisons_device(error):
                raise
            if len(tasks) == 1:
                return [error]
            # Not the error itself, whose frames hold tensors.
            log.warning("forward of %d rows failed: %s", rows, describe(error))
            if out_of_memory(error):
                self._most[turn.group] = min(max(1, rows // 2), self._most.get(turn.group, rows))
                return [_Again() for _ in tasks]
        else:
            if turn.bucket is not None:
                self._forwards += 1
                self._rows += rows
                self._padded += turn.bucket(rows) - rows
            return results
        # One of them may be to blame: by itself, it takes no other along.
        return [self._results([task])[0] for task in tasks]

    def _go_on(self, task: _Task, result: Any = None) -> None:
        try:
            made = self._up_to_next_turn(task, result)
        except Exception as error:
            task.outcome = as_outcome(error)
            return
        if made is not None:
            info, rows = task.model.info, max(task.rows, made.rows)
            task.outcome = Painted(
                pixels=made.pixels,
                model=info,
                steps=task.steps,
                rows=rows,
                started_at=task.started_at,
                seconds=task.seconds,
                warnings=made.warnings,
                scheduler=made.scheduler or info.scheduler,
            )

    def _up_to_next_turn(self, task: _Task, result: Any) -> Made | None:
        if task.routine is None:
            task.started_at = datetime.now(UTC)
            task.routine = Routine(lambda: self._paint(task))
            return task.routine.go_on()
        task.shared = task.turn is not task.begins
        if isinstance(result, Exception):
            return task.routine.fail(result)
        return task.routine.go_on(result)

    def _paint(self, task: _Task) -> Made:
        call = task.call
        call.on_progress("denoise", 0)

        def on_step(steps: int) -> None:
            self._enter("denoise")
            if steps != task.steps:
                task.steps = steps
                call.on_progress("denoise", steps)
            if call.cancelled.is_set():
                raise _cancelled(task)
            dead = self._dead()
            if dead is not None:
                raise EngineDied(f"the engine is gone: {dead}")
            if not task.shared:
                wait(task.begins)
            task.shared = False

        return task.model.run(call, on_step)

    def _settle(self, task: _Task) -> None:
        if task.outcome is None:
            self._put(task)
            return
        del self._tasks[task]
        # It refers to the task in turn, and what it holds is large.
        task.routine = None
        outcome = task.outcome
        task.resolve(replace(outcome, seconds=task.seconds) if isinstance(outcome, Painted) else outcome)


class _Again:
    """Stands for the result of a turn that is to be computed once more."""


def _nothing(wanted: Sequence[Any]) -> Sequence[Any]:
    return [None for _ in wanted]


def _cancelled(task: _Task) -> JobCancelled:
    return JobCancelled(NEVER_BEGUN if task.routine is None else f"cancelled at step {task.steps}")
