"""The keeper with a real Redis and a ledger: whatever is lost comes back, whatever has ended is tidied."""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta

from overpaint_common import wire
from overpaint_common.leases import Claim
from overpaint_common.ledger import Ledger
from overpaint_common.live import Progress, connect
from overpaint_common.raw import RawMessage
from overpaint_common.references import Reference
from overpaint_common.result import Failure
from overpaint_common.storage import LocalStore, ObjectInfo
from overpaint_worker.keeper.keeper import Keeper
from overpaint_worker.keeper.leader import Leader
from overpaint_worker.keeper.raw import RawMessages
from overpaint_worker.keeper.rebuild import Rebuild
from tests.keeper.conftest import Place, queue_of
from tests.support.stack import eventually

Keeping = Callable[..., Keeper]


def test_the_jobs_of_a_silent_worker_are_queued_again(place: Place, keeping: Keeping) -> None:
    """Given a claimed job whose holder falls silent, when its lease has lapsed, then a new ticket waits."""
    job = place.accept()
    place.claim(job)
    place.paints(job)
    keeping()
    eventually(lambda: place.waiting(job) == 1, "queued again", 6)
    assert place.open_jobs() == [job.id]
    told = place.live.progress(job.id)
    assert told is not None
    assert (told.state, told.phase) == ("queued", "")
    assert place.live.events(job.id, "0", block=0.1)[1][-1] == told
    assert not place.redis.zcard(wire.LEASES_KEY)


def test_a_job_that_kills_every_worker_ends_as_failed_with_a_dead_letter(place: Place, keeping: Keeping) -> None:
    """Given three crashes, when the last lease lapses, then record and letter say so and nothing stays open."""
    job = place.accept()
    place.redis.hset(wire.attempts_key(job.id), "crashes", 2)
    place.claim(job)
    place.paints(job)
    keeping()
    eventually(lambda: not place.open_jobs(), "given up", 6)
    record = place.ledger.record(job.id)
    assert record is not None
    assert record.failure is not None
    assert (record.status, record.failure.code) == ("failed", "worker_crashed")
    letter = place.dead.read(f"jobs/{job.id}")
    assert (letter.code, letter.document is not None) == ("worker_crashed", True)
    eventually(lambda: not place.redis.exists(wire.lease_key(job.id)), "lease gone")


def test_a_ticket_that_vanished_between_redis_and_worker_is_sent_again(place: Place, keeping: Keeping) -> None:
    """Given a ticket that was fetched and never claimed, when a newer one is claimed, or none waits, it comes back."""
    lost, newer = place.accept(), place.accept()
    place.fetch(lost)
    keeping()
    claim = place.claim(newer)
    place.leases.done(claim)
    eventually(lambda: place.waiting(lost) == 1, "sent again", 6)
    place.claim(lost)


def test_a_long_backlog_is_not_ticketed_twice(place: Place, keeping: Keeping) -> None:
    """Given jobs that wait their turn for long, when the keeper looks, then it leaves their tickets alone."""
    jobs = [place.accept() for _ in range(20)]
    keeping()
    threading.Event().wait(2.5)
    assert place.waiting(jobs[0]) == 20
    for job in jobs[:5]:
        place.leases.done(place.claim(job))
    threading.Event().wait(1.5)
    assert place.waiting(jobs[0]) == 15


def test_a_retry_is_queued_when_its_pause_is_over(place: Place, keeping: Keeping) -> None:
    """Given a job given back with a pause, when that has passed, then its ticket waits, and not before."""
    job = place.accept()
    place.leases.give_back(place.claim(job), counted="", delay=1.5)
    keeping()
    threading.Event().wait(0.7)
    assert place.waiting(job) == 0
    eventually(lambda: place.waiting(job) == 1, "queued", 5)
    assert not place.redis.exists(wire.DELAYED_KEY)


