"""A whole Overpaint on which faults are played: every byte to Redis and to the store passes a proxy that can fail."""

from __future__ import annotations

import subprocess
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, cast

import psutil
from redis import Redis

from overpaint_common import wire
from overpaint_common.fleet import WorkerCard
from overpaint_common.job import PRIORITIES
from overpaint_common.settings import Settings
from overpaint_producer import Img2Img, Job, JobHandle, Output, Producer
from overpaint_producer.local.redis import EmbeddedRedis
from tests.faults.control import Control
from tests.faults.crew import Crew
from tests.faults.oracle import Oracle, Verdict
from tests.faults.receiver import SECRET, Receiver
from tests.faults.recording import RecordingProxy
from tests.support.redis_proxy import RedisProxy
from tests.support.s3 import S3Server
from tests.support.stack import LIGHT_WORKER, START_LIMIT, Stack, encoded, eventually, picture

LEASE = 2
"""Seconds."""

SLOTS = 4

BOUND = 45.0
"""Seconds in which all must be settled after a fault has ended."""

PERSISTENCE = 60.0

ENVIRONMENT = {
    "OVERPAINT_LEASE": str(LEASE),
    "OVERPAINT_SLOTS": str(SLOTS),
    "OVERPAINT_GRACE": "20",
    "OVERPAINT_STEP_LIMIT": "3",
    "OVERPAINT_CPU_THREADS": "0",
}


@dataclass(frozen=True)
class Held:
    """Jobs that wait at a gate while they are painted."""

    handles: list[JobHandle]
    gate: Path

    def go_on(self) -> None:
        self.gate.touch()


