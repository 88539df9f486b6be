"""Leases on a real Redis: who holds a job, what its attempts counted as, and what becomes of it."""

from __future__ import annotations

import json
import threading

import pytest

from overpaint_common import wire
from overpaint_common.leases import Claim, Lapsed, Leases, Refusal
from overpaint_common.live import Attempts, Progress
from tests.keeper.conftest import Place, queue_of
from tests.support.stack import eventually


def lapsed(place: Place) -> list[Lapsed]:
    eventually(lambda: bool(place.leases.lapsed(10, place.leases.now_ms())), "lease lapsed", 5)
    return place.leases.lapsed(10, place.leases.now_ms())


def test_one_of_two_tickets_gets_the_job(place: Place) -> None:
    """Given two tickets of one job, when both are claimed, then the second is told who holds it."""
    job = place.accept()
    claim = place.claim(job)
    other = Leases(place.redis, seconds=30, worker="elsewhere")

    assert other.claim(job.id, queue_of(job), 0) == Refusal("held", "here")
    assert claim.attempts == Attempts(1, 0)
    place.leases.done(claim)
    assert isinstance(other.claim(job.id, queue_of(job), 0), Claim)


def test_a_ticket_of_a_finished_job_costs_no_look_at_the_ledger(place: Place) -> None:
    """Given a job whose end is known, when another ticket comes, then it is dropped."""
    job = place.accept()
    place.live.report({job.id: [Progress(state="cancelled")]})
    assert place.leases.claim(job.id, queue_of(job), 0) == Refusal("finished", "")
    assert not place.redis.zscore(wire.queued_key(queue_of(job)), job.id)


def test_a_renewed_lease_lasts_and_a_silent_one_lapses(place: Place) -> None:
    """Given a lease, when it is renewed it lives on; when its holder falls silent it lapses on Redis's clock."""
    job = place.accept()
    claim = place.claim(job)
    ends = place.redis.zscore(wire.LEASES_KEY, job.id)
    threading.Event().wait(0.05)
    assert place.leases.renew([claim]) == []
    assert place.redis.zscore(wire.LEASES_KEY, job.id) > ends

    assert lapsed(place) == [Lapsed(job.id, claim.attempt, "here", queue_of(job))]


def test_a_renewal_takes_a_lost_lease_again_and_stops_at_anothers(place: Place) -> None:
    """Given a lease that a flush took, when it is renewed, then it is back; once another holds it, it is lost."""
    job = place.accept()
    claim = place.claim(job)
    place.redis.flushall()
    assert place.leases.renew([claim]) == []
    assert place.redis.hget(wire.lease_key(job.id), "attempt") == claim.attempt

    place.leases.done(claim)
    other = place.leases.claim(job.id, queue_of(job), 0)
    assert isinstance(other, Claim)
    assert place.leases.renew([claim]) == [claim]
    place.leases.give_back(claim, counted="")
    assert place.waiting(job) == 0, "who does not hold a job gives nothing back"
    assert place.redis.hget(wire.lease_key(job.id), "attempt") == other.attempt


def test_a_job_given_back_has_a_ticket_at_once_or_later_or_runs_alone(place: Place) -> None:
    """Given claims that end without a result, when they are given back, then each waits where it was meant to."""
    now, later, alone = (place.accept() for _ in range(3))
    claims = [place.claim(job) for job in (now, later, alone)]
    place.leases.give_back(claims[0], counted="outages")
    place.leases.give_back(claims[1], counted="", delay=60)
    place.leases.give_back(claims[2], counted="crashes", alone=True)

    message = json.loads(place.redis.lindex(queue_of(now), 0))
    job_id, queued_ms = json.loads(message["body"])[0]
    assert job_id == now.id
    assert place.redis.zscore(wire.queued_key(queue_of(now)), now.id) == queued_ms
    due = place.redis.zscore(wire.DELAYED_KEY, f"{queue_of(later)} {later.id}")
    assert 59_000 < due - place.leases.now_ms() <= 60_000
    assert place.redis.zrange(wire.solo_key("mini"), 0, -1) == [alone.id]
    assert not place.redis.zcard(wire.LEASES_KEY)


def test_a_suspect_is_claimed_without_a_ticket(place: Place) -> None:
    """Given a suspect, when a worker asks for one, then it holds it, counts included, and nobody else gets it."""
    job = place.accept()
    place.leases.give_back(place.claim(job), counted="crashes", alone=True)

    claim = place.leases.claim_suspect("mini")

    assert claim is not None
    assert (claim.job_id, claim.attempts) == (job.id, Attempts(2, 0, 1))
    assert place.leases.claim_suspect("mini") is None
    assert place.leases.claim_suspect("other") is None


@pytest.mark.parametrize(
    ("phase", "counts"),
    [("fetch", Attempts(1, 1, 0)), ("wait", Attempts(1, 1, 0)), ("upload", Attempts(1, 1, 0))]
    + [(phase, Attempts(1, 0, 1)) for phase in ("prepare", "load", "denoise", "encode")],
)
def test_a_death_is_blamed_on_jobs_that_were_worked_on(place: Place, phase: str, counts: Attempts) -> None:
    """Given a worker that died, when its jobs are returned, then those that only waited are not suspected."""
    job = place.accept()
    place.claim(job)
    place.live.report({job.id: [Progress(state="running", phase=phase)]})
    (silent,) = lapsed(place)

    returned = place.leases.give_lapsed_back(silent, silent.queue)

    assert returned is not None
    assert (returned.what, returned.attempts) == ("queued", counts)
    assert place.waiting(job) == 1
    assert place.leases.give_lapsed_back(silent, silent.queue) is None, "once is enough"


def test_after_two_crashes_a_job_runs_alone_and_after_three_it_is_given_up(place: Place) -> None:
    """Given a job that takes each worker along, when its leases lapse, then it is queued, isolated, given up."""
    job = place.accept()
    claim: Claim | None = place.claim(job)
    seen = []
    for _ in range(3):
        assert claim is not None
        place.paints(job)
        (silent,) = lapsed(place)
        returned = place.leases.give_lapsed_back(silent, silent.queue)
        assert returned is not None
        seen.append((returned.what, returned.attempts.crashes))
        claim = place.claim(job) if returned.what == "queued" else place.leases.claim_suspect("mini")

    assert seen == [("queued", 1), ("solo", 2), ("give_up", 3)]
    assert claim is None
    assert place.redis.hget(wire.lease_key(job.id), "worker") == "here", "its end is the keeper's to record"


def test_a_lapse_that_nobody_saw_counts_when_the_job_is_claimed_again(place: Place) -> None:
    """Given a silent holder and no keeper, when another ticket is claimed, then the crash is counted all the same."""
    job = place.accept()
    place.claim(job)
    place.paints(job)
    lapsed(place)
    again = place.leases.claim(job.id, queue_of(job), 0)
    assert isinstance(again, Claim)
    assert again.attempts == Attempts(2, 0, 1)
