"""A producer with a real store, no Redis and no worker: a test plays the worker."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from overpaint_common import keys, naming
from overpaint_common.errors import JobFailed
from overpaint_common.job import Job
from overpaint_common.passes import Img2Img
from overpaint_common.references import Reference
from overpaint_common.result import Failure, Result, StoredObject, VariantResult
from overpaint_common.settings import Settings
from overpaint_common.storage import ObjectStore
from overpaint_producer import JobHandle, Producer

NO_REDIS = "redis://127.0.0.1:1/0"
ATTEMPT = "0123456789ab"


@dataclass(frozen=True)
class Scene:
    """A producer, and a place that belongs to one test."""

    producer: Producer
    root: Reference

    @property
    def store(self) -> ObjectStore:
        return self.producer.store

    def at(self, *names: str) -> Reference:
        return self.root.join(*names)

    def job(self, *, name: str | None = None, source: str = "cat.png", **changes: Any) -> Job:
        """A job that publishes under `name`; `changes` are fields of Job."""
        fields = {
            "source": str(self.at("in", source)),
            "model": "mini",
            "passes": (Img2Img(prompt="a cat"),),
            "output": {"prefix": str(self.at("out")), "name": name},
            **changes,
        }
        return Job.model_validate(fields)

    def submit(self, job: Job) -> JobHandle:
        return self.producer.submit(job)

    def paint(self, job: Job, picture: str = "painted") -> Result:
        """Submit a job, store what it stands for as its pictures, each another, and record that it succeeded."""
        self.submit(job)
        variants = []
        for variant in range(job.variants):
            body, reference = f"{picture} {variant}".encode(), keys.picture(job, variant, ATTEMPT)
            self.store.put(reference, body, content_type="image/png")
            published = naming.published(job, variant)
            stored = StoredObject(
                uri=str(reference),
                sha256=hashlib.sha256(body).hexdigest(),
                size=len(body),
                width=1,
                height=1,
                content_type="image/png",
                published=None if published is None else str(published),
            )
            variants.append(VariantResult(index=variant, seed=variant, outputs=(stored,), passes=()))
        return self._recorded(job, status="succeeded", variants=tuple(variants))

    def fail(self, job: Job) -> Result:
        """Submit a job and record that it failed."""
        self.submit(job)
        return self._recorded(job, status="failed", failure=Failure.of(JobFailed("on purpose")))

    def finish(self, record: Result, outputs: ObjectStore | None = None) -> None:
        """What a worker or keeper does after a record."""
        request = self.producer.ledger.request(record.job_id)
        self.producer.ledger.finish(request, record, outputs or self.store)

    def body(self, *names: str) -> bytes:
        """What lies below the output place."""
        return self.store.read(self.at("out", *names), limit=100_000)

    def outputs(self) -> list[str]:
        """All keys below the output place."""
        prefix = self.at("out").as_prefix()
        return [info.reference.key.removeprefix(prefix.key) for info in self.store.list(prefix)]

    def is_open(self, job: Job) -> bool:
        return job.id in {marker.job_id for marker in self.producer.ledger.open_jobs()}

    def _recorded(self, job: Job, **fields: Any) -> Result:
        now = datetime.now(UTC)
        own = {"job_id": job.id, "attempt": ATTEMPT, "attempts": 1, "job": job, "accepted_at": now, "finished_at": now}
        return self.producer.ledger.commit(Result.model_validate({**own, **fields}))


@contextmanager
def scene_in(root: Reference, store: ObjectStore | None = None, **settings: Any) -> Iterator[Scene]:
    """A scene whose ledger and places lie below `root`, in `store` or what the settings name."""
    own = {"redis_url": NO_REDIS, "ledger": str(root.join("ledger"))}
    with Producer(Settings.load(**own, **settings), store=store) as producer:
        yield Scene(producer, root)
