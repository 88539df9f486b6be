"""How long an event loop stands still while many of its tasks submit jobs and wait for them.

`python -m bench.asyncio_waits` runs a Redis, a store and, in a process of its own, a worker that paints nothing but
reports every step and writes every record. In the loop a probe sleeps 5 ms over and over: what it oversleeps is a
stall. A garbage collection of the whole interpreter, which stops every thread, is told apart.
"""

from __future__ import annotations

import argparse
import asyncio
import gc
import json
import os
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import AsyncExitStack, ExitStack, asynccontextmanager, contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Self
from unittest.mock import patch

from overpaint_common.ledger import Ledger
from overpaint_common.live import Live, Progress, connect
from overpaint_common.references import Reference
from overpaint_common.settings import Settings
from overpaint_producer import AsyncProducer, Job, Output
from overpaint_producer.local.redis import EmbeddedRedis
from overpaint_producer.testing import StandIn, general_model
from tests.support.s3 import moto_server

MODEL = "model"
STEPS = 25
"""That each job reports."""
DEVICE = 16
"""Jobs that one device paints at once."""
PROBE = 0.005
"""Seconds."""


@dataclass
class Lag:
    """What the probe overslept, in seconds."""

    stalls: list[float] = field(default_factory=list)
    collecting: float = 0.0

    @classmethod
    @asynccontextmanager
    async def probed(cls) -> AsyncIterator[Self]:
        lag, over = cls(), asyncio.Event()
        gc.callbacks.append(lag._collected)
        probe = asyncio.create_task(lag._probe(over))
        await asyncio.sleep(0)
        yield lag
        over.set()
        await probe
        gc.callbacks.remove(lag._collected)

    async def _probe(self, over: asyncio.Event) -> None:
        while not over.is_set():
            began = time.perf_counter()
            await asyncio.sleep(PROBE)
            self.stalls.append(time.perf_counter() - began - PROBE)

    def _collected(self, phase: str, _: object) -> None:
        if phase == "start":
            self._began = time.perf_counter()
        else:
            self.collecting = max(self.collecting, time.perf_counter() - self._began)

    def show(self, what: str, seconds: float) -> None:
        ordered = sorted(self.stalls)
        worst, most = ordered[-1] * 1000, ordered[int(len(ordered) * 0.99)] * 1000
        print(
            f"  {what:26} {seconds:6.2f} s   worst stall {worst:5.1f} ms   99 % below {most:5.1f} ms   "
            f"longest garbage collection {self.collecting * 1000:5.1f} ms",
            flush=True,
        )


async def measure(settings: Settings, place: Reference, waits: int, freeze: bool) -> None:
    async with Lag.probed() as lag:
        await asyncio.sleep(1)
    lag.show("the probe alone", 1)
    async with AsyncExitStack() as stack:
        began = time.perf_counter()
        async with Lag.probed() as lag:
            producer = await stack.enter_async_context(AsyncProducer(settings))
        lag.show("opening the producer", time.perf_counter() - began)
        if freeze:
            gc.collect()
            gc.freeze()
        began = time.perf_counter()
        async with Lag.probed() as lag:
            first = await producer.submit(_job(place, 0))
        lag.show("the first submission", time.perf_counter() - began)
        began = time.perf_counter()
        async with Lag.probed() as lag:
            others = await asyncio.gather(*(producer.submit(_job(place, number)) for number in range(1, waits)))
        lag.show(f"{waits - 1} submissions at once", time.perf_counter() - began)
        began, handles, late = time.perf_counter(), [first, *others], []
        async with Lag.probed() as lag:

            async def wait(number: int) -> None:
                if number % 2:
                    record = await handles[number].wait(timeout=600)
                else:
                    async for _ in handles[number].progress(timeout=600):
                        pass
                    record = await handles[number].result()
                late.append((datetime.now(UTC) - record.finished_at).total_seconds())

            waiting = asyncio.gather(*(wait(number) for number in range(waits)))
            await asyncio.sleep(0.5)
            threads = threading.active_count()
            # The worker begins once it has one job more than are waited for.
            await producer.submit(_job(place, waits))
            await waiting
        lag.show(f"{waits} waits", time.perf_counter() - began)
        late.sort()
        print(
            f"  {threads} threads in the process; from a record's time to its waiting task: median "
            f"{late[len(late) // 2] * 1000:.0f} ms, worst {late[-1] * 1000:.0f} ms"
        )


