"""A fleet under load and under attack, for as long as asked; then peace, and the oracle's verdict."""

from __future__ import annotations

import random
import shutil
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path

import psutil
from redis.exceptions import RedisError

from overpaint_common import wire
from overpaint_common.errors import OverpaintError
from overpaint_common.job import PRIORITIES
from tests.faults.census import Census, Span
from tests.faults.oracle import Verdict
from tests.faults.recovery import Kill, Recovery, recoveries, watch_returns
from tests.faults.stage import LEASE, Stage, stage
from tests.faults.troubles import LANES, NOBODY, PAUSES, Scene, Trouble, kill_worker
from tests.support.s3 import S3Server
from tests.support.stack import eventually

MOST_OPEN = 60
"""Accepted and unfinished jobs at which the load pauses."""

BOUND = 180.0
"""Seconds that the fleet may take to settle once it is left in peace, besides SETTLING_LEASES leases."""

SETTLING_LEASES = 4

SUBMITTERS = 2

FAR = timedelta(hours=1)
"""After which the deadlines come that some jobs have."""

STEP = "0.02"
"""Seconds that a denoising step takes, so that the fleet has its hands full."""


@dataclass(frozen=True)
class Plan:
    """What to do; the same plan plays the same faults, though never at the same instant."""

    seed: int = 1
    seconds: float = 60
    workers: int = 3
    rate: float = 5
    """Jobs a second."""
    lanes: tuple[str, ...] = tuple(LANES)
    kills: int | None = None
    """Only kill workers, until there were that many or the time is up."""
    lease: float = LEASE
    """Seconds."""
    every: float = 0
    """With kills: seconds that pass at least between two of them; without it at most 2 do."""


@dataclass(frozen=True)
class Played:
    """One fault as it was."""

    lane: str
    name: str
    detail: str
    began: float
    """Seconds since the run began."""
    ended: float


@dataclass
class Run:
    """What happened."""

    plan: Plan
    faults: list[Played] = field(default_factory=list)
    kills: list[Kill] = field(default_factory=list)
    recoveries: list[Recovery] = field(default_factory=list)
    """One for each job in hand of a killed worker, as far as Redis still knew."""
    open_jobs: list[tuple[float, int, int]] = field(default_factory=list)
    """Seconds since the run began, jobs accepted, jobs recorded."""
    accepted_at: list[float] = field(default_factory=list)
    """Seconds since the run began; one for each accepted job."""
    recorded_at: list[float] = field(default_factory=list)
    """The same of each record."""
    spans: list[Span] = field(default_factory=list)
    """What each crew's worker was doing."""
    verdict: Verdict | None = None
    complaints: list[str] = field(default_factory=list)
    """What else is wrong."""
    peace_at: float = 0
    last_write_at: float = 0
    """Seconds since the run began, of the last change of the store."""
    interrupted: bool = False

    @property
    def ok(self) -> bool:
        return self.verdict is not None and self.verdict.ok and not self.complaints


@dataclass(frozen=True)
class Move:
    """One fault to come."""

    pause: float
    """Seconds since the fault before it in its lane."""
    trouble: Trouble
    seed: float
    """Of what the fault leaves to chance."""


def moves(seed: int, lane: str) -> Iterator[Move]:
    """The faults of a lane, without end; `kill` is a lane of nothing but killed workers."""
    chance = random.Random(f"{seed} {lane}")
    choices = {kill_worker: 1} if lane == "kill" else LANES[lane]
    while True:
        pause = chance.uniform(*PAUSES[lane])
        yield Move(pause, chance.choices(list(choices), weights=list(choices.values()))[0], chance.random())


def play(
    plan: Plan,
    server: S3Server,
    *,
    logs: Path | None = None,
    say: Callable[[str], None] = print,
    stop: threading.Event | None = None,
) -> Run:
    """Play the plan and judge it. `logs` gets the logs of all workers; setting `stop` ends the attack early."""
    run = Run(plan)
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="overpaint-chaos-")))
        if logs is not None:
            stack.callback(_keep_logs, folder, logs)
        environment = {"OVERPAINT_TEST_STEP": STEP, "OVERPAINT_LEASE": str(plan.lease)}
        built = stack.enter_context(stage(server, folder, durable=True, environment=environment))
        scene = Scene(built, [], threading.Event(), plan.lease)
        stack.callback(_end_all, scene)
        _start_all(scene, plan.workers)
        with _ended(_watchers_of_kills(run, scene, settled := threading.Event()), settled):
            started = _attack(run, scene, say, stop or threading.Event())
            _settle(run, scene, started, say)
    return run


def _attack(run: Run, scene: Scene, say: Callable[[str], None], stop: threading.Event) -> float:
    """Returns the monotonic time at which it began."""
    started = time.monotonic()
    done, enough = threading.Event(), threading.Event()
    lanes = [
        threading.Thread(target=_play_lane, args=(run, scene, lane, started, done), name=lane)
        for lane in (("kill",) if run.plan.kills else run.plan.lanes)
    ]
    load = [threading.Thread(target=_load, args=(run, scene, number, started, enough)) for number in range(SUBMITTERS)]
    watch = threading.Thread(target=_watch, args=(run, scene, started, enough))
    census = Census(scene.stage.redis.url, lambda: scene.crews, started)
    count = threading.Thread(target=census.watch, args=(enough,))
    with _ended([*load, watch, count], enough), _ended([*lanes], done):
        told = 0.0
        while time.monotonic() - started < run.plan.seconds and any(lane.is_alive() for lane in lanes):
            if stop.wait(0.2):
                break
            if time.monotonic() - told > 10:
                told = time.monotonic()
                say(_progress(run, scene, started))
        done.set()
        scene.over.set()
    run.interrupted = stop.is_set()
    run.kills, run.spans = scene.kills, census.spans
    run.peace_at = time.monotonic() - started
    return started


