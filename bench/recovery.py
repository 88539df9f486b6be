"""Seconds until the queue is whole again after Redis lost everything: `python -m bench.recovery`.

Accepts open jobs into a ledger, empties Redis and lets a keeper rebuild, without workers. README.md says what the rows
mean.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from overpaint_common import wire
from overpaint_common.job import Job, Output
from overpaint_common.ledger import Ledger
from overpaint_common.live import connect
from overpaint_common.passes import Img2Img
from overpaint_common.references import Reference
from overpaint_common.settings import AccessSettings
from overpaint_producer.local.redis import EmbeddedRedis
from overpaint_worker.keeper.build import build_keeper
from overpaint_worker.settings import KeeperSettings

WRITERS = 8


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--jobs", type=int, default=10_000)
    parser.add_argument("--lease", type=float, default=5, help="seconds; living workers get one to report back in")
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as name, EmbeddedRedis(Path(name) / "redis") as redis:
        folder = Path(name)
        settings = KeeperSettings.load(
            redis_url=redis.url, ledger=prefix(folder / "ledger"), read=(prefix(folder / "in"),),
            write=(prefix(folder / "out"),), lease=given.lease,
        )  # fmt: skip
        _accept(settings, folder, given.jobs)
        with connect(redis.url) as client:
            _rebuild(client, settings, given.jobs)


def prefix(folder: Path) -> str:
    return str(Reference.from_path(folder).as_prefix())


def _accept(settings: AccessSettings, folder: Path, jobs: int) -> None:
    ledger, now = Ledger(settings.open_store(), settings.ledger_root), datetime.now(UTC)
    began = time.perf_counter()

    def accept(_: int) -> None:
        job = Job(
            source=prefix(folder / "in") + "a.png",
            model="mini",
            passes=(Img2Img(prompt="a blue house", steps=20),),
            output=Output(prefix=prefix(folder / "out")),
            priority="bulk",
        )
        ledger.accept(job, job.digest(), now)

    with ThreadPoolExecutor(WRITERS) as pool:
        for _ in pool.map(accept, range(jobs)):
            pass
    print(f"{jobs} jobs accepted in {time.perf_counter() - began:.1f} s, a folder as the store", flush=True)


def _rebuild(client: Any, settings: KeeperSettings, jobs: int) -> None:
    queue = wire.queue_name("mini", "bulk")
    client.set(wire.EPOCH_KEY, "before")
    keeper = build_keeper(settings)
    keeper.start()
    try:
        _until(lambda: client.llen(queue) == jobs)
        client.flushall()
        began = time.perf_counter()
        _until(lambda: client.llen(queue) > 0)
        first = time.perf_counter() - began
        _until(lambda: client.llen(queue) == jobs)
        last = time.perf_counter() - began
    finally:
        keeper.stop()
    print(f"FLUSHALL to the first ticket, a lease of {settings.lease:g} s waited out: {first:.1f} s")
    print(f"first to last of {jobs} tickets: {last - first:.2f} s, {jobs / (last - first):.0f} a second")


def _until(condition: Any, limit: float = 300) -> None:
    began = time.perf_counter()
    while not condition():
        if time.perf_counter() - began > limit:
            raise SystemExit(f"not within {limit} s")
        time.sleep(0.02)


if __name__ == "__main__":
    main()
