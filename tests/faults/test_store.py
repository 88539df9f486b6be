"""Object storage refuses, hangs, breaks off, or acts and does not answer."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager

import pytest

from tests.faults.stage import LEASE, SLOTS, Stage
from tests.support.faulty_http import (
    Exchange,
    Fault,
    Predicate,
    answer,
    delay,
    drop_response,
    hang,
    requests,
    reset,
    truncate,
)


def all_well(play: Stage) -> None:
    verdict = play.judge().require()
    assert set(verdict.ends) == {"succeeded"}


def act_and(say: Fault) -> Fault:
    """The server acts on the request, and the client is told something else."""

    def fault(exchange: Exchange) -> None:
        exchange.forward()
        say(exchange)

    return fault


BUSY = answer(503, "SlowDown")
ANY, READ, PICTURE, RECORD = requests(), requests("GET"), requests("PUT", "/out/"), requests("PUT", "/record.json")
TIDYING, MARKER = requests("PUT", "/result.json"), requests("DELETE", "/ledger/open/")

FAULTS: dict[str, tuple[Predicate, Fault, int]] = {
    "many requests are throttled": (ANY, BUSY, 25),
    "sources break off": (requests("GET", "/in/"), truncate(100), 8),
    "the ledger breaks off": (requests("GET", "/ledger/"), truncate(10), 8),
    "reads hang": (READ, hang(6), 3),
    "uploads hang": (PICTURE, hang(6), 3),
    "uploads are reset": (PICTURE, reset(), 12),
    "uploads are stored and not answered": (PICTURE, drop_response(), 12),
    "commits are refused": (RECORD, BUSY, 12),
    "commits are reset": (RECORD, reset(), 12),
    "commits are stored and not answered": (RECORD, drop_response(), 12),
    "commits are stored and answered with an error": (RECORD, act_and(BUSY), 12),
    "tidying up is refused": (TIDYING, BUSY, 12),
    "markers stay": (MARKER, BUSY, 12),
    "markers go without an answer": (MARKER, drop_response(), 12),
    "everything is slow": (ANY, delay(0.1), 100),
}


SHORT_FORM = (
    "uploads hang",
    "uploads are reset",
    "commits are stored and not answered",
    "commits are stored and answered with an error",
    "markers stay",
)


@pytest.mark.usefixtures("crews")
@pytest.mark.parametrize(
    "fault", [name if name in SHORT_FORM else pytest.param(name, marks=pytest.mark.long) for name in FAULTS]
)
def test_jobs_survive_a_store_that_fails(play: Stage, fault: str) -> None:
    """Given jobs in hand and jobs to come, when the store fails in one way for a while, then all of them end once."""
    matches, action, times = FAULTS[fault]
    with play.held(2):
        rule = play.s3.on(matches, action, times=times)
        play.submit_many(4, variants=2)

    all_well(play)
    assert rule.hits > 0


@contextmanager
def refused(play: Stage) -> Iterator[None]:
    with play.s3.down():
        yield


@contextmanager
def throttled(play: Stage) -> Iterator[None]:
    play.s3.on(ANY, BUSY)
    yield
    play.s3.clear_rules()


@contextmanager
def silent(play: Stage) -> Iterator[None]:
    play.s3.on(ANY, hang(60))
    yield
    play.s3.clear_rules()


Outage = Callable[[Stage], AbstractContextManager[None]]


@pytest.mark.usefixtures("crews")
@pytest.mark.parametrize(
    "outage", [*(pytest.param(each, marks=pytest.mark.long) for each in (refused, throttled)), silent]
)
def test_jobs_survive_an_outage_of_the_store(play: Stage, outage: Outage) -> None:
    """Given jobs in hand and jobs queued, when the store is gone for two leases, then all of them end once."""
    with play.held(4) as held:
        play.submit_many(4)
        with outage(play):
            held.go_on()
            time.sleep(2 * LEASE)

    all_well(play)


@pytest.mark.long
@pytest.mark.usefixtures("crews")
@pytest.mark.parametrize("outage", [refused, throttled, silent])
def test_jobs_survive_a_minute_without_the_store(play: Stage, outage: Outage) -> None:
    """Given busy workers, when the store is gone for a minute, then all jobs end once."""
    with play.held(2 * SLOTS) as held:
        play.submit_many(8)
        with outage(play):
            held.go_on()
            time.sleep(60)

    all_well(play)