def _watchers_of_kills(run: Run, scene: Scene, settled: threading.Event) -> list[threading.Thread]:
    """None where Redis is attacked as well, which loses leases."""
    watching = threading.Thread(target=watch_returns, args=(scene.stage.direct, scene.kills, settled))
    return [watching] if run.plan.kills else []


def _settle(run: Run, scene: Scene, started: float, say: Callable[[str], None]) -> None:
    scene.stage.heal()
    scene.stage.redis.start()
    if run.interrupted:  # Ctrl-C reaches the workers as well.
        _replace_all(scene)
    for crew in scene.crews:
        scene.stage.wait_for(crew)
    say(f"{_progress(run, scene, started)}; peace: waiting until nothing is left to do")
    run.verdict = scene.stage.judge(within=BOUND + SETTLING_LEASES * run.plan.lease)
    run.recoveries = list(recoveries(scene.stage.direct, run.kills))
    writes = scene.stage.s3.writes
    run.last_write_at = max((write.at - started for write in writes), default=0)
    puts = {w.key: w.at - started for w in reversed(writes) if w.method == "PUT" and w.succeeded}
    run.recorded_at = sorted(
        at for key, at in puts.items() if key.startswith("ledger/jobs/") and key.endswith("/record.json")
    )
    for job_id, status in scene.said.items():
        found = run.verdict.records.get(job_id, {}).get("status")
        if found != status:
            run.complaints.append(f"cancelling {job_id} said {status}, and its record says {found}")


@contextmanager
def _ended(threads: Sequence[threading.Thread], over: threading.Event) -> Iterator[None]:
    for thread in threads:
        thread.start()
    try:
        yield
    finally:
        over.set()
        for thread in threads:
            thread.join()


def _play_lane(run: Run, scene: Scene, lane: str, started: float, done: threading.Event) -> None:
    for move in moves(run.plan.seed, lane):
        if done.wait(run.plan.every + move.pause):
            return
        began = time.monotonic() - started
        try:
            detail = move.trouble(scene, random.Random(move.seed))
        except (RedisError, OverpaintError, AssertionError, psutil.Error) as error:
            detail = f"not played: {type(error).__name__}"  # Another lane's fault was in the way.
        if detail == NOBODY:
            continue
        name = getattr(move.trouble, "__name__", lane)
        run.faults.append(Played(lane, name, detail, began, time.monotonic() - started))
        if lane == "kill" and run.plan.kills and len(scene.kills) >= run.plan.kills:
            return


def _load(run: Run, scene: Scene, number: int, started: float, enough: threading.Event) -> None:
    chance = random.Random(f"{run.plan.seed} load {number}")
    built = scene.stage
    while not enough.wait(chance.expovariate(run.plan.rate / SUBMITTERS)):
        if len(built.accepted) - _recorded(built) > MOST_OPEN:
            continue
        job = built.job(
            steps=chance.choice([2, 4, 20, 60]),
            strength=chance.choice([0, 0.5, 0.5, 1]),
            variants=chance.choice([1, 1, 2, 4]),
            priority=chance.choice(PRIORITIES),
            webhook=f"{built.receiver.url}/done" if chance.random() < 0.3 else None,
            deadline=datetime.now(UTC) + FAR if chance.random() < 0.2 else None,
        )
        with suppress(OverpaintError):  # Not accepted, so nothing was promised.
            built.submit(job)
            run.accepted_at.append(time.monotonic() - started)


def _watch(run: Run, scene: Scene, started: float, enough: threading.Event) -> None:
    while not enough.wait(0.5):
        run.open_jobs.append((time.monotonic() - started, len(scene.stage.accepted), _recorded(scene.stage)))


def _recorded(built: Stage) -> int:
    return built.s3.records


def _progress(run: Run, scene: Scene, started: float) -> str:
    accepted, recorded = len(scene.stage.accepted), _recorded(scene.stage)
    seconds = time.monotonic() - started
    played = f"{len(run.faults)} faults, {len(scene.kills)} kills"
    return f"{seconds:6.0f} s  {accepted} accepted, {recorded} recorded, {played}"


def _start_all(scene: Scene, workers: int) -> None:
    for _ in range(workers):
        scene.crews.append(scene.stage.start_crew())
    for crew in scene.crews:
        scene.stage.wait_for(crew)
    listed = scene.stage.direct.exists
    # Which comes a lease after it leads, and would make up for what fails until then.
    eventually(lambda: bool(listed(wire.EPOCH_KEY)), "the keeper's first listing", 30 + 2 * scene.lease)


def _replace_all(scene: Scene) -> None:
    for number, crew in enumerate(scene.crews):
        crew.end()
        scene.crews[number] = scene.stage.start_crew()


def _end_all(scene: Scene) -> None:
    for crew in scene.crews:
        crew.end()
    for orphan in scene.orphans:
        with suppress(psutil.NoSuchProcess):
            orphan.kill()


def _keep_logs(folder: Path, logs: Path) -> None:
    logs.mkdir(parents=True, exist_ok=True)
    for file in [*folder.glob("worker-*.log"), folder / "redis" / "redis.log"]:
        shutil.copy(file, logs / file.name)
