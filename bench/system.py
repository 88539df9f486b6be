"""The whole way from submission to record, beside a naive Celery task: the same jobs, model and store, in turn.

`python -m bench.system` submits all jobs of the mixed workload at once to either side, and waits for all of them. It
exits with 1 where the two sides paint different pictures. README.md here says what the rows mean.
"""

from __future__ import annotations

import argparse
import io
import os
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from pathlib import Path
from unittest.mock import patch

import numpy as np
import torch
from celery.result import ResultSet
from PIL import Image
from rich import box
from rich.console import Console
from rich.table import Table

from bench import naive_worker
from bench.engine.jobs import WARM_UP, WORKLOADS, Job
from overpaint_common.live import Live, connect
from overpaint_producer.local.child import Child
from tests.support.faulty_http import delay, requests
from tests.support.s3 import moto_server
from tests.support.stack import WORKER, Stack, encoded, stack

MODEL = "overpaint-mini"
SIZE = (64, 64)
"""Pixels."""
LEVELS = 1
"""Of 255, by which two pictures may differ where they were rounded."""
READY_LIMIT = 120.0
JOB_LIMIT = 300.0
STOP_GRACE = 30.0


@dataclass(frozen=True)
class Done:
    """A job's way on one side."""

    submitted: float
    """On the clock of `time.perf_counter`."""
    ended: float
    uri: str
    """Of the picture."""


Side = Callable[[Sequence[Job], Sequence[str]], list[Done]]
"""Submits all jobs, each with the URI of its source, and waits for them."""


@dataclass(frozen=True)
class Figures:
    side: str
    jobs: int
    rate: float
    """Jobs a second, from the first submission to the last record."""
    p50: float
    """Seconds from a job's submission to its record."""
    p99: float


def main() -> int:
    given = _parser().parse_args()
    sides: dict[str, Callable[[Stack], AbstractContextManager[Side]]] = {
        "naive Celery task": lambda place: naive(place, given.threads),
        "Overpaint": lambda place: overpaint(place, given.threads, given.slots),
    }
    done: dict[str, list[list[Done]]] = {name: [] for name in sides}
    console = Console()
    console.print(
        f"{MODEL}, {SIZE[0]} x {SIZE[1]}, torch threads: {given.threads}, slots of Overpaint's worker: {given.slots}\n"
        f"each request to the store takes {given.transfer_ms:g} ms more",
        highlight=False,
    )
    difference = 0
    with _place() as place:
        place.proxy.on(requests(), delay(given.transfer_ms / 1000))
        for number in range(given.rounds):
            jobs = WORKLOADS["mixed"].jobs(given.jobs, seed=number, size=SIZE)
            for name in list(sides) if number % 2 == 0 else reversed(sides):
                with console.status(f"round {number + 1} of {given.rounds}: {name}"), sides[name](place) as side:
                    side(*_sources(place, WARM_UP.jobs(given.slots, seed=number, size=SIZE)))
                    done[name].append(side(*_sources(place, jobs)))
            difference = max(difference, _largest_difference(place, *(rounds[-1] for rounds in done.values())))
    console.print(_table([_figures(name, rounds) for name, rounds in done.items()]))
    kept = difference <= LEVELS
    console.print(
        f"largest difference between their pictures: {difference} of 255 levels, {'within' if kept else 'ABOVE'} "
        f"the tolerance of {LEVELS}",
        highlight=False,
    )
    return 0 if kept else 1


@contextmanager
def naive(place: Stack, threads: int) -> Iterator[Side]:
    """The naive worker, while the block runs."""
    redis_url = place.redis.url.removesuffix("/0") + "/1"
    app = naive_worker.create_app(redis_url)
    environment = {
        **os.environ,
        naive_worker.REDIS_VARIABLE: redis_url,
        naive_worker.S3_VARIABLE: place.proxy.url,
        naive_worker.THREADS_VARIABLE: str(threads),
    }

    def side(jobs: Sequence[Job], sources: Sequence[str]) -> list[Done]:
        submitted, ended, results = [], {}, []
        for number, (job, source) in enumerate(zip(jobs, sources, strict=True)):
            settings = {
                "num_inference_steps": job.steps,
                "strength": job.strength,
                "guidance_scale": job.guidance_scale,
            }
            target = str(place.at("naive", f"{time.monotonic_ns()}-{number}.png"))
            submitted.append(time.perf_counter())
            results.append(app.send_task(naive_worker.TASK, (source, target, job.prompt, job.seed, settings)))
        for task, _ in ResultSet(results, app=app).iter_native(timeout=JOB_LIMIT):
            ended[task] = time.perf_counter()
        return [
            Done(began, ended[result.id], result.get(timeout=JOB_LIMIT))
            for began, result in zip(submitted, results, strict=True)
        ]

    command = (sys.executable, "-m", "bench.naive_worker")
    try:
        with _child("naive", command, place.folder, environment) as worker:
            _until(worker, lambda: bool(app.control.ping(timeout=0.5)))
            yield side
    finally:
        app.close()


