"""How much the work on pictures in a worker's other threads slows its engine thread down.

`python -m bench.interference` paints the same jobs thrice in turn: with nothing beside, with pictures decoded, fitted
and encoded in a thread of the same process, and with the same work in a process of its own. The device is one core
and the pictures' the other; what a thread costs more than a process is the interpreter's lock. Each interval is
one that Python may let a thread keep that lock (sys.setswitchinterval).
"""

from __future__ import annotations

import argparse
import multiprocessing
import statistics
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from io import BytesIO
from typing import Any

import torch

from bench.engine.jobs import WORKLOADS
from bench.engine.peers import call_of
from bench.places import noise
from overpaint_worker.engine.engine import Engine
from overpaint_worker.engine.loading import PipelineLoader
from overpaint_worker.engine.registry import Registry
from overpaint_worker.imaging.decode import decode
from overpaint_worker.imaging.encode import encode
from overpaint_worker.imaging.fit import fit

MODEL = "overpaint-mini"
SIDE = 1024
"""Pixels of the pictures that are worked on: more than the model paints, as sources are."""
INTERVALS = (0.005, 0.001, 0.0002)
"""Seconds; the first is Python's own."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--jobs", type=int, default=12, help="jobs a round")
    parser.add_argument("--rounds", type=int, default=3)
    given = parser.parse_args()
    torch.set_num_threads(1)
    engine = Engine(PipelineLoader(Registry.embedded(), "cpu"))
    engine.start(preload=MODEL)
    _milliseconds_a_row(engine, given.jobs)
    beside = {"nothing": _nothing, "a thread": _thread, "a process": _process}
    print("engine's thread, ms for each row of a forward, median (against nothing beside)")
    for interval in INTERVALS:
        sys.setswitchinterval(interval)
        found: dict[str, list[float]] = {name: [] for name in beside}
        done = dict.fromkeys(beside, 0)
        for _ in range(given.rounds):
            for name, start in beside.items():
                with start() as count:
                    found[name].append(_milliseconds_a_row(engine, given.jobs))
                    done[name] += count()
        base = statistics.median(found["nothing"])
        medians = {name: statistics.median(each) for name, each in found.items()}
        cells = (f"{name} {each:.2f} ({each / base:.2f}), {done[name]} pictures" for name, each in medians.items())
        print(f"  switch interval {interval * 1000:g} ms: " + "; ".join(cells), flush=True)
    engine.stop()


def _milliseconds_a_row(engine: Engine, count: int) -> float:
    """Of the engine's busy time, over the mixed jobs of bench.engine, all at once."""
    jobs = WORKLOADS["mixed"].jobs(count, seed=1, size=(64, 64))
    before = engine.statistics()
    for future in [engine.submit(call_of(job, MODEL)) for job in jobs]:
        future.result()
    after = engine.statistics()
    return 1000 * (after.busy - before.busy) / (after.rows - before.rows)


Count = Callable[[], int]
"""Pictures worked on so far."""


@contextmanager
def _nothing() -> Iterator[Count]:
    yield lambda: 0


@contextmanager
def _thread() -> Iterator[Count]:
    over, done = threading.Event(), _Counter()
    thread = threading.Thread(target=_work, args=(over, done))
    thread.start()
    yield lambda: done.value
    over.set()
    thread.join()


@contextmanager
def _process() -> Iterator[Count]:
    # Spawned, because torch's threads do not survive a fork.
    context = multiprocessing.get_context("spawn")
    over, done, ready = context.Event(), context.Value("i", 0), context.Event()
    process = context.Process(target=_work, args=(over, done, ready))
    process.start()
    ready.wait()
    yield lambda: int(done.value)
    over.set()
    process.join()


class _Counter:
    value = 0


def _work(over: threading.Event, done: Any, ready: threading.Event | None = None) -> None:
    """What a worker does for each job beside painting, until it is `over`."""
    with BytesIO() as file:
        noise(SIDE).save(file, "JPEG", quality=90)
        data = file.getvalue()
    if ready is not None:
        ready.set()
    while not over.is_set():
        picture = fit(decode(data, max_pixels=SIDE * SIDE).picture, size=512, method="pad").picture
        encode(picture, format="png", quality=90, provenance=None)
        done.value += 1


if __name__ == "__main__":
    main()
