"""How such a service is tested: without Redis, storage and workers, and in milliseconds."""

from __future__ import annotations

from collections.abc import Iterator

import django
import django_app
import pytest
from django.test import Client, override_settings
from PIL import Image

from overpaint_producer.testing import InMemoryProducer

CAT = "s3://photos/cat.png"
HOOK = "https://shop.example.com/webhooks/overpaint/"
ORDER = {"source": CAT, "prompt": "a cat, watercolour", "webhook": HOOK}


@pytest.fixture
def painter(monkeypatch: pytest.MonkeyPatch) -> Iterator[InMemoryProducer]:
    django.setup()
    with InMemoryProducer(read=["s3://photos/"], write=["s3://pictures/"]) as producer:
        producer.put(CAT, Image.new("RGB", (64, 48), "orange"))
        monkeypatch.setattr(django_app, "producer", lambda: producer)
        yield producer


@pytest.fixture
def client() -> Client:
    return Client()


def test_an_order_is_painted(client: Client, painter: InMemoryProducer) -> None:
    answer = client.post("/paintings/", ORDER, "application/json")
    assert (answer.status_code, answer.json()["state"]) == (202, "queued")

    painter.finish(answer.json()["id"])

    painting = client.get(f"/paintings/{answer.json()['id']}/").json()
    assert painting["state"] == "succeeded"
    assert painting["pictures"][0].startswith("https://")


def test_an_order_that_is_sent_twice_is_one(client: Client, painter: InMemoryProducer) -> None:
    headers = {"Idempotency-Key": "7"}
    first, again = (client.post("/paintings/", ORDER, "application/json", headers=headers) for _ in range(2))
    assert first.json()["id"] == again.json()["id"]
    assert len(painter.jobs()) == 1


@pytest.mark.parametrize(
    ("changes", "status", "code"),
    [
        ({"source": "s3://elsewhere/cat.png"}, 403, "forbidden_reference"),
        ({"strength": 0.001}, 422, "strength_too_small"),
    ],
)
def test_a_bad_order_is_refused_with_the_reason(
    client: Client, painter: InMemoryProducer, changes: dict[str, object], status: int, code: str
) -> None:
    answer = client.post("/paintings/", ORDER | changes, "application/json")

    assert (answer.status_code, answer.json()["code"]) == (status, code)
    assert len(painter.jobs()) == 0


def test_an_unknown_painting_is_not_found(client: Client, painter: InMemoryProducer) -> None:
    assert len(painter.jobs()) == 0

    assert client.get("/paintings/no-such-job/").status_code == 404


def test_only_genuine_webhooks_are_taken(client: Client, painter: InMemoryProducer) -> None:
    client.post("/paintings/", ORDER, "application/json")
    painter.work()
    (request,) = painter.take_webhooks()
    assert request.url == HOOK

    with override_settings(WEBHOOK_SECRET=painter.webhook_secret):
        taken, forged = (
            client.post("/webhooks/overpaint/", body, "application/json", headers=dict(request.headers))
            for body in (request.body, request.body + b" ")
        )

    assert (taken.status_code, forged.status_code) == (204, 403)
