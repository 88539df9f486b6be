"""The examples of the README and of docs/protocol.md, run as printed against a real stack."""

from __future__ import annotations

import hashlib
import json
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

import pytest
from jsonschema import Draft202012Validator
from PIL import Image, ImageChops, ImageStat
from redis import Redis

from overpaint_common.schema import schemas
from tests.docs.conftest import Newcomer
from tests.docs.pages import DOCS, README, page
from tests.support.stack import eventually

PROTOCOL = page(DOCS / "protocol.md")
SINGLE, LOOP = page(README).blocks("python")
JOB, MESSAGE, RECORD = (json.loads(block) for block in PROTOCOL.blocks("json"))


def file_of(uri: str) -> Path:
    return Path(unquote(urlsplit(uri).path))


def test_the_shell_example_repaints_the_picture_that_up_leaves_there(newcomer: Newcomer) -> None:
    """Given a running `overpaint up`, when the README's submit block is typed, then a job succeeds."""
    (block,) = [block for block in page(README).blocks("sh") if "overpaint submit" in block]
    done = newcomer.shell(block)
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("succeeded")


def test_the_python_example_makes_a_picture(newcomer: Newcomer) -> None:
    """Given the README's first Python block, when it runs, then it saves the stored picture, unlike the source."""
    seed, uri = newcomer.python(SINGLE).split()
    assert int(seed) >= 0
    with Image.open(newcomer.local / "green-house.png") as saved, Image.open(file_of(uri)) as stored:
        assert saved.size == stored.size == (64, 64)
        assert ImageChops.difference(saved, stored.convert(saved.mode)).getbbox() is None
        with Image.open(newcomer.local / "in" / "house.png") as source:
            change = ImageStat.Stat(ImageChops.difference(saved.convert("RGB"), source.convert("RGB"))).mean
    assert sum(change) / 3 > 5


def test_the_loop_can_be_run_again_without_painting_twice(newcomer: Newcomer) -> None:
    """Given the README's loop over a folder, when it runs twice, then both runs name the same jobs."""
    first, second = ([line.split()[0] for line in newcomer.python(LOOP).splitlines()] for _ in range(2))
    assert first == second
    assert len(first) == len(list((newcomer.local / "in").glob("*.png")))
    for job_id in first:
        eventually(newcomer.local.joinpath("out", job_id, "result.json").exists, "the bulk job ends")


@pytest.fixture
def redis(newcomer: Newcomer) -> Iterator[Redis]:
    done = newcomer.shell("source overpaint-local/overpaint.env; echo $OVERPAINT_REDIS_URL")
    with Redis.from_url(done.stdout.strip(), decode_responses=True) as client:
        yield client


def localised(newcomer: Newcomer, **changes: Any) -> dict[str, Any]:
    """The page's job, for the local stack's places and model."""
    places = {
        "source": (newcomer.local / "in" / "house.png").as_uri(),
        "output": {"prefix": newcomer.local.joinpath("out").as_uri() + "/"},
        "model": "overpaint-mini",
    }
    return {**JOB, **places, **changes}


def send(redis: Redis, job: dict[str, Any]) -> str:
    """Push the page's message with another job in it and its ids made fresh; the message's id."""
    fresh = str(uuid.uuid4())
    text = json.dumps(MESSAGE | {"body": json.dumps([[job], {}, {}])}).replace(MESSAGE["headers"]["id"], fresh)
    redis.lpush("overpaint.submit", text)
    return fresh


def ledger_json(newcomer: Newcomer, *key: str) -> Any:
    """A document of the ledger once it is there."""
    file = newcomer.local.joinpath("ledger", *key)
    eventually(file.exists, f"{file} written")
    return json.loads(file.read_text())


def test_the_message_of_the_protocol_page_becomes_a_finished_job(newcomer: Newcomer, redis: Redis) -> None:
    """Given the page's message for this stack, when it is pushed, then all that the page promises can be read."""
    job = localised(newcomer)
    send(redis, job)

    record = ledger_json(newcomer, "jobs", job["id"], "record.json")
    Draft202012Validator(schemas()["result.schema.json"]).validate(record)
    assert record["status"] == "succeeded"
    (output,) = record["variants"][0]["outputs"]
    assert hashlib.sha256(file_of(output["uri"]).read_bytes()).hexdigest() == output["sha256"]
    copy = newcomer.local / "out" / job["id"] / "result.json"
    eventually(copy.exists, "the owner's copy")
    assert json.loads(copy.read_text()) == record
    request = ledger_json(newcomer, "jobs", job["id"], "request.json")
    assert {"seed", "steps", "guidance_scale"} <= request["job"]["passes"][0].keys()

    fields = {row[0] for row in PROTOCOL.rows("field")}
    status = f"overpaint:status:{job['id']}"
    eventually(lambda: redis.hget(status, "state") == "succeeded", "the live status ends")
    assert set(redis.hgetall(status)) == fields
    events: Any = redis.xrange(f"overpaint:events:{job['id']}")
    moments = [moment for _, moment in events]
    assert all(set(moment) == fields for moment in moments)
    told = next(row[1] for row in PROTOCOL.rows("field") if row[0] == "phase")
    assert {moment["phase"] for moment in moments if moment["phase"]} <= {
        *told.replace("`", "").split(": ")[1].split(", ")
    }


def test_a_message_without_an_id_takes_that_of_the_message(newcomer: Newcomer, redis: Redis) -> None:
    """Given a job without an id, when it is pushed, then it runs under its message's id."""
    job = localised(newcomer, passes=[{"op": "img2img", "strength": 0}])
    del job["id"]
    message = send(redis, job)
    assert ledger_json(newcomer, "jobs", message, "record.json")["status"] == "succeeded"


def test_a_refused_message_is_kept_with_its_reason(newcomer: Newcomer, redis: Redis) -> None:
    """Given a job with an unknown field, when it is pushed, then a dead letter says so."""
    message = send(redis, localised(newcomer, colour="green"))
    letter = ledger_json(newcomer, "dead", "submissions", message)
    assert letter.keys() == {"id", "code", "error", "body"}
    assert letter["code"] == "invalid_job"
    assert letter["body"]["colour"] == "green"


def test_the_cancel_field_ends_a_running_job(newcomer: Newcomer, redis: Redis) -> None:
    """Given a long job, when the page's `cancel` field is set, then its record says cancelled."""
    passes = [{"op": "img2img", "prompt": "a cat in snow", "strength": 1, "steps": 200}]
    job = localised(newcomer, id=f"long-{uuid.uuid4().hex}", passes=passes, variants=4)
    send(redis, job)
    ledger_json(newcomer, "jobs", job["id"], "request.json")
    redis.hset(f"overpaint:status:{job['id']}", "cancel", "1")
    assert ledger_json(newcomer, "jobs", job["id"], "record.json")["status"] == "cancelled"


def test_the_models_of_the_fleet_are_listed_as_the_page_says(redis: Redis) -> None:
    """Given a running worker, when overpaint:models is read, then each card holds what the page names."""
    card = json.loads(redis.hgetall("overpaint:models")["overpaint-mini"])
    named = {"operations", "native_size", "default_steps", "default_guidance_scale", "max_steps", "reads", "writes"}
    assert named <= card.keys()