@dataclass
class Stage(Stack):
    """The stack of `tests.support.stack`, with what faults and the oracle need."""

    redis_proxy: RedisProxy = field(kw_only=True)
    direct: Redis = field(kw_only=True)
    """Redis without the proxy."""
    receiver: Receiver = field(kw_only=True)
    control: Control = field(kw_only=True)
    accepted: list[str] = field(default_factory=list)
    """Ids of the jobs that `submit` returned."""
    producing: Producer | None = None
    oracle: Oracle | None = None
    broken: bool = False
    """Whether the oracle has found something wrong already, which it would find for ever."""
    lock: threading.Lock = field(default_factory=threading.Lock)

    @property
    def publishing(self) -> Output:
        """An output whose pictures are published, each under a name of its own."""
        return Output(prefix=self.output, name="published/{id}/{stem}-{variant}.png")

    @property
    def s3(self) -> RecordingProxy:
        return cast(RecordingProxy, self.proxy)

    def settings(self, **changes: object) -> Settings:
        return super().settings(**{"redis_url": self.redis_proxy.url, **changes})

    def worker_environment(self) -> dict[str, str]:
        return super().worker_environment() | {
            "OVERPAINT_REDIS_URL": self.redis_proxy.url,
            "OVERPAINT_WEBHOOKS": self.receiver.url,
            "OVERPAINT_WEBHOOK_PRIVATE": "true",
            "OVERPAINT_WEBHOOK_SECRET": SECRET,
            "OVERPAINT_TEST_CONTROL": str(self.control.path),
        }

    @contextmanager
    def crews(self, count: int = 1, command: Sequence[str] = LIGHT_WORKER, **environment: str) -> Iterator[list[Crew]]:
        """That many workers, started side by side, all announced; ended afterwards.

        A keeper lists all open jobs when it first leads. That is over, so that it cannot make up for what fails next.
        """
        with ExitStack() as stack:
            crews = [self.start_crew(command, **environment) for _ in range(count)]
            for crew in crews:
                stack.callback(crew.end)
            for crew in crews:
                self.wait_for(crew)
            if environment.get("OVERPAINT_KEEPER") != "false":
                eventually(lambda: bool(self.direct.exists(wire.EPOCH_KEY)), "the keeper's first listing")
            yield crews

    def start_crew(self, command: Sequence[str] = LIGHT_WORKER, **environment: str) -> Crew:
        """A supervisor that has been started; ending it is the caller's."""
        log = self.folder / f"worker-{time.monotonic_ns()}.log"
        with log.open("wb") as file:
            process = subprocess.Popen(
                command, env=self.worker_environment() | environment, stdout=file, stderr=subprocess.STDOUT
            )
        return Crew(process, log)

    def wait_for(self, crew: Crew) -> None:
        """Until its worker process has announced itself."""

        def announced() -> bool:
            assert crew.process.poll() is None, crew.text()
            child = crew.child
            return child is not None and any(card.pid == child.pid for card in self.alive())

        eventually(announced, "worker ready", START_LIMIT)

    def alive(self) -> list[WorkerCard]:
        """The workers whose cards have not expired."""
        redis: Any = self.direct
        names = redis.zrange(wire.FLEET_KEY, 0, -1)
        texts = redis.mget([wire.worker_key(name) for name in names]) if names else []
        return [WorkerCard.model_validate_json(text, extra="ignore") for text in texts if text]

    def job(self, prompt: str = "a blue square", *, steps: int = 4, strength: float = 0.5, **changes: object) -> Job:
        """A small job; `changes` are fields of Job."""
        fields = {
            "source": str(self.at("in", "scene.png")),
            "model": "overpaint-mini",
            "passes": (Img2Img(prompt=prompt, steps=steps, strength=strength),),
            "output": Output(prefix=self.output),
            **changes,
        }
        return Job.model_validate(fields)

    def submit(self, job: Job | None = None) -> JobHandle:
        """Submit a job, the plain one by default, and remember that it was accepted.

        Goes on trying for PERSISTENCE seconds while the store is down, as a caller would; then raises
        StorageUnavailable.
        """
        wanted = job or self.job()
        with self.lock:
            if self.producing is None:
                self.producing = Producer(self.settings())
        handle = self.producing.submit(wanted, retry_for=PERSISTENCE)
        with self.lock:
            self.accepted.append(handle.id)
        return handle

    def handle(self, job_id: str) -> JobHandle:
        """The handle of a job that was submitted here."""
        assert self.producing is not None
        return self.producing.handle(job_id)

    def submit_many(self, count: int, **changes: Any) -> list[JobHandle]:
        """That many jobs; `changes` are what `job` takes."""
        return [self.submit(self.job(**changes)) for _ in range(count)]

    def judge(self, *, within: float = BOUND) -> Verdict:
        """What the oracle says of everything since the stage was set up."""
        if self.oracle is None:
            self.oracle = Oracle(
                self.server.client, self.bucket.bucket, self.direct, self.s3, told=lambda: self.receiver.told
            )
        verdict = self.oracle.judge(list(self.accepted), within=within)
        self.broken = self.broken or not verdict.ok
        return verdict

    def arm(self, spec: str) -> None:
        """Arm fail points in every worker process that lives; see overpaint_common.failpoints."""
        self.control.arm(spec)
        pids = [card.pid for card in self.alive() if psutil.pid_exists(card.pid)]
        eventually(lambda: all(self.control.obeyed(pid) or not psutil.pid_exists(pid) for pid in pids), "armed", 10)

    def once(self) -> str:
        """The end of a fail point's spec that makes it act a single time, in one process."""
        return f",once:{self.folder / f'once-{time.monotonic_ns()}'}"

    def acted(self, once: str) -> bool:
        """Whether the fail point with that end has acted."""
        return Path(once.removeprefix(",once:")).exists()

    def heal(self) -> None:
        """No fault is in force any more."""
        self.control.arm("")
        self.redis_proxy.clear()
        self.s3.clear_rules()

    def leases(self) -> dict[str, str]:
        """Jobs in hand by Redis's account, with the name of the worker that holds each."""
        redis: Any = self.direct
        jobs: list[str] = redis.zrange(wire.LEASES_KEY, 0, -1)
        return {job_id: redis.hget(wire.lease_key(job_id), "worker") or "" for job_id in jobs}

    def in_hand(self) -> set[str]:
        """Jobs whose lease is held by a worker that lives."""
        living = {card.name for card in self.alive() if psutil.pid_exists(card.pid)}
        return {job_id for job_id, worker in self.leases().items() if worker in living}

    def worker_of(self, job_id: str) -> str:
        """Name of the worker that last reported on a job; empty where none did."""
        redis: Any = self.direct
        return redis.hget(wire.status_key(job_id), "worker") or ""

    def has_record(self, job_id: str) -> bool:
        """Whether a job is recorded, by what the store has answered."""
        return self._was("PUT", f"/{job_id}/record.json")

    def ended(self, job_id: str) -> bool:
        """Whether nothing is left to do for a job: its marker was deleted."""
        return self._was("DELETE", f"/{job_id}")

    def _was(self, method: str, end: str) -> bool:
        return any(w.method == method and w.succeeded and w.key.endswith(end) for w in reversed(self.s3.writes))

    @contextmanager
    def held(self, count: int, *, seconds: float = 20.0) -> Iterator[Held]:
        """That many jobs in hand of the workers, which go on when told, or at the end of the block."""
        gate = self.folder / f"gate-{time.monotonic_ns()}"
        # No priority may fill a worker alone; with half of the slots' worth of each, any worker can be filled.
        each = [self.submit_many((count + 1) // 2, prompt=f"gate:{gate}", priority=priority) for priority in PRIORITIES]
        handles = [handle for some in each for handle in some]
        try:
            # Others may be among them: while one job of ours is painted, no other is.
            eventually(lambda: len(self.in_hand()) >= count, f"{count} jobs in hand at once", seconds)
            yield Held(handles, gate)
        finally:
            gate.touch()

    def require_free_slots(self, slots: int, *, seconds: float = 20.0) -> None:
        """All `slots` of the workers can be filled at once, which would not be so if one had leaked."""
        with self.held(slots, seconds=seconds):
            pass

    def close(self) -> None:
        if self.producing is not None:
            self.producing.close()


def require_all_slots(play: Stage, crews: list[Crew]) -> None:
    """Whatever has happened, every slot can be filled again, and everything is done after that."""
    for crew in crews:
        play.wait_for(crew)
    play.require_free_slots(SLOTS * len(crews))
    play.judge().require()


@contextmanager
def stage(
    server: S3Server, folder: Path, *, durable: bool = False, environment: Mapping[str, str] | None = None
) -> Iterator[Stage]:
    """A stage without workers yet; `environment` is for all of them. A `durable` Redis writes everything down."""
    folder.mkdir(parents=True, exist_ok=True)
    with ExitStack() as stack:
        redis = stack.enter_context(EmbeddedRedis(folder / "redis", append_only=durable))
        bucket = stack.enter_context(server.bucket())
        s3 = stack.enter_context(RecordingProxy(server.endpoint_url))
        redis_proxy = stack.enter_context(RedisProxy(redis.url))
        receiver = stack.enter_context(Receiver())
        direct = stack.enter_context(Redis.from_url(redis.url, decode_responses=True, socket_timeout=10))
        built = Stage(
            *(redis, server, s3, bucket, folder, {**ENVIRONMENT, **(environment or {})}),
            redis_proxy=redis_proxy,
            direct=direct,
            receiver=receiver,
            control=Control(folder / "control"),
        )
        stack.callback(built.close)
        built.put("scene.png", encoded(picture()))
        yield built
