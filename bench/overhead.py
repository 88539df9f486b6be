"""The system's own time per job beyond the bare pipeline call, and jobs per second with a model that does nothing.

`python -m bench.overhead` runs everything on this machine: Redis, a folder as the store, one worker.
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from PIL import Image

from bench.noop_worker import COMMAND
from overpaint_common.references import Reference
from overpaint_common.result import Result
from overpaint_producer import Producer
from overpaint_producer.local.stack import WORKER, LocalStack

PROMPT = "a blue house on grass"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--jobs", type=int, default=400, help="jobs for the throughput")
    parser.add_argument("--singles", type=int, default=40, help="jobs one after another for the time per job")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        with LocalStack(Path(folder) / "noop", command=COMMAND) as stack, Producer(stack.settings) as producer:
            source = _source(stack)
            _one(stack, producer, source)
            singles = [_one(stack, producer, source) for _ in range(arguments.singles)]
            print(f"no-op model, one job after another, {arguments.singles} jobs, median:")
            _show("  submit() returns", [submit for submit, _, _ in singles])
            _show("  submitted to record in hand", [total for _, total, _ in singles])
            _show("  in the worker beyond the model", [_own_time(record) for _, _, record in singles])
            rate = _throughput(stack, producer, source, arguments.jobs)
            print(f"no-op model, {arguments.jobs} jobs at once: {rate:.0f} jobs/s")
        with LocalStack(Path(folder) / "mini", command=WORKER) as stack, Producer(stack.settings) as producer:
            source = _source(stack)
            _one(stack, producer, source)
            records = [_one(stack, producer, source)[2] for _ in range(10)]
            own = statistics.median(_own_time(record) for record in records)
            bare = statistics.median(record.timings["engine"] for record in records)
            print(f"overpaint-mini, 20 steps: bare pipeline call {bare * 1000:.0f} ms")
            print(f"  the worker's own time beyond it {own * 1000:.1f} ms")
            print(f"  ratio of own time to the bare call in the same run: {own / bare:.3f}")


def _source(stack: LocalStack) -> str:
    path = stack.inputs / "scene.png"
    Image.effect_noise((256, 256), 60).convert("RGB").save(path)
    return str(Reference.from_path(path))


def _one(stack: LocalStack, producer: Producer, source: str) -> tuple[float, float, Result]:
    output = str(Reference.from_path(stack.outputs))
    started = time.perf_counter()
    handle = producer.img2img(source, prompt=PROMPT, output=output, strength=1, steps=20)
    submitted = time.perf_counter() - started
    record = handle.wait(timeout=120).raise_for_status()
    return submitted, time.perf_counter() - started, record


def _own_time(record: Result) -> float:
    """Seconds from the claim to the commit that the model did not take."""
    assert record.started_at is not None
    return (record.finished_at - record.started_at).total_seconds() - record.timings["engine"]


def _throughput(stack: LocalStack, producer: Producer, source: str, jobs: int) -> float:
    output = str(Reference.from_path(stack.outputs))
    with ThreadPoolExecutor(8) as pool:
        handles = list(
            pool.map(
                lambda _: producer.img2img(source, prompt=PROMPT, output=output, strength=1, steps=20), range(jobs)
            )
        )
    records = [handle.wait(timeout=300).raise_for_status() for handle in handles]
    begun = min(record.started_at for record in records if record.started_at is not None)
    return jobs / (max(record.finished_at for record in records) - begun).total_seconds()


def _show(what: str, seconds: list[float]) -> None:
    p95 = sorted(seconds)[int(len(seconds) * 0.95)]
    print(f"{what:34} {statistics.median(seconds) * 1000:7.1f} ms   (p95 {p95 * 1000:.1f})")


if __name__ == "__main__":
    main()
