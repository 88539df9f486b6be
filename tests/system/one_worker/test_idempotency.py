"""Submitting twice, cancelling, and asking for what is not there."""

from __future__ import annotations

import json

import pytest

from overpaint_common.errors import (
    ForbiddenReference,
    IdempotencyConflict,
    JobCancelled,
    NotFinished,
    ObjectNotFound,
    SettingsError,
    WaitTimeout,
)
from overpaint_common.live import Live, connect
from overpaint_common.tickets import Tickets
from overpaint_common.wire import queue_name
from overpaint_producer import Img2Img, Producer
from tests.support.stack import Stack, eventually, job

QUEUE = queue_name("overpaint-mini", "standard")


def test_the_same_key_and_body_give_the_first_job_back(serving: Stack, producer: Producer) -> None:
    """Given a finished job, when the same body comes under the same key, then nothing runs again."""
    first = producer.submit(job(serving), idempotency_key="order-1")
    record = first.wait(timeout=60)
    again = producer.submit(job(serving), idempotency_key="order-1")

    assert again.id == first.id
    assert again.result() == record
    assert again.status().state == "succeeded"
    eventually(lambda: not serving.keys("ledger", "open"), "no marker of the second submission")


def test_the_same_key_with_another_body_is_a_conflict(serving: Stack, producer: Producer) -> None:
    """Given a key in use, when another body comes under it, then the error says so and the first job is untouched."""
    first = producer.submit(job(serving), idempotency_key="order-2")
    with pytest.raises(IdempotencyConflict, match="another body"):
        producer.submit(job(serving, variants=2), idempotency_key="order-2")
    assert len(first.wait(timeout=60).outputs) == 1


def test_a_job_without_a_key_is_its_own_key(serving: Stack, producer: Producer) -> None:
    """Given one Job object, when it is submitted twice, then it is one job."""
    one = job(serving)
    assert producer.submit(one).id == producer.submit(one).id == one.id
    assert producer.handle(one.id).wait(timeout=60).status == "succeeded"


def test_a_queued_job_is_cancelled_without_any_worker(idle: Stack) -> None:
    """Given a queue that no worker drains, when the job is cancelled, then it is finished at once."""
    with idle.producer() as producer:
        handle = producer.submit(job(idle, priority="bulk"))
        assert handle.status().detail == "no worker serves model 'overpaint-mini' at the moment"

        record = handle.cancel()

        assert record.status == "cancelled"
        assert handle.status().state == "cancelled"
        assert handle.wait(timeout=5).status == "cancelled"
        with pytest.raises(JobCancelled):
            handle.pictures()


def test_a_running_job_stops_at_its_next_step(serving: Stack, producer: Producer) -> None:
    """Given a long job in its steps, when it is cancelled, then it stops early and leaves no picture behind."""
    handle = producer.submit(job(serving, passes=(Img2Img(prompt="x", steps=200, strength=1),)))
    steps = 0
    for moment in handle.progress(timeout=60):
        if moment.phase == "denoise" and moment.step >= 3 and steps == 0:
            steps = moment.step
            assert handle.cancel().status == "cancelled"
    eventually(lambda: not serving.keys("ledger", "open"), "marker deleted by the worker")

    with connect(serving.redis.url) as redis:
        told = [int(fields["step"]) for _, fields in redis.xrange(f"overpaint:events:{handle.id}")]
    assert steps <= max(told) < 100
    assert handle.result().status == "cancelled"
    assert serving.keys("out", handle.id) == ["result.json"]
    follow = producer.submit(job(serving)).wait(timeout=60)
    assert follow.status == "succeeded"


def test_cancelling_a_finished_job_changes_nothing(serving: Stack, producer: Producer) -> None:
    """Given a finished job, when it is cancelled, then its own record comes back."""
    handle = producer.submit(job(serving))
    record = handle.wait(timeout=60)
    assert handle.cancel() == record


