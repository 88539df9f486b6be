"""Everything that chaos does to a stage, by lane; the faults of one lane follow each other, lanes overlap."""

from __future__ import annotations

import os
import random
import signal
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from threading import Event
from typing import Any

import psutil

from overpaint_common import wire
from overpaint_common.errors import OverpaintError
from overpaint_common.tickets import TIME, ticket
from tests.faults.crew import Crew
from tests.faults.recovery import Kill
from tests.faults.stage import Stage
from tests.support import faulty_http as http
from tests.support import redis_proxy as tcp
from tests.worker.envelopes import wrong_messages

QUEUE = wire.queue_name("overpaint-mini", "standard")

NOBODY = "no worker serves"
"""What a fault says that found no worker to harm."""

LONGEST = 15.0
"""Seconds that a fault lasts at most."""


@dataclass
class Scene:
    """What the faults play on."""

    stage: Stage
    crews: list[Crew]
    over: Event
    """Set when no fault shall last any longer."""
    lease: float
    """Seconds."""
    kills: list[Kill] = field(default_factory=list)
    said: dict[str, str] = field(default_factory=dict)
    """What cancelling a job returned."""
    orphans: list[psutil.Process] = field(default_factory=list)
    """Workers whose supervisor was killed; they end by themselves, or at the end of the run."""

    def wait(self, seconds: float) -> None:
        self.over.wait(seconds)

    def serving(self) -> list[Crew]:
        """Crews whose worker has announced itself."""
        pids = {card.pid for card in self.stage.alive()}
        return [crew for crew in list(self.crews) if (child := crew.child) is not None and child.pid in pids]


Trouble = Callable[[Scene, random.Random], str]
"""Does its worst, makes good again, and says what it was."""


def kill_worker(scene: Scene, chance: random.Random) -> str:
    """kill -9 of a worker process, of one with jobs in hand where there is one; the supervisor starts another."""
    serving = {crew.child.pid: crew for crew in scene.serving() if crew.child is not None}
    cards = [card for card in scene.stage.alive() if card.pid in serving]
    leases = scene.stage.leases()
    busy = [card for card in cards if card.name in leases.values()]
    if not cards:
        return NOBODY
    card = chance.choice(busy or cards)
    jobs = [job for job, worker in leases.items() if worker == card.name]
    now = time.time()
    if serving[card.pid].signal_child(signal.SIGKILL) != card.pid:
        return NOBODY
    scene.kills.append(Kill(now, card.name, jobs))
    return f"{card.name} with {len(jobs)} jobs"


def freeze_worker(scene: Scene, chance: random.Random) -> str:
    """SIGSTOP, often past the lease, and SIGCONT."""
    crews = scene.serving()
    if not crews:
        return NOBODY
    crew, seconds = chance.choice(crews), chance.uniform(0.5, min(3 * scene.lease, LONGEST))
    crew.signal_child(signal.SIGSTOP)
    scene.wait(seconds)
    crew.signal_child(signal.SIGCONT)
    return f"{seconds:.1f} s"


def replace_crew(scene: Scene, chance: random.Random) -> str:
    """A supervisor with its keeper is killed or told to stop, and another one started."""
    crew = chance.choice(scene.crews)
    child = crew.child
    if kills := chance.random() < 0.5:
        crew.process.kill()
        scene.orphans += [child] if child else []
    crew.end()
    scene.crews[scene.crews.index(crew)] = scene.stage.start_crew()
    return "killed" if kills else "stopped"


def redis_killed(scene: Scene, chance: random.Random) -> str:
    seconds = chance.uniform(0.1, 4)
    scene.stage.redis.kill()
    scene.wait(seconds)
    scene.stage.redis.start()
    return f"{seconds:.1f} s"


def redis_stopped(scene: Scene, chance: random.Random) -> str:
    seconds, pid = chance.uniform(0.5, min(4 * scene.lease, LONGEST)), scene.stage.redis.pid
    os.kill(pid, signal.SIGSTOP)
    scene.wait(seconds)
    os.kill(pid, signal.SIGCONT)
    return f"{seconds:.1f} s"


def redis_flushed(scene: Scene, _: random.Random) -> str:
    scene.stage.direct.flushall()
    return ""


def redis_network(scene: Scene, chance: random.Random) -> str:
    proxy, seconds = scene.stage.redis_proxy, chance.uniform(0.5, min(3 * scene.lease, LONGEST))
    name, trouble = chance.choice(
        [("half-open", proxy.pause), ("refused", proxy.down), ("slow", lambda: proxy.slow(0.2))]
    )
    with trouble():
        scene.wait(seconds)
    return f"{name} for {seconds:.1f} s"


