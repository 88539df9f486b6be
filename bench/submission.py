"""Jobs accepted a second: `submit_many` beside one `submit` after another, and beside threads that call it.

`python -m bench.submission` writes them into a folder and a real Redis in which one model is announced; no worker runs.
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime
from itertools import count
from pathlib import Path

from pydantic import SecretStr

from overpaint_common.fleet import WorkerCard
from overpaint_common.job import Job, Output
from overpaint_common.passes import Img2Img
from overpaint_common.references import Reference
from overpaint_common.settings import Settings
from overpaint_producer import Producer
from overpaint_producer.local.redis import EmbeddedRedis
from tests.support.cards import model_card

THREADS = 8
"""That submit at once, where each job is submitted by a call of its own."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--jobs", type=int, default=2000, help="in each turn of submit_many")
    parser.add_argument("--singles", type=int, default=400, help="in each turn of the others")
    parser.add_argument("--turns", type=int, default=5)
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as name, EmbeddedRedis(Path(name) / "redis") as redis:
        settings = Settings.load(redis_url=SecretStr(redis.url), ledger=_place(Path(name), "ledger"))
        with Producer(settings) as producer:
            announce(producer, Path(name))
            numbers = count()

            def jobs(number: int) -> list[Job]:
                return [job(Path(name), next(numbers)) for _ in range(number)]

            def threads(given: list[Job]) -> None:
                with ThreadPoolExecutor(THREADS) as pool:
                    list(pool.map(producer.submit, given))

            ways: dict[str, tuple[Callable[[list[Job]], object], int]] = {
                "submit, one after another": (lambda given: [producer.submit(each) for each in given], given.singles),
                f"submit, in {THREADS} threads": (threads, given.singles),
                "submit_many": (producer.submit_many, given.jobs),
            }
            rates: dict[str, list[float]] = {way: [] for way in ways}
            for _ in range(given.turns):
                for way, (submit, number) in ways.items():
                    batch = jobs(number)
                    began = time.perf_counter()
                    submit(batch)
                    rates[way].append(number / (time.perf_counter() - began))
    for way, found in rates.items():
        print(
            f"{way:28} median {statistics.median(found):7.0f} jobs/s   least {min(found):7.0f}   most {max(found):7.0f}"
        )
    singly, many = (statistics.median(rates[way]) for way in (next(iter(rates)), "submit_many"))
    print(f"submit_many: {many / singly:.1f} times as many as one after another")


def job(folder: Path, number: int) -> Job:
    """One of many alike, as a catalogue has them."""
    return Job(
        source=f"{_place(folder, 'in')}picture-{number:08d}.png",
        model="photo",
        passes=(Img2Img(prompt="a house in snow, at dusk, warm light in the windows", strength=0.6),),
        output=Output(prefix=_place(folder, "out")),
        priority="bulk",
        labels={"catalogue": "winter", "number": str(number)},
    )


def announce(producer: Producer, folder: Path) -> None:
    """What a worker would tell of one general model."""
    card = model_card(
        "photo",
        reads=(_place(folder, "in"),),
        writes=(_place(folder, "out"),),
        ledger=_place(folder, "ledger"),
    )
    now = datetime.now(UTC)
    worker = WorkerCard(name="bench", device="cpu", models=("photo",), slots=16, pid=1, started_at=now)
    producer.live.announce(worker, [card])


def _place(folder: Path, name: str) -> str:
    return str(Reference.from_path(folder / name).as_prefix())


if __name__ == "__main__":
    main()
