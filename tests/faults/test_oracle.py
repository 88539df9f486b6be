"""An oracle that cannot say no is worth nothing: each test breaks one promise by hand and wants to hear of it."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from overpaint_common import wire
from overpaint_common.references import Reference
from overpaint_common.storage import S3Store
from tests.faults.stage import Stage

ONE_LOOK = 0.0
"""Seconds: the verdict after a single look."""


@pytest.fixture(scope="module")
def ended(shared_stage: Stage) -> Stage:
    """A stage on which one job has ended well."""
    with shared_stage.crews(1, OVERPAINT_KEEPER="false"):
        shared_stage.submit(shared_stage.job(variants=2, output=shared_stage.publishing))
        verdict = shared_stage.judge().require()
        assert verdict.ends == {"succeeded": 1}
        assert (verdict.computed_twice, verdict.stale_tickets) == (0, 0)
    return shared_stage


@pytest.fixture
def objects(ended: Stage) -> Iterator[Stage]:
    """The same; every object is as before afterwards."""
    client, bucket = ended.server.client, ended.bucket.bucket
    before = {key: client.get_object(Bucket=bucket, Key=key)["Body"].read() for key in sorted(ended.keys())}
    yield ended
    for key in sorted(ended.keys()):
        if key not in before:
            client.delete_object(Bucket=bucket, Key=key)
    for key, body in before.items():
        client.put_object(Bucket=bucket, Key=key, Body=body)
    assert ended.judge(within=ONE_LOOK).ok


def found(stage: Stage) -> set[str]:
    return stage.judge(within=ONE_LOOK).kinds()


def key_like(stage: Stage, part: str) -> str:
    return next(key for key in sorted(stage.keys()) if part in key)


def put(stage: Stage, key: str, body: bytes) -> None:
    stage.server.client.put_object(Bucket=stage.bucket.bucket, Key=key, Body=body)


def delete(part: str) -> Callable[[Stage], None]:
    return lambda stage: (
        stage.server.client.delete_object(Bucket=stage.bucket.bucket, Key=key_like(stage, part)) and None
    )


def add(key: str) -> Callable[[Stage], None]:
    def put_beside(stage: Stage) -> None:
        put(stage, key.replace("<job>", stage.accepted[0]), b"x")

    return put_beside


def alter(part: str) -> Callable[[Stage], None]:
    """Another content for an object."""

    def change(stage: Stage) -> None:
        key = key_like(stage, part)
        body = stage.body(str(stage.at(key)))
        put(stage, key, json.dumps({**json.loads(body), "worker": "another"}).encode() if "json" in key else b"x")

    return change


@pytest.mark.parametrize(
    ("damage", "kind"),
    [
        (delete("/record.json"), "not finished"),
        (alter("/record.json"), "record changed"),
        (delete("/0-"), "picture missing"),
        (alter("/0-"), "picture differs"),
        (delete("out/published/"), "published copy missing"),
        (alter("out/published/"), "published copy differs"),
        (delete("/result.json"), "copy missing"),
        (alter("/result.json"), "copy differs"),
        (add("out/<job>/0-0123456789ab.png"), "left among the pictures"),
        (add("ledger/open/standard/overpaint-mini/<job>"), "left in the ledger"),
        (add("ledger/webhooks/<job>"), "left in the ledger"),
        (add("ledger/tmp-1234"), "left in the ledger"),
    ],
)
def test_damage_in_the_store_is_seen(objects: Stage, damage: Callable[[Stage], None], kind: str) -> None:
    """Given a job that ended well, when an object is deleted, changed or added, then the oracle names that."""
    damage(objects)

    assert kind in found(objects)


@pytest.mark.parametrize(
    "leave",
    [
        lambda redis: redis.zadd(wire.LEASES_KEY, {"job": 1}),
        lambda redis: redis.hset(wire.lease_key("job"), "attempt", "x"),
        lambda redis: redis.zadd(wire.queued_key("overpaint.m.bulk"), {"job": 1}),
        lambda redis: redis.zadd(wire.solo_key("m"), {"job": 1}),
        lambda redis: redis.zadd(wire.DELAYED_KEY, {"q job": 1}),
        lambda redis: redis.zadd(wire.WEBHOOKS_KEY, {"job": 1}),
        lambda redis: redis.sadd(wire.QUEUES_KEY, "q") and redis.lpush("q", "message"),
    ],
    ids=["leases", "lease", "queued", "solo", "delayed", "webhooks", "queue"],
)
def test_what_is_left_in_redis_is_seen(ended: Stage, leave: Callable[[Any], None]) -> None:
    """Given a job that ended well, when a lease, a ticket or a waiting job is left, then the oracle names that."""
    leave(ended.direct)

    kinds = found(ended)
    ended.direct.flushall()

    assert kinds == {"left in Redis"}


def test_a_record_that_was_put_twice_is_seen(objects: Stage) -> None:
    """Given a record, when the very same bytes are put once more through the proxy, then the oracle names that."""
    record = Reference("s3", objects.bucket.bucket, key_like(objects, "/record.json"))
    store = S3Store(objects.server.options(endpoint_url=objects.s3.url))
    before = len(objects.s3.writes)

    store.put(record, objects.body(str(record)), content_type="application/json")
    kinds = found(objects)
    objects.s3.forget_writes(after=before)

    assert kinds == {"record written twice"}


def test_a_job_of_which_nothing_is_known_is_seen(ended: Stage) -> None:
    """Given a job that a producer was promised, when the store knows nothing of it, then the oracle names it."""
    ended.accepted.append("a-job-that-was-lost")

    verdict = ended.judge(within=ONE_LOOK)
    ended.accepted.remove("a-job-that-was-lost")

    assert [(v.kind, v.subject) for v in verdict.violations] == [("not finished", "a-job-that-was-lost")]


def test_a_webhook_that_never_came_is_seen(objects: Stage) -> None:
    """Given a record that names a webhook, when its receiver was told nothing, then the oracle names that."""
    key = key_like(objects, "/record.json")
    record = json.loads(objects.body(str(objects.at(key))))
    record["job"]["webhook"] = "https://hooks.example.com"
    put(objects, key, json.dumps(record).encode())

    assert "webhook missing" in found(objects)
