"""What an attempt counts as when Redis, a connection or a worker fails at an awkward moment: a suspect is rare."""

from __future__ import annotations

import signal
import subprocess
import sys
import threading

from overpaint_common import wire
from overpaint_common.leases import Claim, Returned
from overpaint_common.live import Attempts, Progress
from tests.keeper.conftest import Place, queue_of
from tests.support.stack import eventually


def returned(place: Place) -> Returned | None:
    """What becomes of the job whose lease lapses next."""
    eventually(lambda: bool(place.leases.lapsed(1, place.leases.now_ms())), "lease lapsed", 5)
    (silent,) = place.leases.lapsed(1, place.leases.now_ms())
    return place.leases.give_lapsed_back(silent, silent.queue)


def test_a_claim_whose_answer_was_lost_is_no_crash(place: Place) -> None:
    """Given a job that was painted before, when nobody hears of its new lease, then what lapses is no crash."""
    job = place.accept()
    first = place.claim(job)
    place.paints(job)
    place.leases.give_back(first, counted="")

    place.claim(job)

    assert returned(place) == Returned("queued", Attempts(2, 1, 0))


def test_a_suspect_that_waits_to_be_alone_dies_of_nothing(place: Place) -> None:
    """Given a suspect whose worker is not empty yet, when that dies, then the suspect has its run alone before it."""
    job = place.accept()
    claim = place.claim(job)
    place.paints(job)
    place.redis.hset(wire.attempts_key(job.id), "crashes", 1)
    place.leases.give_back(claim, counted="crashes", alone=True)

    assert place.leases.claim_suspect("mini") is not None

    assert returned(place) == Returned("solo", Attempts(2, 1, 2))


def test_an_end_of_a_lease_that_is_tried_twice_counts_once(place: Place) -> None:
    """Given a lease whose end Redis has not confirmed, when it is ended again, then one crash was one crash."""
    job = place.accept()
    claim = place.claim(job)
    for _ in range(3):
        place.leases.give_back(claim, counted="crashes")
    again = place.leases.claim(job.id, queue_of(job), 0)
    assert isinstance(again, Claim)
    assert again.attempts == Attempts(2, 0, 1)


def test_a_renewal_that_comes_after_the_end_of_its_lease_is_no_crash(place: Place) -> None:
    """Given a job given back, when a renewal from before arrives late, then that lease lapses and blames nobody."""
    job = place.accept()
    claim = place.claim(job)
    place.paints(job)
    place.leases.give_back(claim, counted="")
    place.live.report({job.id: [Progress(state="queued")]})

    assert place.leases.renew([claim]) == []

    assert returned(place) == Returned("queued", Attempts(1, 1, 0))


def test_a_suspect_pauses_as_others_do(place: Place) -> None:
    """Given a suspect that an outage interrupts, when it is given back with a pause, then nobody takes it before."""
    job = place.accept()
    place.leases.give_back(place.claim(job), counted="outages", delay=0.5, alone=True)
    assert place.leases.claim_suspect("mini") is None
    eventually(lambda: place.leases.claim_suspect("mini") is not None, "due", 5)


def test_a_picture_that_kills_its_reader_at_once_is_to_blame(place: Place) -> None:
    """Given a worker that flushes its progress, when it dies the moment after, then Redis knows what it was at."""
    job = place.accept()
    place.claim(job)
    code = f"""
import os, signal, sys
from overpaint_common.live import Live, Progress, connect
from overpaint_worker.reporter import Reporter

reporter = Reporter(Live(connect({place.server.url!r})))
reporter.start()
reporter.post({job.id!r}, Progress(state="running", phase="prepare"))
reporter.flush({job.id!r}, 10)
os.kill(os.getpid(), signal.SIGKILL)
"""
    died = subprocess.run([sys.executable, "-c", code], timeout=60, check=False)
    assert died.returncode == -signal.SIGKILL
    assert returned(place) == Returned("queued", Attempts(1, 0, 1))


def test_a_ticket_from_the_future_does_not_make_others_look_lost(place: Place) -> None:
    """Given a ticket later than Redis's clock, as after it was set back, when the keeper looks, then it sends none."""
    ahead = place.leases.now_ms() + 7_200_000
    early, late, waiting = (place.accept() for _ in range(3))
    newest = wire.newest_key(queue_of(waiting))
    assert isinstance(place.leases.claim(early.id, queue_of(early), ahead), Claim)
    assert place.redis.get(newest) is None

    place.redis.set(newest, ahead)
    for _ in range(3):
        assert place.backlog.return_lost(place.leases.now_ms()) == 0
        threading.Event().wait(0.15)

    now = place.leases.now_ms()
    place.leases.claim(late.id, queue_of(late), now)
    assert int(place.redis.get(newest)) == now