def work(redis_url: str, ledger: str, waits: int, seconds: float) -> None:
    """Report all steps of all jobs within about `seconds`, and end each job once it has all of its steps."""
    settings = Settings.load(redis_url=redis_url, ledger=ledger)
    redis, store = connect(redis_url), settings.open_store()
    live = Live(redis)
    root = settings.ledger_root
    place = str(Reference(root.scheme, root.bucket, ""))
    card = general_model(MODEL, read=[place], write=[place]).model_copy(update={"ledger": ledger})
    worker = StandIn("bench", [card], Ledger(store, settings.ledger_root), store, redis)
    worker.announce()
    print("ready", flush=True)
    while len(worker.waiting()) < waits + 1:
        time.sleep(0.05)
    jobs = worker.waiting()
    began = time.monotonic()
    # As workers do it: each tells of the steps of all its jobs at once, several times a second.
    for step in range(1, STEPS + 1):
        moment = Progress(state="running", phase="denoise", step=step, steps=STEPS, worker="bench")
        for start in range(0, len(jobs), DEVICE):
            live.report({job_id: [moment] for job_id in jobs[start : start + DEVICE]})
            done = (step - 1 + (start + DEVICE) / len(jobs)) / STEPS
            time.sleep(max(0.0, began + seconds * done - time.monotonic()))
    for job_id in jobs:
        worker.succeed(job_id, None, lambda _, picture: picture.resize((8, 8)))


def _job(place: Reference, number: int) -> Job:
    return Job.model_validate(
        {
            "source": str(place.join("in", f"{number}.png")),
            "model": MODEL,
            "passes": [{"op": "img2img", "prompt": "a house in snow", "steps": STEPS, "strength": 1}],
            "output": Output(prefix=str(place.join("out"))),
        }
    )


def serve() -> None:
    """Be an S3 server, which says where it is and ends with its standard input."""
    with moto_server() as server, server.bucket() as bucket:
        print(json.dumps([{**server.environment, "AWS_ENDPOINT_URL": server.endpoint_url}, str(bucket)]), flush=True)
        sys.stdin.read()


@contextmanager
def _process(*arguments: str) -> Iterator[str]:
    """A part of this bench in a process of its own, and the line that it begins with."""
    command = [sys.executable, "-m", "bench.asyncio_waits", *arguments]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        try:
            line = process.stdout.readline()
            assert line, f"{arguments[0]} did not start"
            yield line
        finally:
            process.terminate()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--waits", type=int, default=100)
    parser.add_argument("--seconds", type=float, default=5.0, help="over which the steps of all jobs are reported")
    parser.add_argument("--store", choices=("folder", "s3"), default="folder")
    parser.add_argument("--freeze", action="store_true", help="call gc.freeze() once the producer is open")
    parser.add_argument("--serve", action="store_true", help=argparse.SUPPRESS)
    parser.add_argument("--work", nargs=2, metavar=("REDIS", "LEDGER"), help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.serve:
        serve()
    elif given.work:
        redis_url, ledger = given.work
        work(redis_url, ledger, given.waits, given.seconds)
    else:
        _run(given.waits, given.seconds, given.store, given.freeze)


def _run(waits: int, seconds: float, store: str, freeze: bool) -> None:
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        redis = stack.enter_context(EmbeddedRedis(folder / "redis"))
        place = Reference.from_path(folder / "store")
        if store == "s3":
            environment, bucket = json.loads(stack.enter_context(_process("--serve")))
            stack.enter_context(patch.dict(os.environ, environment))
            place = Reference.parse(bucket)
        ledger = str(place.join("ledger").as_prefix())
        stack.enter_context(_process("--work", redis.url, ledger, "--waits", str(waits), "--seconds", str(seconds)))
        print(f"{waits} jobs of {STEPS} steps, {store} as the store{', frozen' if freeze else ''}")
        asyncio.run(measure(Settings.load(redis_url=redis.url, ledger=ledger), place, waits, freeze))


if __name__ == "__main__":
    main()