def test_a_flush_costs_redis_its_data_and_no_job(place: Place, keeping: Keeping) -> None:
    """Given waiting, running and half-finished jobs, when Redis is flushed, then what nobody holds is queued anew.

    The running job's lease is renewed within the wait; a job with a record is finished without a worker.
    """
    keeping()
    eventually(lambda: bool(place.redis.exists(wire.EPOCH_KEY)), "first epoch", 8)
    waiting, ended = (place.accept() for _ in range(2))
    deadline = datetime.now(UTC) + timedelta(hours=1)
    dated, running = (place.accept(deadline=deadline) for _ in range(2))
    for job in (waiting, running, ended, dated):
        place.fetch(job)
    claim = place.leases.claim(running.id, queue_of(running), 0)
    assert isinstance(claim, Claim)
    place.record(ended)

    place.redis.flushall()
    renewing = threading.Event()

    def renew() -> None:
        while not renewing.wait(0.2):
            place.leases.renew([claim])

    thread = threading.Thread(target=renew)
    thread.start()
    try:
        eventually(lambda: bool(place.redis.exists(wire.EPOCH_KEY)), "rebuilt", 8)
        eventually(lambda: ended.id not in place.open_jobs(), "finished without a worker", 5)
        queued = set(place.redis.zrange(wire.queued_key(queue_of(waiting)), 0, -1))
        assert {waiting.id, dated.id} <= queued <= {waiting.id, dated.id, ended.id}
        due = {dated.id, running.id}
        eventually(lambda: set(place.redis.zrange(wire.DEADLINES_KEY, 0, -1)) == due, "deadlines remembered", 5)
        assert place.redis.hget(wire.lease_key(running.id), "attempt") == claim.attempt
    finally:
        renewing.set()
        thread.join()


def test_a_job_cancelled_while_no_worker_is_up_is_tidied(place: Place, keeping: Keeping) -> None:
    """Given a queued job, when it is cancelled, then the keeper copies the record and deletes the marker."""
    job = place.accept()
    place.live.end(place.record(job, "cancelled"))
    keeping()
    eventually(lambda: not place.open_jobs(), "finished", 6)
    assert (place.folder / "out" / job.id / "result.json").exists()
    eventually(lambda: not place.redis.exists(wire.ENDED_KEY), "forgotten", 6)


def test_a_job_cancelled_while_it_runs_is_left_to_its_worker(place: Place, keeping: Keeping) -> None:
    """Given a held job, when it is cancelled, then the keeper waits for the holder, who may still be storing."""
    place.lease = 30
    job = place.accept()
    claim = place.claim(job)
    place.live.end(place.record(job, "cancelled"))
    keeping()
    threading.Event().wait(1.5)
    assert place.open_jobs() == [job.id]
    place.leases.done(claim)
    assert not place.redis.exists(wire.ENDED_KEY), "the holder has finished it"


def test_a_deadline_passes_without_any_worker(place: Place, keeping: Keeping) -> None:
    """Given a queued job, when its deadline passes, then its record says expired and its ticket is worth nothing."""
    job = place.accept(deadline=datetime.now(UTC) + timedelta(seconds=1))
    keeping()
    eventually(lambda: not place.open_jobs(), "expired and tidied", 8)
    record = place.ledger.record(job.id)
    assert record is not None
    assert record.status == "expired"
    assert not isinstance(place.leases.claim(job.id, queue_of(job), 0), Claim)


def test_a_dead_workers_half_finished_job_is_completed(place: Place, keeping: Keeping) -> None:
    """Given a worker that died after its commit, when its lease lapses, then the keeper does what is left to do."""
    job = place.accept()
    claim = place.claim(job)
    failure = Failure(code="pipeline_failed", message="x", retryable=True)
    place.record(job, "failed", attempt=claim.attempt, failure=failure)
    keeping()
    eventually(lambda: not place.open_jobs(), "finished", 6)
    assert (place.folder / "out" / job.id / "result.json").exists()
    assert place.dead.names("jobs") == [f"jobs/{job.id}"]
    assert place.waiting(job) == 0


