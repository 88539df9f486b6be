"""A backend's view in tests: a real Redis, a ledger in a folder, an announced model, and nobody who paints."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from pydantic import SecretStr

from overpaint_common import wire
from overpaint_common.fleet import WorkerCard
from overpaint_common.job import Job, Output
from overpaint_common.live import connect
from overpaint_common.passes import Img2Img
from overpaint_common.references import Reference
from overpaint_common.result import Result, ResultStatus
from overpaint_common.settings import Settings
from overpaint_producer import Producer
from tests.support.cards import model_card

MODELS = ("photo", "comic")


@dataclass(frozen=True)
class Shop:
    """Where jobs are submitted from."""

    folder: Path
    redis: Any
    producer: Producer

    @classmethod
    def open(cls, folder: Path, redis_url: str) -> Shop:
        """On a Redis that belongs to this test alone while it runs; everything in it goes."""
        settings = Settings.load(redis_url=SecretStr(redis_url), ledger=_place(folder, "ledger"))
        shop = cls(folder, connect(redis_url), Producer(settings))
        shop.redis.flushall()
        places = {"reads": (_place(folder, "in"),), "writes": (_place(folder, "out"),), "ledger": settings.ledger}
        now = datetime.now(UTC)
        worker = WorkerCard(name="played", device="cpu", models=MODELS, slots=8, pid=1, started_at=now)
        shop.producer.live.announce(worker, [model_card(name, **places) for name in MODELS])
        return shop

    def close(self) -> None:
        self.producer.close()
        self.redis.close()

    def job(self, number: int = 0, **changes: Any) -> Job:
        """One of many alike; `changes` are fields of Job."""
        fields = {
            "source": f"{_place(self.folder, 'in')}picture-{number}.png",
            "model": "photo",
            "passes": (Img2Img(prompt="a house in snow"),),
            "output": Output(prefix=_place(self.folder, "out")),
            "labels": {"number": str(number)},
            **changes,
        }
        return Job.model_validate(fields)

    def tickets(self, model: str = "photo") -> list[str]:
        """The ids of the jobs whose tickets wait, the oldest first."""
        waiting: list[str] = self.redis.zrange(wire.queued_key(wire.queue_name(model, "standard")), 0, -1)
        assert len(waiting) == self.redis.llen(wire.queue_name(model, "standard"))
        return waiting

    def end(self, job: Job, status: ResultStatus = "succeeded", **fields: Any) -> Result:
        """End a job as whoever decides it does: the record, then what Redis tells."""
        now = datetime.now(UTC)
        given = {"attempt": "a" * 12, "attempts": 1, "accepted_at": now, "finished_at": now, **fields}
        record = self.producer.ledger.commit(Result(job_id=job.id, status=status, job=job, **given))
        self.producer.live.end(record)
        return record


def _place(folder: Path, name: str) -> str:
    return str(Reference.from_path(folder / name).as_prefix())
