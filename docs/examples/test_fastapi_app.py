"""How such a service is tested: without Redis, storage and workers, and in milliseconds."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Iterator

import pytest
from fastapi.testclient import TestClient
from fastapi_app import app, get_producer, get_secret
from PIL import Image

from overpaint_common.errors import DeviceOutOfMemory
from overpaint_producer.testing import AsyncInMemoryProducer, InMemoryProducer

CAT = "s3://photos/cat.png"
HOOK = "https://shop.example.com/webhooks/overpaint"
ORDER = {"source": CAT, "prompt": "a cat, watercolour", "strength": 0.6}


@pytest.fixture
def painter() -> Iterator[InMemoryProducer]:
    with InMemoryProducer(read=["s3://photos/"], write=["s3://pictures/"]) as producer:
        producer.put(CAT, Image.new("RGB", (64, 48), "orange"))
        yield producer


@pytest.fixture
def client(painter: InMemoryProducer) -> Iterator[TestClient]:
    producer = AsyncInMemoryProducer(painter)
    app.dependency_overrides = {get_producer: lambda: producer, get_secret: lambda: painter.webhook_secret}
    yield TestClient(app)  # Not entered, so that the lifespan, with a producer of its own, does not run.
    app.dependency_overrides = {}
    asyncio.run(producer.close())


def test_an_order_is_painted(client: TestClient, painter: InMemoryProducer) -> None:
    answer = client.post("/paintings", json=ORDER)
    assert (answer.status_code, answer.json()["state"]) == (202, "queued")

    painter.finish(answer.json()["id"])

    painting = client.get(answer.headers["location"]).json()
    assert painting["state"] == "succeeded"
    assert painting["pictures"][0].startswith("https://")


def test_an_order_that_is_sent_twice_is_one(client: TestClient, painter: InMemoryProducer) -> None:
    first, again = (client.post("/paintings", json=ORDER, headers={"Idempotency-Key": "7"}) for _ in range(2))
    assert first.json()["id"] == again.json()["id"]
    assert len(painter.jobs()) == 1

    other = client.post("/paintings", json=ORDER | {"strength": 0.9}, headers={"Idempotency-Key": "7"})
    assert (other.status_code, other.json()["code"]) == (409, "idempotency_conflict")


def test_an_order_while_redis_is_down_is_taken_all_the_same(client: TestClient, painter: InMemoryProducer) -> None:
    with painter.outage():
        refused = client.post("/paintings", json=ORDER)  # It names no model, and no worker can be asked for one.
        assert refused.status_code == 503

    assert client.post("/paintings", json=ORDER).status_code == 202


@pytest.mark.parametrize(
    ("changes", "status", "code"),
    [
        ({"source": "s3://elsewhere/cat.png"}, 403, "forbidden_reference"),
        ({"strength": 0.001}, 422, "strength_too_small"),
        ({"strength": 7}, 422, "invalid_job"),
    ],
)
def test_a_bad_order_is_refused_with_the_reason(
    client: TestClient, changes: dict[str, object], status: int, code: str
) -> None:
    answer = client.post("/paintings", json=ORDER | changes)

    assert (answer.status_code, answer.json()["code"]) == (status, code)


def test_a_client_follows_the_painting(client: TestClient, painter: InMemoryProducer) -> None:
    job_id = client.post("/paintings", json=ORDER).json()["id"]
    painter.report(job_id, 1)
    painter.fail(job_id, DeviceOutOfMemory("too large; ask for less"))

    with client.stream("GET", f"/paintings/{job_id}/events") as answer:
        moments = [json.loads(line.removeprefix("data: ")) for line in answer.iter_lines() if line]

    assert [moment["state"] for moment in moments] == ["queued", "running", "failed"]


def test_an_order_can_be_cancelled(client: TestClient) -> None:
    job_id = client.post("/paintings", json=ORDER).json()["id"]

    assert client.delete(f"/paintings/{job_id}").json()["state"] == "cancelled"
    assert client.get("/paintings/no-such-job").status_code == 404


def test_only_genuine_webhooks_are_taken(client: TestClient, painter: InMemoryProducer) -> None:
    painter.finish(painter.img2img(CAT, prompt="a cat", output="s3://pictures/", webhook=HOOK))
    (request,) = painter.take_webhooks()
    assert request.url == HOOK

    taken = client.post("/webhooks/overpaint", content=request.body, headers=dict(request.headers))
    forged = client.post("/webhooks/overpaint", content=request.body + b" ", headers=dict(request.headers))

    assert (taken.status_code, forged.status_code) == (204, 403)
