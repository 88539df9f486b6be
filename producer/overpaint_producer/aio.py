"""Submitting and following jobs from asyncio.

Calls run in a few threads of the producer's own, and whatever waits shares one more thread: a thousand tasks may wait
for a thousand jobs, in any number of event loops.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncGenerator
from contextlib import aclosing, suppress
from types import TracebackType
from typing import Self

# The first use of S3 imports it, and an import keeps the interpreter from the loop for long.
import boto3.session  # noqa: F401

from overpaint_common.errors import BrokerUnavailable, OverpaintError
from overpaint_common.live import Progress, last_moment
from overpaint_common.result import Result
from overpaint_common.settings import Settings
from overpaint_producer.handle import LEDGER_EVERY, JobHandle, record_if_any, timed_out
from overpaint_producer.offload import Offloading, Threads, offloaded, offloaded_into
from overpaint_producer.producer import Producer
from overpaint_producer.watching import Watcher

CALLS = 8
"""Calls that run at once, unless told otherwise."""

LOOKS = 4
"""Looks at the ledger that run at once for all that wait."""

WARM_UP = 5.0
"""Seconds that entering waits for Redis and storage."""

QUIET = 1.0
"""Seconds without a moment after which the ledger is asked."""

LATE = 2.0
"""Seconds beyond the caller's own limit that a look at the ledger may take before it counts as in vain."""


class AsyncJobHandle(Offloading):
    """One accepted job, as `JobHandle` has it, for asyncio."""

    def __init__(self, blocking: JobHandle, producer: Producer, threads: Threads, watcher: Watcher) -> None:
        super().__init__(blocking, threads)
        self.blocking = blocking
        """The same handle for threads: its calls block."""
        self._ledger = producer.ledger
        self._watcher = watcher

    def __repr__(self) -> str:
        return f"AsyncJobHandle({self.id!r})"

    @property
    def id(self) -> str:
        return self.blocking.id

    @property
    def not_queued(self) -> BrokerUnavailable | None:
        """See `JobHandle.not_queued`."""
        return self.blocking.not_queued

    status = offloaded(JobHandle.status)
    preview = offloaded(JobHandle.preview)
    result = offloaded(JobHandle.result)
    pictures = offloaded(JobHandle.pictures)
    intermediates = offloaded(JobHandle.intermediates)
    urls = offloaded(JobHandle.urls)
    cancel = offloaded(JobHandle.cancel)

    async def progress(self, timeout: float | None = None) -> AsyncGenerator[Progress, None]:
        """Yield every moment of the job as it happens, ending with the final one: see `JobHandle.progress`.

        Raises WaitTimeout after `timeout` seconds, and within LATE more while storage does not answer.
        """
        async with aclosing(self._follow(timeout)) as following:
            async for moment, _ in following:
                yield moment

    async def wait(self, timeout: float | None = None) -> Result:
        """The record, as soon as there is one, whatever the end; raises WaitTimeout as `progress` does.

        No thread waits meanwhile, and a task that is cancelled leaves nothing behind.
        """
        async with aclosing(self._follow(timeout)) as following:
            async for _, record in following:
                if record is not None:
                    return record
        raise AssertionError("unreachable")

    async def _follow(self, timeout: float | None) -> AsyncGenerator[tuple[Progress, Result | None], None]:
        """Every moment; with the last one comes the record."""
        began = time.monotonic()
        deadline = float("inf") if timeout is None else began + timeout
        with self._watcher.watch(self.id) as watch, self._watcher.look(began + QUIET) as look:
            heard, looked = began, False
            while True:
                # The ledger is asked at least once, however short the time.
                if looked and time.monotonic() > deadline:
                    raise timed_out(self.id, timeout)
                moments = await watch.next(min(look.at, deadline))
                for moment in moments:
                    if not moment.finished:
                        yield moment, None
                now = time.monotonic()
                heard = now if moments else heard
                ended = any(moment.finished for moment in moments)
                late = now >= deadline and not looked
                if ended or late or (now >= look.at and now - heard >= QUIET):
                    looked = True
                    record = await self._record(deadline)
                    if record is not None:
                        yield last_moment(record), record
                        return
                    now = time.monotonic()
                if now >= look.at or ended:
                    look.move(self._watcher.later_looks, now + LEDGER_EVERY)

    async def _record(self, deadline: float) -> Result | None:
        """None also where the look has not ended LATE seconds after the deadline, or not even begun."""
        with suppress(TimeoutError):
            async with asyncio.timeout(
                None if deadline == float("inf") else max(0.0, deadline - time.monotonic()) + LATE
            ):
                return await self._threads.look(record_if_any, self._ledger, self.id)
        return None


