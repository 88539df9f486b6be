"""Resident memory of a worker process over 2,000 jobs, and of a producer process over 2,000 submissions.

`python -m bench.memory` exits with 1 where a worker grows by more than LIMIT bytes a job over the last half. A slope is
that of a least-squares line.
"""

from __future__ import annotations

import argparse
import os
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path

import psutil

from bench.places import Place, local_place, noise
from overpaint_producer import JobHandle

LIMIT = 5000
"""Bytes a job."""
SAMPLE_EVERY = 10
SMALL_CACHES = {"OVERPAINT_CACHE_BYTES": str(8 * 1024 * 1024)}
"""Full after some hundred jobs, so that what still grows then is no cache."""
IN_FLIGHT = 16

Sample = tuple[int, int]
"""Jobs done, and bytes resident then."""

PRODUCER = """
import sys, psutil
from overpaint_producer import Producer
me = psutil.Process()
print(0, me.memory_info().rss)
producer = Producer()
for number in range(1, int(sys.argv[1]) + 1):
    producer.img2img(sys.argv[2], prompt=f"a blue house {number}", output=sys.argv[3], steps=2, model="overpaint-mini")
    if number == 1 or number % int(sys.argv[4]) == 0:
        print(number, me.memory_info().rss)
"""


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--jobs", type=int, default=2000)
    jobs = parser.parse_args().jobs
    with tempfile.TemporaryDirectory() as folder, local_place(Path(folder), noise(512), settings=SMALL_CACHES) as place:
        samples = _worker(place, jobs)
        slope = _slope(samples)
        print(f"worker: {_mb(samples[0])} after {samples[0][0]} jobs, {_mb(samples[-1])} after {jobs}")
        verdict = f"within the limit of {LIMIT} bytes a job" if slope < LIMIT else f"ABOVE the limit of {LIMIT} bytes"
        print(f"  slope over the last {jobs - jobs // 2}: {slope:.0f} bytes a job, {verdict}", flush=True)
        imported, first, *rest = _producer(place, jobs)
        print(f"producer: {_mb(imported)} imported, {_mb(first)} after 1 submission, {_mb(rest[-1])} after {jobs}")
        print(f"  slope over the last {jobs - jobs // 2}: {_slope(rest):.0f} bytes a submission")
    return 0 if slope < LIMIT else 1


def _worker(place: Place, jobs: int) -> list[Sample]:
    """Keep IN_FLIGHT jobs open until `jobs` are done; a job counts once its record is in hand."""
    (worker,) = place.producer.live.workers()
    process = psutil.Process(worker.pid)
    samples: list[Sample] = []
    waiting: list[JobHandle] = []
    submitted = 0
    for done in range(1, jobs + 1):
        while submitted < jobs and len(waiting) < IN_FLIGHT:
            submitted += 1
            waiting.append(place.submit(prompt=f"a blue house {submitted}", steps=2, strength=0.5))
        waiting.pop(0).wait(timeout=120).raise_for_status()
        if done % SAMPLE_EVERY == 0:
            samples.append((done, process.memory_info().rss))
    return samples


def _producer(place: Place, jobs: int) -> list[Sample]:
    """A process of its own that only submits; the worker takes its jobs meanwhile."""
    ended = subprocess.run(
        [sys.executable, "-c", PRODUCER, str(jobs), place.source, place.output, str(SAMPLE_EVERY)],
        env={**os.environ, **place.stack.variables},
        stdout=subprocess.PIPE,
        text=True,
        check=True,
    )
    return [(int(number), int(rss)) for number, rss in (line.split() for line in ended.stdout.splitlines())]


def _slope(samples: list[Sample]) -> float:
    """Bytes a job over the last half."""
    half = [sample for sample in samples if sample[0] > samples[-1][0] // 2]
    return statistics.linear_regression([done for done, _ in half], [rss for _, rss in half]).slope


def _mb(sample: Sample) -> str:
    return f"{sample[1] / 1e6:.0f} MB"


if __name__ == "__main__":
    sys.exit(main())
