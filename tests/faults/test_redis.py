"""Redis dies, forgets, stops, fills up, or loses its network."""

from __future__ import annotations

import os
import resource
import signal
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

import pytest

from overpaint_common import wire
from tests.faults.crew import Crew
from tests.faults.stage import LEASE, SLOTS, Stage, require_all_slots, stage
from tests.support.redis_proxy import commands, drop_response
from tests.support.s3 import S3Server
from tests.support.stack import eventually

ALL = 2 * SLOTS
OUTAGE = 1.5
"""Seconds."""


@pytest.fixture(scope="module")
def durable(server: S3Server, tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Stage, list[Crew]]]:
    """A stage whose Redis writes everything down."""
    with stage(server, tmp_path_factory.mktemp("durable"), durable=True) as play, play.crews(2) as crews:
        yield play, crews
        if not play.broken:
            require_all_slots(play, crews)


def all_well(play: Stage) -> None:
    """Nothing is lost."""
    verdict = play.judge().require()
    assert set(verdict.ends) == {"succeeded"}


@pytest.mark.parametrize(
    ("busy", "ending"),
    [
        pytest.param(0, False, marks=pytest.mark.long),
        pytest.param(3, False, marks=pytest.mark.long),
        (ALL, True),
        pytest.param(ALL, False, marks=pytest.mark.long),
    ],
)
def test_redis_killed_and_started_again(durable: tuple[Stage, list[Crew]], busy: int, ending: bool) -> None:
    """Given idle, partly busy or full workers, when Redis is killed and comes back with its data, while jobs end or
    not, then every job ends once and no slot has leaked."""
    play, _ = durable
    with play.held(busy) as held:
        play.redis.kill()
        if ending:
            held.go_on()
        in_the_dark = play.submit()
        time.sleep(OUTAGE)
        play.redis.start()

    assert in_the_dark.not_queued is not None
    play.require_free_slots(ALL)
    all_well(play)


def test_redis_started_again_without_its_data(play: Stage, crews: list[Crew]) -> None:
    """Given jobs in hand and jobs queued, when Redis starts again empty, then all of them end once."""
    with play.held(3):
        play.submit_many(6)
        play.redis.kill()
        time.sleep(OUTAGE)
        play.redis.start()

    all_well(play)
    assert all(crew.process.poll() is None for crew in crews)


@pytest.mark.usefixtures("crews")
def test_redis_flushed(play: Stage) -> None:
    """Given jobs in hand, jobs queued and jobs that ended, when Redis is flushed, then all of them end once."""
    before = play.judge().computed_twice
    with play.held(3):
        play.submit_many(6)
        play.direct.flushall()
        time.sleep(LEASE)

    all_well(play)
    assert play.judge().computed_twice == before, "those who lived were given time to take their leases again"


@pytest.mark.usefixtures("crews")
def test_the_connection_that_fetches_is_killed(play: Stage) -> None:
    """Given jobs in hand, when Redis kills every connection that waits in BRPOP, then no job is painted twice."""
    before = play.judge().computed_twice
    direct: Any = play.direct
    with play.held(3):
        for _ in range(3):
            for client in direct.client_list():
                if client["cmd"] == "brpop":
                    direct.client_kill_filter(_id=client["id"])
            time.sleep(0.3)

    all_well(play)
    assert play.judge().computed_twice == before


@contextmanager
def stopped(play: Stage) -> Iterator[None]:
    """The server's process does nothing, though the kernel goes on accepting for it."""
    os.kill(play.redis.pid, signal.SIGSTOP)
    try:
        yield
    finally:
        os.kill(play.redis.pid, signal.SIGCONT)


@contextmanager
def half_open(play: Stage) -> Iterator[None]:
    """The network swallows what is sent."""
    with play.redis_proxy.pause():
        yield


@contextmanager
def cut_off(play: Stage) -> Iterator[None]:
    """Connections are refused, while Redis itself is well and leases run."""
    with play.redis_proxy.down():
        yield


@contextmanager
def out_of_memory(play: Stage) -> Iterator[None]:
    """Redis refuses every write."""
    direct: Any = play.direct
    direct.config_set("maxmemory", "1mb")
    direct.config_set("maxmemory-policy", "noeviction")
    try:
        yield
    finally:
        direct.config_set("maxmemory", "0")


@contextmanager
def slow(play: Stage) -> Iterator[None]:
    """Every answer takes a while."""
    with play.redis_proxy.slow(0.15):
        yield


Outage = Callable[[Stage], Any]


@pytest.mark.usefixtures("crews")
@pytest.mark.parametrize(
    "outage", [stopped, half_open, cut_off, out_of_memory, pytest.param(slow, marks=pytest.mark.long)]
)
def test_redis_out_of_reach_for_longer_than_a_lease(play: Stage, outage: Outage) -> None:
    """Given jobs in hand and jobs queued, when Redis cannot be used for two leases, then all of them end once."""
    with play.held(3) as held:
        play.submit_many(3)
        with outage(play):
            time.sleep(LEASE)
            held.go_on()
            time.sleep(LEASE)

    all_well(play)


@pytest.mark.long
@pytest.mark.usefixtures("crews")
@pytest.mark.parametrize("outage", [stopped, half_open, out_of_memory])
def test_redis_out_of_reach_for_forty_seconds(play: Stage, outage: Outage) -> None:
    """Given busy workers, when Redis cannot be used for forty seconds, then all jobs end once."""
    with play.held(ALL):
        play.submit_many(6)
        with outage(play):
            time.sleep(40)

    all_well(play)


def test_redis_whose_disk_is_full(durable: tuple[Stage, list[Crew]]) -> None:
    """Given jobs in hand, when Redis can write nothing down any more, then all jobs end once it can again."""
    play, _ = durable
    pid = play.redis.pid
    size = max(file.stat().st_size for file in play.redis.folder.rglob("*.aof"))
    direct: Any = play.direct
    with play.held(3) as held, ExitStack() as full:
        resource.prlimit(pid, resource.RLIMIT_FSIZE, (size, resource.RLIM_INFINITY))
        full.callback(resource.prlimit, pid, resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
        eventually(lambda: direct.info("persistence")["aof_last_write_status"] == "err", "a write that failed")
        play.submit_many(3)
        held.go_on()
        time.sleep(LEASE)

    all_well(play)


@pytest.mark.usefixtures("crews")
@pytest.mark.parametrize("what", ["fetched ticket", "claim", "end of a lease"])
def test_an_answer_of_redis_that_never_arrives(play: Stage, what: str) -> None:
    """Given a command that Redis has carried out, when its answer is lost, then every job ends once."""
    command, key = {
        "fetched ticket": ("BRPOP", ""),
        "claim": ("EVALSHA", wire.LEASES_KEY),
        "end of a lease": ("ZREM", "unacked_index"),
    }[what]
    rule = play.redis_proxy.on(commands(command, key), drop_response(), times=2)

    play.submit_many(6)

    all_well(play)
    assert rule.hits == 2
