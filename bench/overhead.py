"""The system's own time per job, and jobs per second.

`python -m bench.overhead` measures with a model that does nothing, on a folder as the store and on the S3 protocol,
and then calls a diffusers pipeline directly and through the system in turn. README.md here says what the rows mean.
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import torch
from PIL import Image

from bench.direct import load_directly
from bench.noop_worker import COMMAND
from bench.places import Place, local_place, noise, s3_place

PROMPT = "a blue house on grass"
STEPS = 20
SIDE = 64
"""Pixels; what the embedded model was trained on, so that nobody scales anything."""
THREADS = 8
"""That submit at once for the throughput."""


@dataclass(frozen=True)
class Times:
    """Seconds of one job since submit() was called."""

    submitted: float
    """submit() had returned."""
    record: float
    """The caller held the record."""
    end: float
    """The open marker was gone: nothing is left to do."""
    engine: float
    """Within, as the record tells it: on the engine."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--singles", type=int, default=200, help="no-op jobs one after another")
    parser.add_argument("--jobs", type=int, default=400, help="no-op jobs at once")
    parser.add_argument("--pairs", type=int, default=50, help="direct calls, and as many jobs, in turn")
    given = parser.parse_args()
    picture = noise(SIDE)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        with local_place(folder / "noop", picture, command=COMMAND) as place:
            _noop(place, "a folder as the store", given.singles, given.jobs)
        with s3_place(folder / "noop-s3", picture, command=COMMAND) as place:
            _noop(place, "S3 protocol to moto, a slow server in Python", given.singles // 4, given.jobs // 4)
        with local_place(folder / "mini", picture) as place:
            _against_direct_calls(place, picture, given.pairs)


def _noop(place: Place, store: str, singles: int, jobs: int) -> None:
    _warm_up(place)
    times = [_one(place) for _ in range(singles)]
    print(f"no-op model, {store}: {singles} jobs one after another")
    _show("submit() returns", [t.submitted for t in times])
    _show("submitted to record in hand", [t.record for t in times])
    _show("submitted to open marker gone", [t.end for t in times])
    print(f"no-op model, {store}: {jobs} jobs submitted by {THREADS} threads")
    print(f"  first submit() to last open marker gone: {jobs / _all_at_once(place, jobs):.1f} jobs/s", flush=True)


def _against_direct_calls(place: Place, picture: Image.Image, pairs: int) -> None:
    torch.set_num_threads(1)
    call = load_directly()
    _warm_up(place)
    call(picture, PROMPT, STEPS)
    turns = [(call(picture, PROMPT, STEPS), _one(place)) for _ in range(pairs)]
    direct, jobs = [seconds for seconds, _ in turns], [times for _, times in turns]
    print(f"overpaint-mini, {SIDE} x {SIDE}, {STEPS} steps, 1 thread: {pairs} direct calls and {pairs} jobs in turn")
    _show("direct diffusers call", direct)
    _show("the same call within the job", [t.engine for t in jobs])
    _show("submitted to record in hand", [t.record for t in jobs])
    _show("submitted to open marker gone", [t.end for t in jobs])
    _show("the last without the call within", [t.end - t.engine for t in jobs])
    bare = statistics.median(direct)
    for what, totals in (("record in hand", [t.record for t in jobs]), ("open marker gone", [t.end for t in jobs])):
        own = statistics.median(totals) - bare
        print(f"  the system's own time, to {what}: {own * 1000:.1f} ms a job, {own / bare:.3f} of the direct call")


def _warm_up(place: Place) -> None:
    for _ in range(5):
        _one(place)


def _one(place: Place) -> Times:
    started = time.perf_counter()
    handle = place.submit(prompt=PROMPT, steps=STEPS)
    submitted = time.perf_counter() - started
    record = handle.wait(timeout=120).raise_for_status()
    in_hand = time.perf_counter() - started
    while not place.ended(record.job):
        time.sleep(0.001)
    return Times(submitted, in_hand, time.perf_counter() - started, record.timings["engine"])


def _all_at_once(place: Place, jobs: int) -> float:
    """Seconds from the first submission until nothing is left to do for any job."""
    started = time.perf_counter()
    with ThreadPoolExecutor(THREADS) as pool:
        handles = list(pool.map(lambda _: place.submit(prompt=PROMPT, steps=STEPS), range(jobs)))
    while not place.all_ended():
        time.sleep(0.05)
    seconds = time.perf_counter() - started
    for handle in handles:
        handle.result().raise_for_status()
    return seconds


def _show(what: str, seconds: Sequence[float]) -> None:
    p95 = sorted(seconds)[int(len(seconds) * 0.95)]
    print(f"  {what:32} median {statistics.median(seconds) * 1000:7.1f} ms   p95 {p95 * 1000:7.1f} ms", flush=True)


if __name__ == "__main__":
    main()