def redis_cut(scene: Scene, chance: random.Random) -> str:
    name = chance.choice([None, "BRPOP", "EVALSHA"])
    return f"{scene.stage.redis_proxy.cut(tcp.commands(name))} connections, {name or 'all'}"


def clients_killed(scene: Scene, _: random.Random) -> str:
    direct: Any = scene.stage.direct
    return f"{direct.client_kill_filter(_type='normal', skipme=True)} connections"


def redis_answers_lost(scene: Scene, chance: random.Random) -> str:
    name, times = chance.choice(["BRPOP", "EVALSHA", "ZADD", "HSET", "ZREM", "EXEC"]), chance.randint(1, 5)
    rule = scene.stage.redis_proxy.on(tcp.commands(name), tcp.drop_response(), times=times)
    scene.wait(2)
    rule.times = rule.hits
    return f"{rule.hits} of {name}"


def redis_full(scene: Scene, chance: random.Random) -> str:
    direct: Any = scene.stage.direct
    direct.config_set("maxmemory", "1mb")
    scene.wait(chance.uniform(0.5, 4))
    direct.config_set("maxmemory", "0")
    return ""


def unacked_deleted(scene: Scene, _: random.Random) -> str:
    scene.stage.direct.delete("unacked", "unacked_index")
    return ""


def store_fails(scene: Scene, chance: random.Random) -> str:
    method, part = chance.choice(
        [("PUT", "/record.json"), ("PUT", "/out/"), ("PUT", "/ledger/open/"), ("DELETE", ""), ("GET", ""), (None, "")]
    )
    name, fault = chance.choice(
        [
            ("503", http.answer(503, "SlowDown")),
            ("reset", http.reset()),
            ("hanging", http.hang(8)),
            ("broken off", http.truncate(50)),
            ("not answered", http.drop_response()),
            ("slow", http.delay(0.5)),
        ]
    )
    seconds = chance.uniform(0.5, 4)
    rule = scene.stage.s3.on(http.requests(method, part), fault)
    scene.wait(seconds)
    rule.times = rule.hits
    return f"{rule.hits} {method or 'any'} {part} {name}"


def store_refuses(scene: Scene, chance: random.Random) -> str:
    seconds = chance.uniform(0.5, 5)
    with scene.stage.s3.down():
        scene.wait(seconds)
    return f"{seconds:.1f} s"


def jobs_cancelled(scene: Scene, chance: random.Random) -> str:
    cancelled, recent = 0, scene.stage.accepted[-12:]
    for job_id in chance.sample(recent, k=min(3, len(recent))):
        try:
            scene.said[job_id] = scene.stage.handle(job_id).cancel().status
            cancelled += 1
        except OverpaintError:
            pass  # The store is down; whether it was cancelled then is anybody's guess.
    return f"{cancelled} jobs"


def tickets_repeated(scene: Scene, chance: random.Random) -> str:
    direct: Any = scene.stage.direct
    jobs = chance.choices(scene.stage.accepted[-60:] or ["none-such"], k=100)
    for job_id in jobs:
        direct.lpush(QUEUE, ticket(job_id, QUEUE).replace(TIME, str(int(time.time() * 1000))))
    return f"{len(jobs)} tickets"


def bad_messages(scene: Scene, chance: random.Random) -> str:
    wrong = wrong_messages(QUEUE)
    chosen = chance.sample(sorted(wrong), k=5)
    for name in chosen:
        scene.stage.direct.lpush(QUEUE, wrong[name])
    return ", ".join(chosen)


LANES: Mapping[str, Mapping[Trouble, int]] = {
    "workers": {kill_worker: 6, freeze_worker: 3, replace_crew: 1},
    "redis": {
        redis_killed: 2,
        redis_stopped: 1,
        redis_flushed: 1,
        redis_network: 2,
        redis_cut: 1,
        clients_killed: 1,
        redis_answers_lost: 2,
        redis_full: 1,
        unacked_deleted: 1,
    },
    "store": {store_fails: 5, store_refuses: 1},
    "users": {jobs_cancelled: 3, tickets_repeated: 2, bad_messages: 1},
}
"""Faults by lane, with how often each is chosen."""

PAUSES: Mapping[str, tuple[float, float]] = {
    "kill": (0.3, 2.0),
    "workers": (1, 6),
    "redis": (4, 15),
    "store": (3, 12),
    "users": (2, 8),
}
"""Seconds between two faults of a lane, from and to."""
