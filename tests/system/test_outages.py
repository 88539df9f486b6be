"""Storage and Redis that are down, slow, full or lose their answers."""

from __future__ import annotations

import os
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from overpaint_common.errors import StorageUnavailable
from overpaint_common.references import Reference
from overpaint_producer import Img2Img, Job, NotQueued, Output, Producer
from tests.support.faults import answer, drop_response, requests
from tests.support.stack import Stack, encoded, eventually, picture


def job(stack: Stack, **changes: object) -> Job:
    fields = {
        "source": stack.put("scene.png", encoded(picture())),
        "model": "overpaint-mini",
        "passes": (Img2Img(prompt="a blue square", steps=4),),
        "output": Output(prefix=stack.output),
        **changes,
    }
    return Job.model_validate(fields)


def test_redis_down_at_submission_is_healed_by_the_same_key(idle: Stack) -> None:
    """Given no Redis, when a job is submitted, then the error carries its handle; submitting again queues it."""
    with idle.producer() as producer:
        body = job(idle)
        idle.redis.stop()
        started = time.monotonic()
        with pytest.raises(NotQueued, match="accepted but not queued") as caught:
            producer.submit(body, idempotency_key="k")
        assert time.monotonic() - started < 10
        handle = caught.value.handle
        assert handle.status().state == "accepted"
        assert len(idle.keys("ledger", "open")) == 1

        idle.redis.start()
        with idle.worker():
            assert producer.submit(body, idempotency_key="k").id == handle.id
            assert handle.wait(timeout=60).status == "succeeded"
        assert len(idle.keys("ledger", "jobs")) == 2


def test_storage_down_at_submission_promises_nothing(idle: Stack) -> None:
    """Given no storage, when a job is submitted, then it fails as retryable and leaves no trace."""
    with idle.producer() as producer:
        body = job(idle)
        with idle.proxy.down(), pytest.raises(StorageUnavailable, match="ledger") as caught:
            producer.submit(body)
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


def test_storage_down_at_commit_brings_the_job_back_later(serving: Stack, producer: Producer) -> None:
    """Given a store that refuses records for a while, when it recovers, then the job ends with one record."""
    body = job(serving)
    rule = serving.proxy.on(requests("PUT", f"/{body.id}/record.json"), answer(503, "SlowDown"), times=5)

    handle = producer.submit(body)
    eventually(lambda: rule.hits >= 2, "commit refused", 60)
    record = handle.wait(timeout=90)

    assert record.status == "succeeded"
    assert record.attempts > 1
    eventually(lambda: not serving.keys("ledger", "open"), "marker deleted")
    named = {Reference.parse(output.uri).name for output in record.outputs}
    assert set(serving.keys("out", body.id)) == {"result.json", *named}


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


def test_a_full_disk_ends_in_a_record_that_says_so(idle: Stack, tiny_disk: Path) -> None:
    """Given a local output folder on a full disk, when the job runs, then its record says what is full."""
    (tiny_disk / "ballast").write_bytes(b"x" * 60_000)
    output = Reference.from_path(tiny_disk / "out").as_prefix()
    with idle.producer() as producer, idle.worker(OVERPAINT_WRITE=str(output)):
        record = producer.submit(job(idle, output=Output(prefix=str(output)))).wait(timeout=90)

    assert record.status == "failed"
    assert record.failure is not None
    assert record.failure.code == "storage_full"
    assert str(tiny_disk) in record.failure.message
