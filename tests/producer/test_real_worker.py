"""The examples against a real worker; and what the stand-in for one records, held against what a real one does."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import django
import pytest
from django.test import Client
from fastapi.testclient import TestClient

from overpaint_common.live import Live, connect
from overpaint_common.result import Result
from overpaint_producer.testing import InMemoryProducer
from tests.support.s3 import S3Server
from tests.support.stack import LIGHT_WORKER, Stack, encoded, eventually, picture, stack

pytestmark = pytest.mark.long

EXAMPLES = Path(__file__).parents[2] / "docs" / "examples"


@pytest.fixture(scope="module")
def serving(server: S3Server, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    with stack(server, tmp_path_factory.mktemp("stack")) as running, running.worker(LIGHT_WORKER):
        yield running


@pytest.fixture
def environment(serving: Stack, monkeypatch: pytest.MonkeyPatch) -> Stack:
    """The stack's settings are this process's."""
    for name, value in serving.worker_environment().items():
        monkeypatch.setenv(name, value)
    monkeypatch.setenv("PICTURES", serving.output)
    monkeypatch.syspath_prepend(EXAMPLES)
    return serving


def example(name: str) -> ModuleType:
    __import__(name)
    return sys.modules[name]


def order(stack: Stack, **changes: Any) -> dict[str, Any]:
    return {"source": stack.put("scene.png", encoded(picture())), "prompt": "a blue square", **changes}


def test_the_fastapi_example_has_a_picture_painted(environment: Stack) -> None:
    with TestClient(example("fastapi_app").app) as client:
        answer = client.post("/paintings", json=order(environment), headers={"Idempotency-Key": "fastapi"})
        assert answer.status_code == 202, answer.text
        with client.stream("GET", f"{answer.headers['location']}/events") as events:
            moments = [json.loads(line.removeprefix("data: ")) for line in events.iter_lines() if line]
        painting = client.get(answer.headers["location"]).json()

    assert moments[0]["state"] == "queued"
    assert {moment["phase"] for moment in moments} >= {"fetch", "denoise", "upload"}
    assert moments[-1]["state"] == painting["state"] == "succeeded"
    assert painting["pictures"][0].startswith("http")


def test_the_django_example_has_a_picture_painted(environment: Stack) -> None:
    views, client = example("django_app"), Client()
    django.setup()
    answer = client.post("/paintings/", order(environment), "application/json")
    assert answer.status_code == 202, answer.content

    def shown() -> dict[str, Any]:
        found: dict[str, Any] = client.get(f"/paintings/{answer.json()['id']}/").json()
        return found

    eventually(lambda: shown()["state"] == "succeeded", "the painting is there")
    assert shown()["pictures"][0].startswith("http")
    views.producer().close()
    views.producer.cache_clear()


@pytest.mark.parametrize(
    "fields",
    [
        {"variants": 2, "seed": 7},
        {"strength": 0},
        {"size": "source", "format": "webp", "labels": {"a": "b"}},
    ],
)
def test_the_stand_in_records_what_a_real_worker_does(environment: Stack, fields: dict[str, Any]) -> None:
    """Given one job for both, when both have ended it, then the records differ in what painting decides, and times."""
    live = Live(connect(environment.redis.url))
    card = live.models()["overpaint-mini"]
    live.close()
    wanted = {"prompt": "a blue square", "strength": 0.6, "output": environment.output, **fields}
    source = order(environment)["source"]
    with environment.producer() as producer:
        real = producer.img2img(source, model=card.name, **wanted).wait(timeout=60)
    with InMemoryProducer(models=[card.model_copy(update={"ledger": None})]) as memory:
        memory.put(source, picture())
        played = memory.finish(memory.img2img(source, model=card.name, id=real.job_id, **wanted))

    assert _decided(played) == _decided(real)
    assert _filled(real) - _filled(played) <= {"software", "timings"}


def _filled(record: Result) -> set[str]:
    return {name for name, value in record if value}


def _decided(record: Result) -> dict[str, Any]:
    """What does not depend on who painted, and when."""
    # The light model calls itself so, whatever the registry says.
    told = json.loads(record.model_dump_json(exclude_none=True).replace('"light"', f'"{record.job.model}"'))
    kept = ("status", "job", "passthrough", "variants", "source", "models", "attempts", "batch_rows")
    changing = {"uri", "sha256", "etag", "size", "scheduler", "seconds", "started_at", "digest", "pipeline", "revision"}
    return {name: _without(told.get(name), changing) for name in kept}


def _without(value: Any, names: set[str]) -> Any:
    match value:
        case dict():
            return {name: _without(each, names) for name, each in value.items() if name not in names}
        case list():
            return [_without(each, names) for each in value]
        case _:
            return value