def test_what_is_not_there_is_said_plainly(idle: Stack) -> None:
    """Given an unknown id or an unfinished job, when it is asked for, then the error says which."""
    with idle.producer() as producer:
        with pytest.raises(ObjectNotFound, match="no job 00000000"):
            producer.handle("00000000")
        handle = producer.submit(job(idle))
        with pytest.raises(NotFinished, match="wait for it"):
            handle.result()
        with pytest.raises(WaitTimeout, match="goes on"):
            handle.wait(timeout=0.3)


def test_a_second_ticket_of_a_job_in_hand_is_dropped(serving: Stack, producer: Producer) -> None:
    """Given a running job, when the same body is submitted again, then it is painted once all the same."""
    body = job(serving, passes=(Img2Img(prompt="a blue square", steps=100, strength=1),))
    handle = producer.submit(body)
    moments = handle.progress(timeout=60)
    assert any(moment.step > 0 for moment in moments)
    producer.submit(body)
    with connect(serving.redis.url) as redis:
        Tickets(redis).send_again(QUEUE, handle.id)
        eventually(lambda: redis.hlen("unacked") == 1 and not redis.llen(QUEUE), "the second ticket dropped")
    assert not handle.status().finished
    assert handle.wait(timeout=60).attempts == 1


def test_a_ledger_that_is_not_the_workers_is_found_out_at_submission(serving: Stack) -> None:
    """Given workers whose ledger lies elsewhere, when a job is submitted, then both places are named."""
    with (
        serving.producer(ledger=str(serving.at("books"))) as elsewhere,
        pytest.raises(SettingsError, match=r"books/.* keep theirs at .*ledger/"),
    ):
        elsewhere.submit(job(serving))
    assert not serving.keys("books")


def test_a_ticket_of_an_unknown_job_is_told_of(serving: Stack, producer: Producer) -> None:
    """Given a ticket whose job is not in the worker's ledger, when it is taken, then the live status says so."""
    with connect(serving.redis.url) as redis:
        Tickets(redis).send_again(QUEUE, "job-nobody-knows")

    def told() -> str:
        moment = producer.live.progress("job-nobody-knows")
        return moment.detail if moment else ""

    eventually(lambda: "found no such job in its ledger" in told(), "status told")


def test_a_job_once_accepted_stays_accepted_when_the_fleet_changes(
    serving: Stack, producer: Producer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Given a finished job, when the fleet would refuse it today, then the same key still gives its handle."""
    body = job(serving)
    first = producer.submit(body, idempotency_key="order-3")
    record = first.wait(timeout=60)
    card = producer.live.models()["overpaint-mini"]
    narrower = card.model_copy(update={"reads": ()})
    # Not in Redis: the worker announces its own card again every few seconds.
    monkeypatch.setattr(Live, "models", lambda _: {card.name: narrower})

    assert producer.submit(body, idempotency_key="order-3").result() == record
    with pytest.raises(ForbiddenReference):
        producer.submit(body, idempotency_key="order-4")


def test_what_a_newer_version_added_does_no_harm(serving: Stack, producer: Producer) -> None:
    """Given a record and cards with fields of a newer version, when they are read, then the known fields are there."""
    handle = producer.submit(job(serving))
    handle.wait(timeout=60)
    with connect(serving.redis.url) as redis:
        (name,) = [worker.name for worker in producer.live.workers()]
        card = json.loads(redis.get(f"overpaint:worker:{name}"))
        redis.set(f"overpaint:worker:{name}", json.dumps({**card, "shoe_size": 44}), ex=15)
    key = serving.at("ledger", "jobs", handle.id, "record.json")
    record = json.loads(serving.body(str(key)))
    serving.server.client.put_object(
        Bucket=key.bucket, Key=key.key, Body=json.dumps({**record, "mood": "good"}).encode()
    )

    assert [worker.name for worker in producer.live.workers()] == [name]
    assert handle.result().status == "succeeded"
