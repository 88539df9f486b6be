"""The producer for asyncio: the same calls and moments as the one for threads, and many that wait at once."""

from __future__ import annotations

import asyncio
import contextvars
import inspect
import itertools
import threading
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest
from PIL import Image

from overpaint_common.errors import DeviceOutOfMemory, ObjectNotFound, StorageUnavailable, UnknownModel, WaitTimeout
from overpaint_common.references import Reference
from overpaint_common.storage import MemoryStore
from overpaint_producer import AsyncJobHandle, AsyncProducer, JobHandle, Producer, aio, watching
from overpaint_producer.offload import Threads
from overpaint_producer.testing import AsyncInMemoryProducer, InMemoryProducer
from tests.producer.backends import Backend
from tests.producer.test_contract import submit

RED = Image.new("RGB", (8, 8), (255, 0, 0))
LIMIT = 60.0
"""Seconds after which a wait has hung."""


@asynccontextmanager
async def asynchronous(backend: Backend) -> AsyncIterator[AsyncProducer]:
    """The backend's producer for asyncio; the backend itself is usable afterwards."""
    async with AsyncProducer.of(backend.producer) as producer:
        yield producer


def watchers() -> list[threading.Thread]:
    return [thread for thread in threading.enumerate() if thread.name == "overpaint-watch"]


async def waits_begin(producer: AsyncProducer, number: int) -> None:
    """Until so many wait and their first read is under way."""
    while producer.waiting < number:
        await asyncio.sleep(0.01)


def reads(backend: Backend, monkeypatch: pytest.MonkeyPatch) -> threading.Semaphore:
    """Released whenever a read of the watcher begins."""
    begun, read = threading.Semaphore(0), backend.producer.live.events_of

    def counted(*args: Any, **options: Any) -> Any:
        begun.release()
        return read(*args, **options)

    monkeypatch.setattr(backend.producer.live, "events_of", counted)
    return begun


def public(kind: type) -> set[str]:
    return {name for name, member in inspect.getmembers(kind, callable) if not name.startswith("_")}


@pytest.mark.parametrize(
    ("blocking", "twin"),
    [(Producer, AsyncProducer), (JobHandle, AsyncJobHandle), (InMemoryProducer, AsyncInMemoryProducer)],
)
def test_every_method_has_its_twin_with_the_same_parameters(blocking: type, twin: type) -> None:
    wanted = public(blocking)

    assert wanted <= public(twin)
    for name in wanted:
        ours, theirs = (inspect.signature(getattr(kind, name)) for kind in (twin, blocking))
        assert list(ours.parameters.values()) == list(theirs.parameters.values()), name


def test_calls_give_and_raise_what_those_for_threads_do(backend: Backend) -> None:
    async def run() -> None:
        async with asynchronous(backend) as producer:
            job = await producer.img2img(backend.source(), prompt="a house", output=backend.output, steps=10)
            assert (await job.status()).state == "queued"
            assert [each.id for each in await producer.jobs()] == [job.id]
            backend.finish(job.id, [RED])
            (made,) = await (await producer.handle(job.id)).pictures()
            assert made.getpixel((0, 0)) == (255, 0, 0)
            with pytest.raises(UnknownModel):
                await producer.img2img(backend.source(), prompt="a house", output=backend.output, model="unheard-of")
            with pytest.raises(ObjectNotFound):
                await producer.handle("unknown-id")

    asyncio.run(run())


def test_progress_tells_what_it_tells_to_threads(backend: Backend) -> None:
    job = submit(backend)
    backend.worker.report(job.id, 3)

    async def run() -> list[Any]:
        async with asynchronous(backend) as producer:
            moments = []
            async for moment in (await producer.handle(job.id)).progress(timeout=LIMIT):
                moments.append(moment)
                if moment.step == 3:
                    await asyncio.to_thread(backend.finish, job.id, [RED])
            return moments

    assert asyncio.run(run()) == list(job.progress(timeout=LIMIT))


def test_a_hundred_waits_end_with_their_own_records_and_share_one_thread(real: Backend) -> None:
    jobs = [submit(real, source=str(real.root.join("in", "missing.png"))) for _ in range(100)]

    async def run() -> None:
        before = threading.active_count()
        async with asynchronous(real) as producer:
            handles = [await producer.handle(job.id) for job in jobs]
            waiting = [asyncio.create_task(handle.wait(timeout=LIMIT)) for handle in handles]
            await waits_begin(producer, 100)
            assert threading.active_count() <= before + aio.CALLS + aio.LOOKS + 1
            assert len(watchers()) == 1
            for number, job in enumerate(jobs):
                if number % 2:
                    await asyncio.to_thread(real.worker.report, job.id, 1)
                await asyncio.to_thread(real.finish, job.id, [RED])
            records = await asyncio.gather(*waiting)
        assert [record.job_id for record in records] == [job.id for job in jobs]
        assert {record.status for record in records} == {"succeeded"}

    asyncio.run(run())


