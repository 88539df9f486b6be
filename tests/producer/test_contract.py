"""What a producer does, in memory as on a real Redis and a folder: each test runs against both."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from overpaint_common import wire
from overpaint_common.errors import (
    DeviceOutOfMemory,
    ForbiddenReference,
    ForbiddenWebhook,
    IdempotencyConflict,
    InvalidJob,
    JobCancelled,
    JobExpired,
    JobFailed,
    NotFinished,
    NotServed,
    ObjectNotFound,
    OverpaintError,
    StrengthTooSmall,
    UnknownModel,
    WaitTimeout,
)
from overpaint_common.live import Progress, connect
from overpaint_common.references import Reference
from overpaint_producer import JobHandle
from overpaint_producer.local.redis import EmbeddedRedis
from overpaint_producer.testing import InMemoryProducer
from tests.producer.backends import MODEL, RECEIVER, Backend, for_real, in_memory
from tests.support.stack import encoded, picture

RED = Image.new("RGB", (64, 64), (255, 0, 0))


def submit(backend: Backend, **fields: Any) -> JobHandle:
    given = {"prompt": "a house", "output": backend.output, "steps": 10, **fields}
    source = given.pop("source", None) or backend.source()
    return backend.producer.img2img(source, **given)


def told(moments: Iterator[Progress]) -> list[tuple[str, str, int]]:
    return [(moment.state, moment.phase, moment.step) for moment in moments]


def test_a_job_waits_runs_and_ends_with_the_pictures_that_were_given(backend: Backend) -> None:
    job = submit(backend, variants=2)
    assert (job.not_queued, job.status().state) == (None, "queued")

    assert backend.worker.report(job.id, 3)
    assert (job.status().state, job.status().step, job.status().steps) == ("running", 3, 10)

    record = backend.finish(job.id, [RED, RED.rotate(90)])
    assert job.result() == record == job.wait(timeout=10)
    assert [each.getpixel((5, 5)) for each in job.pictures()] == [(255, 0, 0)] * 2
    assert [variant.seed for variant in record.variants] == [record.job.base_seed, record.job.base_seed + 1]


def test_without_pictures_the_source_comes_back_in_the_models_size(backend: Backend) -> None:
    job = submit(backend)

    backend.finish(job.id)

    (made,) = job.pictures()
    assert made.size == (512, 341)  # 96 x 64, its longer side as the model's.
    assert made.resize((96, 64)).getpixel((48, 32)) == picture().getpixel((48, 32))


def test_progress_tells_every_moment_in_order(backend: Backend) -> None:
    job = submit(backend)
    for step in (1, 2):
        backend.worker.report(job.id, step)
    backend.finish(job.id, [RED])

    assert told(job.progress(timeout=10)) == [
        ("queued", "", 0),
        ("running", "denoise", 1),
        ("running", "denoise", 2),
        ("running", "upload", 5),
        ("succeeded", "", 5),
    ]


def test_waiting_for_a_job_that_does_not_end_times_out(backend: Backend) -> None:
    job = submit(backend)

    with pytest.raises(WaitTimeout, match=r"within 0\.05 s; it goes on"):
        job.wait(timeout=0.05)
    with pytest.raises(NotFinished):
        job.result()


def test_a_wait_of_no_time_looks_once(backend: Backend) -> None:
    open_one, ended = submit(backend), submit(backend)
    record = backend.finish(ended.id, [RED])

    assert ended.wait(timeout=0) == record
    with pytest.raises(WaitTimeout):
        open_one.wait(timeout=0)


def test_a_key_names_one_job(backend: Backend) -> None:
    first = submit(backend, idempotency_key="order-1")

    assert submit(backend, idempotency_key="order-1").id == first.id
    with pytest.raises(IdempotencyConflict):
        submit(backend, idempotency_key="order-1", strength=0.9)


@pytest.mark.parametrize(
    ("fields", "error"),
    [
        ({"model": "unheard-of"}, UnknownModel),
        ({"strength": 0.01}, StrengthTooSmall),
        ({"steps": 5000}, InvalidJob),
        ({"loras": [{"name": "unheard-of"}]}, NotServed),
        ({"source": "s3://elsewhere/cat.png"}, ForbiddenReference),
        ({"output": "s3://elsewhere/"}, ForbiddenReference),
        ({"webhook": "https://elsewhere.example.com"}, ForbiddenWebhook),
        ({"colour": "blue"}, InvalidJob),
    ],
)
def test_what_is_wrong_with_a_job_is_told_at_submission(
    backend: Backend, fields: dict[str, Any], error: type[OverpaintError]
) -> None:
    with pytest.raises(error):
        submit(backend, **fields)

    assert list(backend.producer.ledger.open_jobs()) == []


def test_a_cancelled_job_stops_its_worker_and_stays_cancelled(backend: Backend) -> None:
    job = submit(backend)
    backend.worker.report(job.id, 1)

    assert job.cancel().status == "cancelled"

    assert not backend.worker.report(job.id, 2)
    assert backend.finish(job.id, [RED]).status == "cancelled"
    with pytest.raises(JobCancelled):
        job.pictures()


def test_a_job_that_failed_tells_why(backend: Backend) -> None:
    job = submit(backend)

    backend.fail(job.id, DeviceOutOfMemory("the picture is too large; ask for a smaller one"))

    failure = job.wait(timeout=10).failure
    assert failure is not None
    assert (failure.code, failure.retryable) == ("device_out_of_memory", True)
    with pytest.raises(JobFailed, match="too large"):
        job.pictures()


def test_a_job_whose_deadline_passed_says_so(backend: Backend) -> None:
    job = submit(backend, deadline=backend.producer.live.now() + timedelta(hours=1))

    backend.worker.expire(job.id)

    with pytest.raises(JobExpired):
        job.wait(timeout=10).raise_for_status()


def test_a_source_that_is_no_picture_fails_the_job(backend: Backend) -> None:
    source = backend.root.join("in", "notes.txt")
    backend.producer.store.put(source, b"not a picture", content_type="text/plain")

    record = backend.finish(submit(backend, source=str(source)).id)

    assert record.failure is not None
    assert record.failure.code == "source_not_a_picture"


def test_a_handle_is_found_by_its_id(backend: Backend) -> None:
    job = submit(backend)

    assert backend.producer.handle(job.id).status().state == "queued"
    with pytest.raises(ObjectNotFound, match="no job unknown-id"):
        backend.producer.handle("unknown-id")


def test_jobs_are_listed_by_state_and_label(backend: Backend) -> None:
    first, second = submit(backend, labels={"shop": "one"}), submit(backend, labels={"shop": "two"})
    backend.finish(first.id, [RED])

    assert [job.id for job in backend.producer.jobs(state="succeeded")] == [first.id]
    assert [job.id for job in backend.producer.jobs(labels={"shop": "two"})] == [second.id]


def test_pictures_are_uploaded_published_and_shared(backend: Backend) -> None:
    source = backend.producer.upload(encoded(picture()), str(backend.root.join("in")), name="house.png")
    job = submit(backend, source=source, name="{stem}-{variant}.png", previews=True)
    backend.worker.report(job.id, 1, preview=b"a small picture")
    assert job.preview() == b"a small picture"

    record = backend.finish(job.id, [RED])

    assert record.published == (f"{backend.output}house-0.png",)
    assert backend.producer.store.head(Reference.parse(record.published[0])).size == record.outputs[0].size
    assert len(job.urls(expires=60)) == 1
    assert job.preview() is None


def test_the_end_is_handed_over_to_the_jobs_webhook(backend: Backend) -> None:
    job = submit(backend, webhook=f"https://{RECEIVER}/overpaint?token=1", labels={"order": "7"})

    backend.finish(job.id, [RED])

    pending = backend.producer.ledger.webhook(job.id)
    assert pending is not None
    assert str(pending.webhook) == f"https://{RECEIVER}/overpaint?token=1"
    assert (pending.event.type, pending.event.labels) == ("job.succeeded", {"order": "7"})


def test_a_webhook_that_was_sent_is_not_handed_over_again(backend: Backend) -> None:
    job = submit(backend, webhook=f"https://{RECEIVER}/overpaint")
    record = backend.finish(job.id, [RED])
    backend.producer.ledger.drop_webhook(job.id)

    assert backend.finish(job.id, [RED]) == record

    assert backend.producer.ledger.webhook(job.id) is None


def test_the_webhook_of_a_cancelled_job_is_handed_over_once_its_worker_sees_it(backend: Backend) -> None:
    job = submit(backend, webhook=f"https://{RECEIVER}/overpaint")
    job.cancel()

    backend.finish(job.id, [RED])

    assert backend.producer.ledger.webhook(job.id) is not None


def test_the_queue_is_read_once_for_all_that_are_ended(real: Backend) -> None:
    jobs = [submit(real) for _ in range(5)]
    redis: Any = connect(real.producer.settings.redis_url.get_secret_value())
    redis.config_resetstat()

    for job in jobs:
        real.finish(job.id, [RED])

    assert redis.info("commandstats")["cmdstat_lrange"]["calls"] == 1
    assert redis.llen(wire.queue_name(MODEL, "standard")) == 0
    redis.close()


def test_while_redis_is_down_jobs_are_accepted_and_their_ends_are_seen(backend: Backend) -> None:
    with backend.outage():
        job = submit(backend, model="general")
        assert job.not_queued is not None
        assert job.status().state == "accepted"

        record = backend.finish(job.id, [RED])

        assert job.wait(timeout=20) == record


def _life(backend: Backend) -> tuple[list[Any], Any]:
    """What a whole life looks like: every moment, and the record without its times, random ids and places."""
    job = submit(backend, id="a-life-of-a-job", variants=2, webhook=f"https://{RECEIVER}/")
    backend.worker.report(job.id, 4)
    backend.finish(job.id)
    moments = [moment.model_dump(exclude={"worker"}) for moment in job.progress(timeout=10)]
    return moments, _plain(job.result().model_dump(mode="json"), backend)


def _plain(value: Any, backend: Backend) -> Any:
    match value:
        case dict():
            changing = {"etag", "uri", "attempt", "worker", "prefix"}
            return {
                name: _plain(each, backend)
                for name, each in value.items()
                if name not in changing and not name.endswith("_at")
            }
        case list():
            return [_plain(each, backend) for each in value]
        case str():
            return value.removeprefix(str(backend.root.as_prefix()))
        case _:
            return value


def test_a_whole_life_in_memory_is_the_same_as_a_real_one(redis: EmbeddedRedis, tmp_path: Path) -> None:
    with in_memory() as memory, for_real(redis, tmp_path) as real:
        assert _life(memory) == _life(real)


def test_the_producer_in_memory_reads_no_settings_of_whoever_runs_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OVERPAINT_S3_MAX_ATTEMPTS", "many")
    monkeypatch.setenv("OVERPAINT_CONFIG", "/missing/overpaint.toml")
    monkeypatch.setenv("OVERPAINT_WEAK_COMMITS", "true")

    with InMemoryProducer() as producer:
        settings = producer.settings

    assert (settings.s3_max_attempts, settings.weak_commits) == (5, False)