class AsyncProducer(Offloading):
    """Submits jobs and finds them again, as `Producer` does, for asyncio.

    Every method takes what the method of the same name takes there, and raises the same. To be used in any number of
    event loops and closed at the end, as by `async with`. A task that is cancelled while it submits may have submitted.
    """

    def __init__(self, settings: Settings | None = None, *, threads: int = CALLS) -> None:
        """Take `settings`, or read them from the environment; raises SettingsError if they are incomplete.

        At most `threads` calls run at once, and others wait their turn. The more of them compute at the same time, the
        longer the loop may have to wait for the interpreter: 5 ms for each.
        """
        self._stand_for(Producer(settings), threads)

    @classmethod
    def of(cls, blocking: Producer, *, threads: int = CALLS) -> Self:
        """The producer for asyncio that uses one for threads, and closes it at its own end."""
        made = cls.__new__(cls)
        made._stand_for(blocking, threads)
        return made

    def _stand_for(self, blocking: Producer, threads: int) -> None:
        super().__init__(blocking, Threads(threads, LOOKS))
        self.blocking = blocking
        """The same producer for threads: its calls block."""
        self._watcher = Watcher(blocking.live, self._threads.spawn)

    def _handle(self, handle: JobHandle) -> AsyncJobHandle:
        return AsyncJobHandle(handle, self.blocking, self._threads, self._watcher)

    def _handles(self, handles: list[JobHandle]) -> list[AsyncJobHandle]:
        return [self._handle(handle) for handle in handles]

    submit = offloaded_into(Producer.submit, _handle)
    upload = offloaded(Producer.upload)
    submit_many = offloaded_into(Producer.submit_many, _handles)
    repaint = offloaded_into(Producer.repaint, _handle)
    img2img = offloaded_into(Producer.img2img, _handle)
    inpaint = offloaded_into(Producer.inpaint, _handle)
    refine = offloaded_into(Producer.refine, _handle)
    restyle = offloaded_into(Producer.restyle, _handles)
    compose = offloaded(Producer.compose)
    only_model = offloaded(Producer.only_model)
    handle = offloaded_into(Producer.handle, _handle)
    jobs = offloaded(Producer.jobs)

    @property
    def waiting(self) -> int:
        """How many tasks wait for jobs, or follow them."""
        return self._watcher.watched

    async def close(self) -> None:
        """Close the connections, once the calls that run have ended.

        Those whose turn has not come, and whatever still waits for jobs, end with a RuntimeError.
        """
        await asyncio.to_thread(self._close)

    def _close(self) -> None:
        self._watcher.close()
        self._threads.close()
        self.blocking.close()

    async def __aenter__(self) -> Self:
        """Connect, so that no call meets what only the first one costs; for at most WARM_UP seconds."""
        with suppress(TimeoutError):
            async with asyncio.timeout(WARM_UP):
                await self._threads.look(self._warm_up)
        return self

    def _warm_up(self) -> None:
        # Whatever fails here fails at the first call, too, and is told there.
        with suppress(OverpaintError):
            self.blocking.ledger.record("warm-up")
        with suppress(OverpaintError):
            self.blocking.live.ping()

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close()
