"""Workers that are not dead but look it, and tickets that come too often or not at all."""

from __future__ import annotations

import signal
import time
from contextlib import suppress
from typing import Any

import pytest

from overpaint_common import wire
from overpaint_common.tickets import TIME, ticket
from tests.faults.crew import Crew
from tests.faults.stage import LEASE, SLOTS, Stage
from tests.support.stack import eventually

QUEUE = wire.queue_name("overpaint-mini", "standard")


@pytest.mark.parametrize(
    "point",
    [
        "denoising",
        "uploaded",
        *(pytest.param(point, marks=pytest.mark.long) for point in ("claimed", "uploading", "recorded", "copied")),
    ],
)
def test_a_worker_that_sleeps_past_its_lease_and_wakes_up_does_no_harm(
    play: Stage, crews: list[Crew], point: str
) -> None:
    """Given a worker that is stopped with a job in hand, when it goes on after another ended the job, then one record
    stands and all its slots are free again."""
    once = play.once()
    play.arm(f"{point}=stop{once}")
    handle = play.submit(play.job(variants=2, output=play.publishing))
    eventually(lambda: play.acted(once), "a worker stopped")

    eventually(lambda: play.ended(handle.id), "the job ended by somebody else")
    for crew in crews:
        crew.signal_child(signal.SIGCONT)

    play.require_free_slots(2 * SLOTS)
    verdict = play.judge().require()
    assert verdict.records[handle.id]["status"] == "succeeded"


def test_tickets_that_a_frozen_worker_takes_to_its_grave_come_again(play: Stage, crews: list[Crew]) -> None:
    """Given two idle workers, when one is stopped, jobs are queued and it killed with a ticket, then all are done."""
    handles = []
    for _ in range(10):  # Redis gives a ticket to whoever has waited longest, so not always to the one that is stopped.
        crews[0].signal_child(signal.SIGSTOP)
        handles += play.submit_many(2)
        eventually(lambda: play.direct.llen(QUEUE) == 0, "all tickets taken")
        with suppress(AssertionError):
            eventually(lambda: play.direct.zcard(wire.queued_key(QUEUE)) == 0, "all tickets claimed", 1)
            crews[0].signal_child(signal.SIGCONT)
            continue
        break
    else:
        pytest.fail("the stopped worker was never given a ticket")

    crews[0].signal_child(signal.SIGKILL)

    verdict = play.judge().require()
    assert {verdict.records[handle.id]["status"] for handle in handles} == {"succeeded"}


@pytest.mark.usefixtures("crews")
def test_kombu_may_lose_its_notes(play: Stage) -> None:
    """Given jobs in hand, when kombu's hash of unacknowledged messages is deleted, then each job is done once."""
    before = play.judge().computed_twice
    with play.held(SLOTS):
        play.direct.delete("unacked", "unacked_index")

    assert play.judge().require().computed_twice == before


@pytest.mark.usefixtures("crews")
def test_a_storm_of_duplicate_tickets_paints_nothing_twice(play: Stage) -> None:
    """Given jobs in hand and jobs that have ended, when hundreds of tickets of them arrive, then none is run again."""
    ended = play.submit_many(4)
    play.judge().require()
    before = play.judge().computed_twice

    with play.held(SLOTS) as held:
        direct: Any = play.direct
        for handle in [*ended, *held.handles] * 25:
            direct.lpush(QUEUE, ticket(handle.id, QUEUE).replace(TIME, str(int(time.time() * 1000))))
        eventually(lambda: direct.llen(QUEUE) == 0, "all tickets taken")

    assert play.judge().require().computed_twice == before


@pytest.mark.long
@pytest.mark.usefixtures("crews")
def test_a_worker_whose_clock_is_two_hours_ahead_takes_nobodys_job_away(play: Stage) -> None:
    """Given a worker whose clock has kombu think that all messages are overdue, when it serves beside jobs in hand,
    then they are given back to nobody."""
    before = play.judge().computed_twice
    with play.crews(1, OVERPAINT_TEST_SKEW="7200"):
        with play.held(2 * SLOTS):
            play.submit_many(4)
            time.sleep(25)  # kombu looks for overdue messages every ten seconds.
        play.submit_many(12)
        verdict = play.judge().require()

    assert verdict.computed_twice == before


@pytest.mark.long
@pytest.mark.usefixtures("crews")
def test_a_job_longer_than_many_leases_is_done_once(play: Stage) -> None:
    """Given jobs that take ten leases, when nothing fails, then each is painted once."""
    before = play.judge().computed_twice
    with play.held(2 * SLOTS):
        time.sleep(10 * LEASE)

    assert play.judge().require().computed_twice == before
