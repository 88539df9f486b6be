"""Storage and Redis that are down, slow, full or lose their answers."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from overpaint_common.errors import BrokerUnavailable, StorageUnavailable
from overpaint_common.references import Reference
from overpaint_producer import Img2Img, Output, Producer
from tests.support.faults import answer, drop_response, requests
from tests.support.stack import LIGHT_WORKER, Stack, encoded, eventually, job, picture


@pytest.mark.long
def test_redis_down_at_submission_is_healed_by_the_same_key(idle: Stack) -> None:
    """Given no Redis, when a job is submitted, then its handle says that it waits; submitting again queues it."""
    with idle.producer() as producer:
        body = job(idle)
        idle.redis.stop()
        started = time.monotonic()
        handle = producer.submit(body, idempotency_key="k")
        assert time.monotonic() - started < 10
        assert "Redis did not answer" in str(handle.not_queued)
        assert handle.status().state == "accepted"
        assert len(idle.keys("ledger", "open")) == 1

        idle.redis.start()
        with idle.worker(LIGHT_WORKER):
            assert producer.submit(body, idempotency_key="k").id == handle.id
            assert handle.wait(timeout=60).status == "succeeded"
        assert len(idle.keys("ledger", "jobs")) == 2


def test_storage_down_at_submission_promises_nothing(idle: Stack) -> None:
    """Given no storage, when a job is submitted, then it fails as retryable and leaves no trace."""
    with idle.producer() as producer:
        body = job(idle)
        with idle.proxy.down(), pytest.raises(StorageUnavailable, match="ledger") as caught:
            producer.submit(body, retry_for=0)
        assert caught.value.retryable
        assert idle.keys("ledger") == []
        assert producer.submit(body).status().state == "queued"


def test_a_record_whose_answer_was_lost_is_known_as_our_own(serving: Stack, producer: Producer) -> None:
    """Given a commit whose response is dropped, when boto3 repeats it and meets its own 412, then the job succeeded."""
    body = job(serving)
    rule = serving.proxy.on(requests("PUT", f"/{body.id}/record.json"), drop_response(), times=1)

    record = producer.submit(body).wait(timeout=60)

    assert rule.hits == 1
    assert (record.status, record.attempts) == ("succeeded", 1)
    eventually(lambda: not serving.keys("ledger", "open"), "marker deleted")
    assert len(serving.keys("out", body.id)) == 2


def test_storage_down_at_commit_is_waited_out(serving: Stack, producer: Producer) -> None:
    """Given a store that refuses records for a while, when it recovers, then what was painted is recorded."""
    body = job(serving)
    rule = serving.proxy.on(requests("PUT", f"/{body.id}/record.json"), answer(503, "SlowDown"), times=5)

    handle = producer.submit(body)
    eventually(lambda: rule.hits >= 2, "commit refused", 60)
    record = handle.wait(timeout=90)

    assert (record.status, record.attempts) == ("succeeded", 1)
    eventually(lambda: not serving.keys("ledger", "open"), "marker deleted")
    named = {Reference.parse(output.uri).name for output in record.outputs}
    assert set(serving.keys("out", body.id)) == {"result.json", *named}


@pytest.mark.long
def test_a_source_behind_an_outage_is_fetched_after_it(serving: Stack, producer: Producer) -> None:
    """Given a store that answers 503 for the source, when it recovers, then the job succeeds."""
    body = job(serving, source=serving.put("later.png", encoded(picture())), max_attempts=1)
    rule = serving.proxy.on(requests("GET", "/in/later.png"), answer(503, "SlowDown"), times=4)

    assert producer.submit(body).wait(timeout=90).status == "succeeded"
    assert rule.hits == 4


@pytest.fixture
def tiny_disk(tmp_path: Path) -> Iterator[Path]:
    """A real file system of 64 kB."""
    folder = tmp_path / "tiny"
    folder.mkdir()
    mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=64k", "tmpfs", str(folder)], capture_output=True)
    if mounted.returncode != 0:
        if os.environ.get("CI"):
            pytest.fail(f"CI must be able to mount a small disk: {mounted.stderr.decode()}")
        pytest.skip("mounting a small disk needs root")
    yield folder
    subprocess.run(["umount", str(folder)], check=True)


@pytest.mark.long
def test_a_full_disk_ends_in_a_record_that_says_so(idle: Stack, tiny_disk: Path) -> None:
    """Given a local output folder on a disk without a free byte, when the job runs, then its record says what is full.

    Nothing is left over either: the owner's copy of the record did not fit, and the job is closed all the same.
    """
    with (tiny_disk / "ballast").open("wb", buffering=0) as ballast, contextlib.suppress(OSError):
        while True:
            ballast.write(b"x" * 4096)
    output = Reference.from_path(tiny_disk / "out").as_prefix()
    with idle.producer() as producer, idle.worker(LIGHT_WORKER, OVERPAINT_WRITE=str(output)):
        handle = producer.submit(job(idle, output=Output(prefix=str(output)), max_attempts=1))
        record = handle.wait(timeout=90)
        eventually(lambda: not idle.keys("ledger", "open"), "marker deleted")

    assert record.status == "failed"
    assert record.failure is not None
    assert record.failure.code == "storage_full"
    assert record.failure.retryable
    assert str(tiny_disk) in record.failure.message


@pytest.mark.long
def test_a_silent_redis_holds_a_submission_up_for_seconds_only(idle: Stack) -> None:
    """Given a Redis that is stopped in its tracks, when a job is submitted, then it is accepted and said not queued."""
    with idle.producer() as producer:
        body = job(idle)
        os.kill(idle.redis.pid, signal.SIGSTOP)
        started = time.monotonic()
        try:
            assert producer.submit(body).not_queued is not None
            with pytest.raises(BrokerUnavailable, match=r"nothing was accepted: name a model"):
                producer.img2img(body.source, prompt="x", output=idle.output)
        finally:
            os.kill(idle.redis.pid, signal.SIGCONT)
        assert time.monotonic() - started < 25


@pytest.mark.long
def test_a_job_under_way_ends_while_redis_is_down(idle: Stack) -> None:
    """Given a running job, when Redis goes, then its record is written and the worker takes jobs again."""
    with idle.producer() as producer, idle.worker(LIGHT_WORKER, OVERPAINT_TEST_STEP="0.05"):
        handle = producer.submit(job(idle, passes=(Img2Img(prompt="a blue square", steps=60, strength=1),)))
        eventually(lambda: handle.status().step > 2, "in its steps")
        idle.redis.stop()
        eventually(lambda: "record.json" in idle.keys("ledger", "jobs", handle.id), "record written", 60)
        assert handle.wait(timeout=10).status == "succeeded"
        idle.redis.start()
        assert producer.submit(job(idle)).wait(timeout=60).status == "succeeded"
        eventually(lambda: not idle.keys("ledger", "open"), "markers deleted")
        assert handle.result().attempts == 1


@pytest.mark.long
def test_progress_goes_on_after_a_redis_that_lost_everything(idle: Stack) -> None:
    """Given somebody who follows a job, when Redis ends and comes back empty, then later steps and the end are told."""
    with idle.producer() as producer, idle.worker(LIGHT_WORKER, OVERPAINT_LEASE="2", OVERPAINT_TEST_STEP="0.05"):
        handle = producer.submit(job(idle, passes=(Img2Img(prompt="a blue square", steps=120, strength=1),)))
        moments = handle.progress(timeout=90)
        before = next(moment.step for moment in moments if moment.step > 2)
        idle.redis.kill()
        idle.redis.start()
        rest = list(moments)
        assert rest[-1].state == "succeeded"
        assert any(moment.state == "running" and moment.step > before for moment in rest)
        assert handle.result().attempts == 1
        eventually(lambda: not idle.keys("ledger", "open"), "markers deleted")


def test_a_ledger_that_denies_records_costs_one_painting(serving: Stack, producer: Producer) -> None:
    """Given a ledger that answers 403 for a while, when it relents, then the picture painted first is recorded."""
    body = job(serving)
    rule = serving.proxy.on(requests("PUT", f"/{body.id}/record.json"), answer(403, "AccessDenied"), times=3)

    record = producer.submit(body).wait(timeout=90)

    assert rule.hits == 3
    assert (record.status, record.attempts) == ("succeeded", 1)


def test_the_owners_files_under_the_jobs_prefix_are_left_alone(serving: Stack, producer: Producer) -> None:
    """Given files beside the pictures, when the job is finished, then only pictures of other attempts are swept."""
    body = job(serving, id="holiday-2024")
    client, out = serving.server.client, serving.at("out", "holiday-2024")
    for name in ("a.jpg", "0-notes.png", "album/b.png", "0-00000000dead.png"):
        client.put_object(Bucket=out.bucket, Key=f"{out.key}/{name}", Body=b"x")

    record = producer.submit(body).wait(timeout=60)
    eventually(lambda: not serving.keys("ledger", "open"), "marker deleted")

    mine = Reference.parse(record.outputs[0].uri).name
    assert set(serving.keys("out", "holiday-2024")) == {"a.jpg", "0-notes.png", "album/b.png", "result.json", mine}
