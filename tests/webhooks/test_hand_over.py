"""The hand-over: what the end of a job leaves in the ledger for the keeper, and what it shows of the URL."""

from __future__ import annotations

import json
from typing import Any

import jsonschema
import pytest

from overpaint_common import wire
from overpaint_common.errors import BrokerUnavailable, ForbiddenWebhook, StorageUnavailable
from overpaint_common.ledger import Ledger
from overpaint_common.live import connect
from overpaint_common.references import Reference
from overpaint_common.result import Failure
from overpaint_common.schema import schemas
from overpaint_common.storage import Access, GuardedStore, LocalStore
from overpaint_common.webhooks import schedule_webhook
from overpaint_producer.local.redis import free_port
from tests.webhooks.conftest import Place

URL = "https://hooks.example.com:8443/t0ken?key=t0ken"


class NoDelete(LocalStore):
    """A store that cannot delete."""

    def delete(self, reference: Reference) -> None:
        raise StorageUnavailable(f"cannot delete {reference}")


def test_the_webhook_is_handed_over_at_the_end_and_not_before(place: Place) -> None:
    """Given a job with a webhook, when it is recorded, then none is handed over; once finished it is, marker gone."""
    job = place.job("job-number-1", URL, labels={"order": "1234"})
    place.end(job, finish=False)
    assert list(place.ledger.webhooks()) == []
    record = place.end(job)
    assert list(place.ledger.webhooks()) == [job.id]
    assert list(place.ledger.open_jobs()) == []
    pending = place.ledger.webhook(job.id)
    assert pending is not None
    assert str(pending.webhook) == URL
    assert json.loads(pending.event.body()) == {
        "schema_version": 1,
        "id": "job-number-1_0123456789ab",
        "type": "job.succeeded",
        "job_id": job.id,
        "status": "succeeded",
        "labels": {"order": "1234"},
        "result": f"{place.folder.as_uri()}/out/job-number-1/result.json",
        "finished_at": json.loads(record.model_dump_json())["finished_at"],
    }


def test_the_body_fits_its_schema(place: Place) -> None:
    """Given a failed job, when its webhook's body is held against the committed schema, then it is valid."""
    failure = Failure(code="source_empty", message="nothing", retryable=False)
    place.end(place.job("job-number-1", URL), failure=failure)
    pending = place.ledger.webhook("job-number-1")
    assert pending is not None
    body = json.loads(pending.event.body())
    jsonschema.Draft202012Validator(schemas()["webhook.schema.json"]).validate(body)
    assert (body["type"], body["failure"]) == ("job.failed", "source_empty")


def test_a_job_without_a_webhook_leaves_none(place: Place) -> None:
    """Given a job that names no receiver, when it is finished, then nothing waits to be delivered."""
    place.end(place.job("job-number-1", None))
    assert list(place.ledger.webhooks()) == []


def test_a_crash_before_the_marker_is_deleted_loses_no_webhook(place: Place) -> None:
    """Given an end that is cut off before its last step, when it is finished again, then one webhook is handed over."""
    job = place.job("job-number-1", URL)
    dying = Place(place.folder, Ledger(NoDelete(), place.ledger.keys.root.as_prefix()), place.store)
    with pytest.raises(StorageUnavailable):
        dying.end(job)
    assert list(place.ledger.webhooks()) == [m.job_id for m in place.ledger.open_jobs()] == [job.id]
    first = place.ledger.webhook(job.id)
    place.end(job)
    assert place.ledger.webhook(job.id) == first
    assert list(place.ledger.open_jobs()) == []


def test_finishing_again_keeps_the_count_of_tries(place: Place) -> None:
    """Given a webhook that was tried, when the job is finished again, then its tries still count."""
    job = place.job("job-number-1", URL)
    place.end(job)
    pending = place.ledger.webhook(job.id)
    assert pending is not None
    tried = pending.evolve(tries=3, error="answered 500")
    place.ledger.keep_webhook(tried)
    place.end(job)
    assert place.ledger.webhook(job.id) == tried


def test_no_copy_no_mention_of_it(place: Place) -> None:
    """Given an output place that may not be written, when the job is finished, then its webhook names no result."""
    nowhere = GuardedStore(LocalStore(), Access(read=(), write=(), ledger=place.ledger.keys.root))
    job = place.job("job-number-1", URL)
    record = place.end(job, finish=False)
    place.ledger.finish(place.ledger.request(job.id), record, nowhere)
    pending = place.ledger.webhook(job.id)
    assert pending is not None
    assert pending.event.result is None


def test_a_receiver_that_was_refused_gets_none(place: Place) -> None:
    """Given a job that failed because of its receiver, when it is finished, then nothing is sent there."""
    failure = Failure.of(ForbiddenWebhook("webhook to hooks.example.com: jobs may name no receiver"))
    place.end(place.job("job-number-1", URL), failure=failure)
    assert list(place.ledger.webhooks()) == []


def test_the_record_shows_only_the_receiver(place: Place) -> None:
    """Given a URL with a token, when the job is recorded and finished, then record and copy name the host alone."""
    place.end(place.job("job-number-1", URL))
    for text in (
        place.text("ledger", "jobs", "job-number-1", "record.json"),
        place.text("out", "job-number-1", "result.json"),
    ):
        assert json.loads(text)["job"]["webhook"] == "https://hooks.example.com:8443/"
        assert "t0ken" not in text
    pending = place.ledger.webhook("job-number-1")
    assert pending is not None
    assert "t0ken" not in repr(pending) + str(pending)
    assert str(place.ledger.request("job-number-1").job.webhook) == URL


def test_a_hint_never_brings_a_try_forward(redis: Any) -> None:
    """Given a webhook that waits for its next try, when it is handed over again, then it goes on waiting."""
    schedule_webhook(redis, "job-number-1")
    (job_id, due) = redis.zrange(wire.WEBHOOKS_KEY, 0, -1, withscores=True)[0]
    seconds, micros = redis.time()
    assert job_id == "job-number-1"
    assert 0 <= seconds * 1000 + micros // 1000 - due < 5000
    redis.zadd(wire.WEBHOOKS_KEY, {"job-number-1": due + 60_000})
    schedule_webhook(redis, "job-number-1")
    assert redis.zscore(wire.WEBHOOKS_KEY, "job-number-1") == due + 60_000


def test_a_hint_without_redis_says_so() -> None:
    """Given no Redis, when a webhook is to be scheduled, then BrokerUnavailable is raised."""
    client = connect(f"redis://127.0.0.1:{free_port()}/0", patience=1)
    with pytest.raises(BrokerUnavailable):
        schedule_webhook(client, "job-number-1")