def test_old_bulk_becomes_more_urgent(place: Place) -> None:
    """Given bulk that has waited long, when the keeper ages it, then it waits among the standard jobs, once."""
    job = place.accept(priority="bulk")
    threading.Event().wait(0.6)
    assert place.backlog.age(place.leases.now_ms()) == 1
    assert place.backlog.age(place.leases.now_ms()) == 0
    assert place.redis.llen("overpaint.mini.standard") == 1
    assert place.redis.zrange(wire.queued_key("overpaint.mini.standard"), 0, -1) == [job.id]


def test_one_keeper_leads_and_another_takes_over(place: Place, keeping: Keeping) -> None:
    """Given two keepers, when the leader stops, then the other leads at once."""
    first = keeping()
    eventually(lambda: bool(place.redis.exists(wire.KEEPER_KEY)), "one leads", 5)
    leader = place.redis.get(wire.KEEPER_KEY)
    assert not Leader(connect(place.server.url)).lead()
    keeping()
    first.stop()
    eventually(lambda: place.redis.get(wire.KEEPER_KEY) not in (None, leader), "the other leads", 5)


def test_a_pause_of_redis_is_no_death_of_workers(place: Place, keeping: Keeping) -> None:
    """Given a held job, when Redis stands still for longer than the lease, then who lives has time to renew it."""
    keeping()
    eventually(lambda: bool(place.redis.exists(wire.EPOCH_KEY)), "settled", 8)
    job = place.accept()
    claim = place.claim(job)
    os.kill(place.server.pid, signal.SIGSTOP)
    try:
        threading.Event().wait(1.6)
    finally:
        os.kill(place.server.pid, signal.SIGCONT)
    for _ in range(10):
        assert place.leases.renew([claim]) == []
        threading.Event().wait(0.15)
    assert place.waiting(job) == 0
    assert place.redis.hget(wire.attempts_key(job.id), "crashes") is None


def test_messages_nobody_understands_end_among_the_dead_letters(place: Place) -> None:
    """Given a refused message in Redis, when the keeper takes it, then the ledger has it byte for byte."""
    raw = RawMessage(queue="overpaint.mini.bulk", reason="no JSON", received_at=datetime.now(UTC), data=b"\xff{")
    place.redis.rpush(wire.RAW_KEY, raw.model_dump_json(), "not ours")
    RawMessages(place.redis, place.dead).tick()
    letters = [place.dead.read(name) for name in place.dead.names("raw")]
    assert sorted(getattr(letter.document, "data", b"") for letter in letters) == [b"not ours", b"\xff{"]
    assert not place.redis.exists(wire.RAW_KEY)


def test_a_keeper_outlives_a_redis_that_restarts_empty(place: Place, keeping: Keeping) -> None:
    """Given open jobs, when Redis ends and comes back without its data, then they are queued again."""
    keeping()
    job = place.accept()
    place.live.report({job.id: [Progress(state="queued")]})
    place.server.kill()
    threading.Event().wait(1.0)
    place.server.start()
    eventually(lambda: place.waiting(job) == 1, "queued again", 10)


def test_a_listing_asks_only_for_what_is_open(place: Place) -> None:
    """Given many finished jobs and few open ones, when the keeper lists, then it asks for the open ones alone."""
    asked: list[str] = []

    class Watched(LocalStore):
        def list(self, prefix: Reference) -> Iterator[ObjectInfo]:
            asked.append(str(prefix).removeprefix(str(place.at("ledger"))))
            return super().list(prefix)

        def read(self, reference: Reference, *, limit: int) -> bytes:
            asked.append(str(reference).removeprefix(str(place.at("ledger"))))
            return super().read(reference, limit=limit)

    for _ in range(40):
        job = place.accept()
        place.record(job)
        assert place.endings.finish(job.id)
    still_open = [place.accept() for _ in range(3)]
    place.redis.flushall()
    ledger = Ledger(Watched(), place.at("ledger"))
    rebuild = Rebuild(place.redis, ledger, place.tickets, lease=place.lease)
    assert rebuild.run(place.backlog, place.endings) == 3
    rebuild.close()
    assert asked[0] == "open/"
    assert {name.split("/")[1] for name in asked[1:]} <= {job.id for job in still_open}