@contextmanager
def overpaint(place: Stack, threads: int, slots: int) -> Iterator[Side]:
    """Our worker, while the block runs."""
    settings = {"OVERPAINT_CPU_THREADS": str(threads), "OVERPAINT_SLOTS": str(slots)}
    live = Live(connect(place.redis.url))
    before = {card.name for card in live.workers()}
    try:
        with (
            _child("overpaint", WORKER, place.folder, place.worker_environment() | settings) as worker,
            place.producer(s3_max_attempts=5, s3_read_timeout=30) as producer,
        ):
            _until(worker, lambda: any(card.name not in before and card.models for card in live.workers()))

            def one(job: Job, source: str) -> Done:
                submitted = time.perf_counter()
                handle = producer.img2img(
                    source,
                    prompt=job.prompt,
                    output=place.output,
                    strength=job.strength,
                    steps=job.steps,
                    guidance_scale=job.guidance_scale,
                    seed=job.seed,
                    model=MODEL,
                )
                record = handle.wait(JOB_LIMIT).raise_for_status()
                return Done(submitted, time.perf_counter(), str(record.outputs[0].uri))

            def side(jobs: Sequence[Job], sources: Sequence[str]) -> list[Done]:
                with ThreadPoolExecutor(len(jobs)) as callers:
                    return list(callers.map(one, jobs, sources))

            yield side
    finally:
        live.close()


@contextmanager
def _place() -> Iterator[Stack]:
    """Redis, and moto behind a proxy, on loopback; workers keep the store's own patience."""
    patience = {"OVERPAINT_S3_MAX_ATTEMPTS": "5", "OVERPAINT_S3_READ_TIMEOUT": "30"}
    with (
        tempfile.TemporaryDirectory() as folder,
        moto_server() as server,
        patch.dict(os.environ, server.environment),
        stack(server, Path(folder), **patience) as place,
    ):
        yield place


@contextmanager
def _child(name: str, command: Sequence[str], folder: Path, environment: Mapping[str, str]) -> Iterator[Child]:
    child = Child(command, log=folder / f"{name}.log", env=environment)
    try:
        yield child
    finally:
        child.stop(STOP_GRACE)


def _until(worker: Child, ready: Callable[[], bool]) -> None:
    until = time.monotonic() + READY_LIMIT
    while not ready():
        if worker.wait(0.1) is not None or time.monotonic() > until:
            raise SystemExit(f"the worker did not come up; its log ends:\n{worker.tail(40)}")


def _sources(place: Stack, jobs: Sequence[Job]) -> tuple[Sequence[Job], list[str]]:
    """The jobs, and where their sources are; stored without the delay."""
    return jobs, [place.put(f"{job.seed}.png", encoded(job.picture)) for job in jobs]


def _figures(side: str, rounds: Sequence[Sequence[Done]]) -> Figures:
    jobs = [job for each in rounds for job in each]
    seconds = sum(max(job.ended for job in each) - min(job.submitted for job in each) for each in rounds)
    p50, p99 = np.percentile([job.ended - job.submitted for job in jobs], (50, 99))
    return Figures(side, len(jobs), len(jobs) / seconds, float(p50), float(p99))


def _table(figures: Sequence[Figures]) -> Table:
    made = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    made.add_column("", no_wrap=True)
    for head in ("jobs", "jobs/s", "p50\nin s", "p99\nin s", "jobs/s\nto naive", "p50\nto naive"):
        made.add_column(head, justify="right", no_wrap=True)
    first = figures[0]
    for each in figures:
        numbers = (f"{each.jobs}", f"{each.rate:.2f}", f"{each.p50:.2f}", f"{each.p99:.2f}")
        made.add_row(each.side, *numbers, f"{each.rate / first.rate:.2f} ×", f"{first.p50 / each.p50:.2f} ×")
    return made


def _largest_difference(place: Stack, mine: Sequence[Done], theirs: Sequence[Done]) -> int:
    """In levels of 255, over all pictures."""
    return max(
        int(np.abs(_pixels(place, one.uri) - _pixels(place, other.uri)).max())
        for one, other in zip(mine, theirs, strict=True)
    )


def _pixels(place: Stack, uri: str) -> np.ndarray[tuple[int, ...], np.dtype[np.int16]]:
    return np.asarray(Image.open(io.BytesIO(place.body(uri))).convert("RGB"), dtype=np.int16)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m bench.system", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--jobs", type=int, default=32, help="of a round, for each side")
    parser.add_argument("--rounds", type=int, default=2)
    parser.add_argument("--transfer-ms", type=float, default=50, help="added to every request to the store")
    parser.add_argument("--slots", type=int, default=24, help="jobs in hand of Overpaint's worker")
    # One core is left to Redis, the store and the callers, which are on this machine as well.
    parser.add_argument("--threads", type=int, default=max(1, torch.get_num_threads() - 1), help="of torch")
    return parser


if __name__ == "__main__":
    sys.exit(main())