def test_a_wait_that_begins_while_others_wait_does_not_stand_behind_them(
    memory: Backend, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Given a read that lasts an hour and no look at the ledger, when a job joins, then its end is seen at once."""
    monkeypatch.setattr(watching, "BLOCK", 3600.0)
    monkeypatch.setattr(aio, "QUIET", 3600.0)
    begun = reads(memory, monkeypatch)
    first, second = submit(memory), submit(memory)
    memory.finish(second.id, [RED])

    async def run() -> None:
        async with asynchronous(memory) as producer:
            endless = asyncio.create_task((await producer.handle(first.id)).wait())
            for _ in range(2):  # The first one finds the first job's first moment, the second one waits.
                await asyncio.to_thread(begun.acquire)
            record = await (await producer.handle(second.id)).wait(timeout=LIMIT)
            assert record.status == "succeeded"
            memory.finish(first.id, [RED])
            assert (await endless).status == "succeeded"

    asyncio.run(run())


def test_a_wait_times_out_as_those_of_threads_do(backend: Backend) -> None:
    job = submit(backend)

    async def run() -> None:
        async with asynchronous(backend) as producer:
            await (await producer.handle(job.id)).wait(timeout=0.05)

    with pytest.raises(WaitTimeout, match=rf"job {job.id} did not finish within 0\.05 s; it goes on"):
        asyncio.run(run())


def test_a_wait_of_no_time_looks_once(backend: Backend) -> None:
    open_one, ended = submit(backend), submit(backend)
    record = backend.finish(ended.id, [RED])

    async def run() -> None:
        async with asynchronous(backend) as producer:
            assert await (await producer.handle(ended.id)).wait(timeout=0) == record
            with pytest.raises(WaitTimeout):
                await (await producer.handle(open_one.id)).wait(timeout=0)

    asyncio.run(run())


def test_a_cancelled_wait_leaves_nothing_behind(memory: Backend) -> None:
    job = submit(memory)

    async def run() -> None:
        async with asynchronous(memory) as producer:
            waiting = asyncio.create_task((await producer.handle(job.id)).wait())
            await waits_begin(producer, 1)
            waiting.cancel()
            with pytest.raises(asyncio.CancelledError):
                await waiting
            assert producer.waiting == 0
            (watcher,) = watchers()
            await asyncio.to_thread(watcher.join, LIMIT)
            assert not watchers()

    asyncio.run(run())


def test_leaving_the_progress_early_leaves_nothing_behind(memory: Backend) -> None:
    job = submit(memory)

    async def run() -> None:
        async with asynchronous(memory) as producer:
            progress = (await producer.handle(job.id)).progress()
            async for moment in progress:
                assert moment.state == "queued"
                break
            await progress.aclose()
            assert producer.waiting == 0

    asyncio.run(run())


def test_while_redis_is_down_the_end_comes_from_the_ledger(backend: Backend) -> None:
    job = submit(backend)

    async def run() -> None:
        async with asynchronous(backend) as producer:
            waiting = asyncio.create_task((await producer.handle(job.id)).wait(timeout=LIMIT))
            await waits_begin(producer, 1)
            with backend.outage():
                record = await asyncio.to_thread(backend.finish, job.id, [RED])
                assert await waiting == record

    asyncio.run(run())


class Silent(MemoryStore):
    """A store whose reads, while told so, do not come back."""

    def __init__(self) -> None:
        super().__init__()
        self.answers = threading.Event()
        self.answers.set()

    def read(self, reference: Reference, *, limit: int) -> bytes:
        assert self.answers.wait(LIMIT)
        return super().read(reference, limit=limit)


def test_waits_time_out_while_storage_is_silent(monkeypatch: pytest.MonkeyPatch) -> None:
    """Given more waits than threads that look, and looks that never end, then all of them time out nonetheless."""
    monkeypatch.setattr(aio, "LATE", 0.01)
    store = Silent()
    with InMemoryProducer(store=store) as blocking:
        jobs = [blocking.img2img("s3://photos/cat.png", prompt="a cat", output="s3://pictures/") for _ in range(9)]

        async def run() -> list[Any]:
            async with AsyncInMemoryProducer(blocking) as producer:
                handles = [await producer.handle(job.id) for job in jobs]
                store.answers.clear()
                try:
                    async with asyncio.timeout(LIMIT / 4):
                        return await asyncio.gather(*(it.wait(timeout=0.01) for it in handles), return_exceptions=True)
                finally:
                    store.answers.set()

        assert [type(each) for each in asyncio.run(run())] == [WaitTimeout] * 9


class Failing(MemoryStore):
    """A store that does not answer while told so."""

    def __init__(self) -> None:
        super().__init__()
        self.down = False
        self.refused = 0

    def read(self, reference: Reference, *, limit: int) -> bytes:
        if self.down:
            self.refused += 1
            raise StorageUnavailable(f"cannot read {reference}: the test said so; try again later")
        return super().read(reference, limit=limit)


def test_while_redis_and_storage_are_down_it_goes_on_asking(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(aio, "QUIET", 0.01)
    monkeypatch.setattr(aio, "LEDGER_EVERY", 0.01)
    store = Failing()
    with InMemoryProducer(store=store) as blocking:
        job = blocking.img2img("s3://photos/cat.png", prompt="a cat", output="s3://pictures/")

        async def run() -> None:
            async with AsyncInMemoryProducer(blocking) as producer:
                handle = await producer.handle(job.id)
                with blocking.outage():
                    await asyncio.to_thread(blocking.finish, job)
                    store.down = True
                    waiting = asyncio.create_task(handle.wait(timeout=LIMIT))
                    while store.refused < 3:
                        await asyncio.sleep(0.01)
                    store.down = False
                    assert (await waiting).status == "succeeded"

        asyncio.run(run())


def test_event_loops_of_several_threads_share_one_producer(memory: Backend) -> None:
    jobs = [submit(memory) for _ in range(3)]
    producer = AsyncProducer.of(memory.producer)
    ended: list[str] = []

    async def wait(job_id: str) -> None:
        ended.append((await (await producer.handle(job_id)).wait(timeout=LIMIT)).job_id)

    threads = [threading.Thread(target=asyncio.run, args=(wait(job.id),)) for job in jobs]
    for thread in threads:
        thread.start()

    async def finish() -> None:
        await waits_begin(producer, 3)
        for job in jobs:
            memory.finish(job.id, [RED])
        for thread in threads:
            await asyncio.to_thread(thread.join)
        await producer.close()

    asyncio.run(finish())
    assert sorted(ended) == sorted(job.id for job in jobs)


def test_two_tasks_that_follow_one_job_are_both_told_everything(memory: Backend) -> None:
    job = submit(memory)

    async def run() -> None:
        async with asynchronous(memory) as producer:
            handle = await producer.handle(job.id)

            async def follow() -> list[int]:
                return [moment.step async for moment in handle.progress(timeout=LIMIT)]

            early = asyncio.create_task(follow())
            await waits_begin(producer, 1)
            await asyncio.to_thread(memory.worker.report, job.id, 2)
            late = asyncio.create_task(follow())
            await waits_begin(producer, 2)
            await asyncio.to_thread(memory.finish, job.id, [RED])
            assert await early == await late == [0, 2, 5, 5]

    asyncio.run(run())


def test_one_that_joins_in_the_middle_of_a_read_misses_nothing(
    memory: Backend, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Given a read from behind a job's first events on, when another task joins before it ends, it has them all."""
    monkeypatch.setattr(watching.Watcher, "_nudge", lambda _: None)
    begun = reads(memory, monkeypatch)
    job = submit(memory)

    async def run() -> None:
        async with asynchronous(memory) as producer:
            handle = await producer.handle(job.id)
            early = handle.progress(timeout=LIMIT)
            assert (await anext(early)).state == "queued"
            for _ in range(2):
                await asyncio.to_thread(begun.acquire)
            late = handle.progress(timeout=LIMIT)
            joining = asyncio.ensure_future(anext(late))
            await waits_begin(producer, 2)
            await asyncio.to_thread(memory.worker.report, job.id, 2)
            assert (await joining).state == "queued"
            assert (await anext(late)).step == (await anext(early)).step == 2
            await early.aclose()
            await late.aclose()

    asyncio.run(run())


def test_closing_ends_what_still_waits(memory: Backend) -> None:
    job = submit(memory)

    async def run() -> None:
        producer = AsyncProducer.of(memory.producer)
        waiting = asyncio.create_task((await producer.handle(job.id)).wait())
        await waits_begin(producer, 1)
        await producer.close()
        with pytest.raises(RuntimeError, match="was closed while job"):
            await waiting
        with pytest.raises(RuntimeError):
            await producer.handle(job.id)

    asyncio.run(run())
    assert not watchers()


def test_closing_ends_the_calls_whose_turn_has_not_come() -> None:
    """Given one thread, a call that runs and one behind it, when they are closed, only the first one comes to run."""
    begun, released, ran = threading.Event(), threading.Event(), threading.Event()

    def first() -> str:
        begun.set()
        assert released.wait(LIMIT)
        return "done"

    async def looks(threads: Threads) -> None:
        while True:
            await threads.look(int)

    async def run() -> None:
        threads = Threads(calls=1, looks=1)
        running = asyncio.create_task(threads.call(first))
        await asyncio.to_thread(begun.wait)
        queued = asyncio.create_task(threads.call(ran.set))
        await asyncio.sleep(0)
        closing = asyncio.create_task(asyncio.to_thread(threads.close))
        try:
            with pytest.raises(RuntimeError, match="closed before this call began"):
                await asyncio.wait_for(looks(threads), LIMIT / 4)
        finally:
            released.set()
        assert await running == "done"
        with pytest.raises(RuntimeError, match="closed before this call began"):
            await queued
        await closing

    asyncio.run(run())
    assert not ran.is_set()


def test_a_call_sees_the_context_of_its_task() -> None:
    tenant: contextvars.ContextVar[str] = contextvars.ContextVar("tenant", default="nobody")
    seen: list[str] = []

    class Asking(MemoryStore):
        def read(self, reference: Reference, *, limit: int) -> bytes:
            seen.append(tenant.get())
            return super().read(reference, limit=limit)

    async def run() -> None:
        async with AsyncInMemoryProducer(InMemoryProducer(store=Asking())) as producer:
            job = await producer.img2img("s3://photos/cat.png", prompt="a cat", output="s3://pictures/")
            seen.clear()
            tenant.set("shop")
            await job.status()

    asyncio.run(run())
    assert set(seen) == {"shop"}


def test_looks_at_the_ledger_are_spread_over_time() -> None:
    turns = watching.Turns(per_second=50)

    reserved = [turns.reserve(100.0) for _ in range(100)]

    assert reserved[0] == 100.0
    assert [later - earlier for earlier, later in itertools.pairwise(reserved)] == pytest.approx([0.02] * 99)
    assert turns.reserve(200.0) == 200.0


def test_times_that_came_back_are_given_to_others() -> None:
    turns = watching.Turns(per_second=50)
    first, second, third = (turns.reserve(100.0) for _ in range(3))

    turns.give_back(second)
    turns.give_back(first)

    assert [turns.reserve(100.01), turns.reserve(100.01)] == pytest.approx([second, third + 0.02])


def test_a_look_that_moves_or_ends_leaves_its_time_to_others() -> None:
    first, later = watching.Turns(per_second=50), watching.Turns(per_second=50)
    look = watching.Look(first, 100.0)

    look.move(later, 200.0)
    assert first.reserve(100.0) == 100.0
    assert later.reserve(200.0) > look.at == 200.0

    look.give_back()
    assert later.reserve(200.0) == 200.0


def test_waits_that_have_ended_do_not_delay_the_looks_of_those_that_begin(
    memory: Backend, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Given 200 waits ended by events, when another one needs the ledger, then no look of theirs stands before its own.

    Theirs would take 40 seconds.
    """
    monkeypatch.setattr(watching, "LOOKS_PER_SECOND", 5.0)
    monkeypatch.setattr(aio, "QUIET", 0.01)
    ended, other = submit(memory), submit(memory)
    memory.finish(ended.id, [RED])

    async def run() -> None:
        async with asynchronous(memory) as producer:
            handle = await producer.handle(ended.id)
            await asyncio.gather(*(handle.wait(timeout=LIMIT) for _ in range(200)))
            last = await producer.handle(other.id)
            with memory.outage():
                record = await asyncio.to_thread(memory.finish, other.id, [RED])
                assert await asyncio.wait_for(last.wait(), LIMIT / 4) == record

    asyncio.run(run())


def test_the_producer_in_memory_made_of_another_has_all_of_its_own() -> None:
    with InMemoryProducer() as blocking:
        producer = AsyncInMemoryProducer.of(blocking)

        assert producer.webhook_secret == blocking.webhook_secret
        with producer.outage():
            job = blocking.img2img("s3://photos/a.png", prompt="a", output="s3://pictures/", model="in-memory")
            assert job.not_queued is not None
        asyncio.run(producer.close())


def test_the_producer_in_memory_ends_jobs_from_asyncio() -> None:
    async def run() -> None:
        async with AsyncInMemoryProducer() as producer:
            source = await producer.put("s3://photos/cat.png", RED)
            first, second, third = [
                await producer.img2img(source, prompt=text, output="s3://pictures/") for text in ("a", "b", "c")
            ]
            await producer.report(first, 1)
            await producer.finish(first, [RED])
            await producer.fail(second, DeviceOutOfMemory("too large; ask for less"))
            assert [record.job_id for record in await producer.work()] == [third.id]
            ends = [(await handle.wait(timeout=LIMIT)).status for handle in (first, second, third)]
            assert ends == ["succeeded", "failed", "succeeded"]

    asyncio.run(run())
