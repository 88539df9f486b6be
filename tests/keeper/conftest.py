from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from redis import Redis

from overpaint_common import wire
from overpaint_common.acceptance import Acceptance
from overpaint_common.dead import DeadLetters
from overpaint_common.finish import Finish
from overpaint_common.job import Job, Output
from overpaint_common.leases import Claim, Leases
from overpaint_common.ledger import Ledger, Request
from overpaint_common.live import Live, Progress, connect
from overpaint_common.passes import Img2Img
from overpaint_common.references import Reference
from overpaint_common.result import Result, ResultStatus
from overpaint_common.storage import LocalStore
from overpaint_common.tickets import Tickets
from overpaint_producer.local.redis import EmbeddedRedis
from overpaint_worker.keeper.backlog import Backlog
from overpaint_worker.keeper.endings import Endings
from overpaint_worker.keeper.keeper import Keeper, Parts
from overpaint_worker.keeper.leader import Leader
from overpaint_worker.keeper.rebuild import Rebuild

LEASE = 1.0
"""Seconds; the shortest that can be set."""


@dataclass
class Place:
    """A ledger in a folder and a real Redis, with everything that looks after jobs, and no worker."""

    folder: Path
    server: EmbeddedRedis
    redis: Any
    lease: float = LEASE
    ledger: Ledger = field(init=False)
    dead: DeadLetters = field(init=False)
    live: Live = field(init=False)
    tickets: Tickets = field(init=False)
    leases: Leases = field(init=False)
    backlog: Backlog = field(init=False)
    endings: Endings = field(init=False)
    acceptance: Acceptance = field(init=False)

    def __post_init__(self) -> None:
        store, root = LocalStore(), self.at("ledger")
        self.ledger, self.dead = Ledger(store, root), DeadLetters(store, root)
        self.live, self.tickets = Live(self.redis), Tickets(self.redis)
        self.leases = Leases(self.redis, seconds=self.lease, worker="here")
        self.backlog = Backlog(self.redis, self.tickets, margin=0.2, aged=0.5)
        finish = Finish(self.ledger, self.dead, store, self.redis)
        self.endings = Endings(self.ledger, finish, self.live, self.leases)
        self.acceptance = Acceptance(self.ledger, self.redis)

    def at(self, name: str) -> Reference:
        return Reference.from_path(self.folder / name).as_prefix()

    def keeper(self, **parts: Any) -> Keeper:
        redis: Redis = connect(self.server.url)
        built = Parts(
            check=lambda: None,
            leader=Leader(redis),
            leases=Leases(redis, seconds=self.lease, worker="keeper"),
            backlog=self.backlog,
            endings=self.endings,
            rebuild=Rebuild(redis, self.ledger, self.tickets, lease=self.lease),
            **parts,
        )
        return Keeper(built, lease=self.lease)

    def job(self, **changes: Any) -> Job:
        fields = {
            "source": str(self.at("in").join("a.png")),
            "model": "mini",
            "passes": (Img2Img(prompt="x", steps=4),),
            "output": Output(prefix=str(self.at("out"))),
            **changes,
        }
        return Job.model_validate(fields)

    def accept(self, **changes: Any) -> Job:
        """An accepted job with its ticket in the queue."""
        job = self.job(**changes)
        assert self.acceptance.accept(job).not_queued is None
        return job

    def fetch(self, job: Job) -> None:
        """Take the oldest ticket out of the job's queue, as kombu does, and lose it."""
        assert self.redis.rpop(queue_of(job)) is not None

    def claim(self, job: Job) -> Claim:
        """What a worker does with the next ticket."""
        self.fetch(job)
        claim = self.leases.claim(job.id, queue_of(job), self.leases.now_ms())
        assert isinstance(claim, Claim)
        return claim

    def paints(self, job: Job) -> None:
        """What a worker tells once it has begun."""
        self.live.report({job.id: [Progress(state="running", phase="denoise")]})

    def record(self, job: Job, status: ResultStatus = "succeeded", **fields: Any) -> Result:
        now = datetime.now(UTC)
        given = {"attempt": "a" * 12, "attempts": 1, "accepted_at": now, "finished_at": now, **fields}
        return self.ledger.commit(Result(job_id=job.id, status=status, job=job, **given))

    def request(self, job: Job) -> Request:
        return self.ledger.request(job.id)

    def open_jobs(self) -> list[str]:
        return [marker.job_id for marker in self.ledger.open_jobs()]

    def waiting(self, job: Job) -> int:
        """Tickets in the job's queue."""
        return int(self.redis.llen(queue_of(job)))


def queue_of(job: Job) -> str:
    return wire.queue_name(job.model, job.priority)


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[EmbeddedRedis]:
    with EmbeddedRedis(tmp_path_factory.mktemp("redis"), append_only=False) as running:
        yield running


@pytest.fixture
def place(server: EmbeddedRedis, tmp_path: Path) -> Iterator[Place]:
    with connect(server.url) as redis:
        redis.flushall()
        yield Place(tmp_path, server, redis)


@pytest.fixture
def keeping(place: Place) -> Iterator[Callable[..., Keeper]]:
    """Starts keepers that are stopped at the end."""
    started: list[Keeper] = []

    def start(**parts: Any) -> Keeper:
        keeper = place.keeper(**parts)
        keeper.start()
        started.append(keeper)
        return keeper

    yield start
    for keeper in started:
        keeper.stop()
