"""Memory of a producer process, and of a worker process over 1,000 jobs.

`python -m bench.memory`: the slope is a least-squares line through the worker's resident set over the last half.
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
from PIL import Image

from overpaint_common.references import Reference
from overpaint_producer import JobHandle, Producer
from overpaint_producer.local.stack import LocalStack

SAMPLE_EVERY = 10
IN_FLIGHT = 16

PRODUCER = """
import os, sys, psutil
from overpaint_producer import Producer
me = psutil.Process()
imported = me.memory_info().rss
producer = Producer()
for number in range(int(sys.argv[1])):
    producer.img2img(sys.argv[2], prompt="x", output=sys.argv[3], strength=0, model="overpaint-mini")
    if number == 0:
        first = me.memory_info().rss
print(imported, first, me.memory_info().rss)
"""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--jobs", type=int, default=1000)
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder, LocalStack(Path(folder)) as stack:
        path = stack.inputs / "scene.png"
        Image.effect_noise((512, 512), 60).convert("RGB").save(path)
        source, output = str(Reference.from_path(path)), str(Reference.from_path(stack.outputs))
        with Producer(stack.settings) as producer:
            (worker,) = producer.live.workers()
            samples = _run(producer, psutil.Process(worker.pid), source, output, arguments.jobs)
        half = samples[len(samples) // 2 :]
        slope = statistics.linear_regression([jobs for jobs, _ in half], [rss for _, rss in half]).slope
        first_mb, last_mb = samples[0][1] / 1e6, samples[-1][1] / 1e6
        print(f"worker over {arguments.jobs} jobs: {first_mb:.0f} MB at first, {last_mb:.0f} MB at last")
        print(f"  slope over the last {arguments.jobs // 2}: {slope:.0f} bytes a job")
        ended = subprocess.run(
            [sys.executable, "-c", PRODUCER, "200", source, output],
            env={**os.environ, **stack.variables},
            stdout=subprocess.PIPE,
            text=True,
            check=True,
        )
        imported, first, last = (int(number) / 1e6 for number in ended.stdout.split())
        print(f"producer: {imported:.0f} MB imported, {first:.0f} MB after one job, {last:.0f} MB after 200")


def _run(producer: Producer, worker: psutil.Process, source: str, output: str, jobs: int) -> list[tuple[int, int]]:
    """Run jobs with IN_FLIGHT of them open; (jobs done, bytes resident) at every sample."""
    samples: list[tuple[int, int]] = []
    waiting: list[JobHandle] = []
    for number in range(1, jobs + 1):
        waiting.append(producer.img2img(source, prompt=f"a blue house {number}", output=output, strength=0.5, steps=2))
        if len(waiting) >= IN_FLIGHT:
            waiting.pop(0).wait(timeout=120).raise_for_status()
        if number % SAMPLE_EVERY == 0:
            samples.append((number, worker.memory_info().rss))
    for handle in waiting:
        handle.wait(timeout=120).raise_for_status()
    return samples


if __name__ == "__main__":
    main()
