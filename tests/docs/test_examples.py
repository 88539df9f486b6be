"""The shell and Python of all pages, and the messages of docs/protocol.md, run as printed against a real stack."""

from __future__ import annotations

import base64
import hashlib
import json
import os
import shlex
import subprocess
import time
import uuid
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

import pytest
from click.testing import CliRunner
from jsonschema import Draft202012Validator
from PIL import Image, ImageChops, ImageStat
from redis import Redis
from standardwebhooks import Webhook

from overpaint_common.schema import schemas
from overpaint_producer import Producer
from overpaint_producer.cli import main
from tests.docs.conftest import Newcomer
from tests.docs.pages import DOCS, README, page, typed
from tests.docs.snippets import calls_of_the_command_line, to_run
from tests.support.programs import required
from tests.support.stack import eventually

PROTOCOL = page(DOCS / "protocol.md")
SINGLE, LOOP = page(README).blocks("python")
(RECEIVE,) = (block for block in page(DOCS / "producer.md").blocks("python") if "def receive(" in block)
JOB, MORE, MESSAGE, SIGNED, *_ = (json.loads(block) for block in PROTOCOL.blocks("json"))
LONG = {"passes": [{"op": "img2img", "prompt": "a cat in snow", "strength": 1, "steps": 200}], "variants": 4}
"""Changes of a job that make it last for many seconds."""
UNTOUCHED = {"passes": [{"op": "img2img", "strength": 0}]}
"""Changes of a job that leave nothing to paint."""


def file_of(uri: str) -> Path:
    return Path(unquote(urlsplit(uri).path))


def test_the_shell_example_repaints_the_picture_that_up_leaves_there(newcomer: Newcomer) -> None:
    """Given a running `overpaint up`, when the README's submit block is typed, then a job succeeds."""
    (block,) = [block for block in page(README).blocks("sh") if "overpaint submit" in block]
    done = newcomer.shell(block)
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("succeeded")


def test_strengths_are_shown_and_a_job_repeated(newcomer: Newcomer) -> None:
    """Given a finished job, when the README's plan, sweep and replay are typed, then there are two pages and the same
    picture."""
    (submit,) = [block for block in page(README).blocks("sh") if "overpaint submit" in block]
    (block,) = [block for block in page(README).blocks("sh") if "overpaint sweep" in block]
    job = json.loads(newcomer.shell(submit.replace("--wait", "--wait --json")).stdout.splitlines()[-1])["id"]

    done = newcomer.shell(f"source overpaint-local/overpaint.env\nJOB={job}\n{block}")

    assert done.returncode == 0, done.stderr
    assert "6 of 6 painted" in done.stdout
    for page_of in ("strength.png", "overpaint-sweep.png"):
        with Image.open(newcomer.local.parent / page_of) as drawn:
            assert min(drawn.size) > 300


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


def test_the_receiver_takes_what_is_signed_and_nothing_else(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Given the page's receiver, when a genuine webhook comes and a changed one, then it tells them apart."""
    key = bytes(range(32))
    monkeypatch.setenv("OVERPAINT_WEBHOOK_SECRET", "whsec_" + base64.b64encode(key).decode())
    names: dict[str, Any] = {}
    exec(RECEIVE, names)
    body = PROTOCOL.blocks("json")[-1].rstrip("\n")
    now = datetime.now(UTC)
    headers = {
        "Webhook-Id": "a-webhook",
        "Webhook-Timestamp": str(int(now.timestamp())),
        "Webhook-Signature": Webhook(key).sign("a-webhook", now, body),
    }
    assert names["receive"](headers, body.encode()) == 204
    assert capsys.readouterr().out.split()[:2] == [JOB["id"], "succeeded"]
    assert names["receive"](headers, body.replace("cover", "other").encode()) == 403


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
    assert set(redis.hgetall(status)) == fields | {"about"}
    events: Any = redis.xrange(f"overpaint:events:{job['id']}")
    moments = [moment for _, moment in events]
    assert all(set(moment) == fields for moment in moments)
    told = next(row[1] for row in PROTOCOL.rows("field") if row[0] == "phase")
    assert {moment["phase"] for moment in moments if moment["phase"]} <= {
        *told.replace("`", "").split(": ")[1].split(", ")
    }


def test_a_message_without_an_id_takes_that_of_the_message(newcomer: Newcomer, redis: Redis) -> None:
    """Given a job without an id, when it is pushed, then it runs under its message's id."""
    job = localised(newcomer, **UNTOUCHED)
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


def test_a_receiver_that_nobody_allowed_is_refused(newcomer: Newcomer, redis: Redis) -> None:
    """Given a stack that sends no webhooks, when a job with all of the page's fields comes, then the letter says so."""
    ahead = {"deadline": (datetime.now(UTC) + timedelta(minutes=5)).isoformat()}
    message = send(redis, localised(newcomer, **{**MORE, **ahead}, id=f"full-{uuid.uuid4().hex}"))
    assert ledger_json(newcomer, "dead", "submissions", message)["code"] == "forbidden_webhook"


def test_a_signed_job_without_a_secret_to_check_it_by_is_refused(newcomer: Newcomer, redis: Redis) -> None:
    """Given a stack without a secret, when the page's signed job comes, then the letter names the setting."""
    fresh = str(uuid.uuid4())
    text = json.dumps(MESSAGE | {"body": json.dumps([SIGNED, {}, {}])}).replace(MESSAGE["headers"]["id"], fresh)
    redis.lpush("overpaint.submit", text)
    assert "OVERPAINT_SUBMIT_SECRET" in ledger_json(newcomer, "dead", "submissions", fresh)["error"]


def test_messages_that_make_no_sense_are_kept_and_the_next_one_is_served(newcomer: Newcomer, redis: Redis) -> None:
    """Given what the page says is not understood, when it is pushed, then it lies in the ledger, and a job runs."""
    later = MESSAGE | {"headers": MESSAGE["headers"] | {"eta": "2036-01-01T00:00:00Z"}}
    lacking = [{key: value for key, value in MESSAGE.items() if key != left_out} for left_out in ("body", "headers")]
    wrong = ["no JSON at all", *map(json.dumps, [*lacking, later])]
    for text in wrong:
        redis.lpush("overpaint.submit", text)
    message = send(redis, {key: value for key, value in localised(newcomer, **UNTOUCHED).items() if key != "id"})
    assert ledger_json(newcomer, "jobs", message, "record.json")["status"] == "succeeded"
    for text in wrong:
        letter = ledger_json(newcomer, "dead", "raw", hashlib.sha256(text.encode()).hexdigest()[:16])
        assert base64.b64decode(letter["data"]) == text.encode()
        assert letter["reason"]


def test_a_job_ends_at_its_deadline(newcomer: Newcomer, redis: Redis) -> None:
    """Given a long job that is to be done in two seconds, when they have passed, then its record says expired."""
    deadline = (datetime.now(UTC) + timedelta(seconds=2)).isoformat()
    job = localised(newcomer, id=f"late-{uuid.uuid4().hex}", deadline=deadline, **LONG)
    send(redis, job)
    record = ledger_json(newcomer, "jobs", job["id"], "record.json")
    assert record["status"] == "expired"
    assert datetime.fromisoformat(record["finished_at"]) >= datetime.fromisoformat(deadline)


def test_the_cancel_field_ends_a_running_job(newcomer: Newcomer, redis: Redis) -> None:
    """Given a long job, when the page's `cancel` field is set, then its record says cancelled."""
    job = localised(newcomer, id=f"long-{uuid.uuid4().hex}", **LONG)
    send(redis, job)
    ledger_json(newcomer, "jobs", job["id"], "request.json")
    redis.hset(f"overpaint:status:{job['id']}", "cancel", "1")
    assert ledger_json(newcomer, "jobs", job["id"], "record.json")["status"] == "cancelled"


def test_a_record_put_as_the_page_says_cancels_a_job(newcomer: Newcomer, redis: Redis) -> None:
    """Given a long job, when the page's three steps are taken, then that record stays and the job is tidied up."""
    job = localised(newcomer, id=f"long-{uuid.uuid4().hex}", **LONG)
    send(redis, job)
    request = ledger_json(newcomer, "jobs", job["id"], "request.json")
    record = {
        "job": {name: value for name, value in request["job"].items() if name != "webhook"},
        "accepted_at": request["accepted_at"],
        "job_id": job["id"],
        "status": "cancelled",
        "attempt": uuid.uuid4().hex[:12],
        "attempts": 0,
        "finished_at": datetime.now(UTC).isoformat(),
    }
    assert all(f"`{name}`" in PROTOCOL.section("4. Watch it, or end it").text for name in record)
    Draft202012Validator(schemas()["result.schema.json"]).validate(record)

    with newcomer.local.joinpath("ledger", "jobs", job["id"], "record.json").open("x") as file:
        json.dump(record, file)
    redis.zadd("overpaint:ended", {job["id"]: int(time.time() * 1000)})
    redis.hset(f"overpaint:status:{job['id']}", "cancel", "1")

    marker = newcomer.local.joinpath("ledger", "open", "standard", "overpaint-mini", job["id"])
    eventually(lambda: not marker.exists(), "the job is tidied up")
    copy = json.loads(newcomer.local.joinpath("out", job["id"], "result.json").read_text())
    assert (copy["status"], copy["attempt"]) == ("cancelled", record["attempt"])


def test_the_models_of_the_fleet_are_listed_as_the_page_says(redis: Redis) -> None:
    """Given a running worker, when overpaint:models is read, then each card holds what the page names."""
    card = json.loads(redis.hgetall("overpaint:models")["overpaint-mini"])
    named = {"operations", "native_size", "default_steps", "default_guidance_scale", "max_steps", "reads", "writes"}
    assert named <= card.keys()


def test_the_producer_in_another_language_gets_its_pictures(newcomer: Newcomer, tmp_path: Path) -> None:
    """Given the page's program and its job, when node runs it against this stack, then a record and pictures follow."""
    (program,) = PROTOCOL.blocks("js")
    (tmp_path / "producer.mjs").write_text(program)
    job = localised(newcomer, id="from-another-language")
    redis = urlsplit(newcomer.variables["OVERPAINT_REDIS_URL"])

    done = subprocess.run(
        [required("node"), "producer.mjs"],
        cwd=tmp_path,
        input=json.dumps(job),
        env={**os.environ, "REDIS_HOST": str(redis.hostname), "REDIS_PORT": str(redis.port)},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )

    assert done.returncode == 0, done.stderr
    state, result = done.stdout.split()
    assert state == "succeeded"
    eventually(file_of(result).exists, "the owner's copy")
    record = json.loads(file_of(result).read_text())
    assert record["job_id"] == job["id"]
    steps = record["variants"][0]["passes"][0]["effective_steps"]
    assert f"running denoise {steps}/{steps}" in done.stderr


@pytest.fixture
def here(newcomer: Newcomer, monkeypatch: pytest.MonkeyPatch) -> Iterator[Newcomer]:
    """This process in the newcomer's folder with the stack's settings; jobs that are left over are cancelled."""
    monkeypatch.chdir(newcomer.folder)
    for name, value in newcomer.variables.items():
        monkeypatch.setenv(name, value)
    yield newcomer
    with Producer() as producer:
        for marker in (newcomer.local / "ledger" / "open").glob("*/*/*"):
            producer.handle(marker.name).cancel()


@pytest.mark.parametrize("name", to_run("sh"))
def test_what_a_page_tells_to_type_works(here: Newcomer, name: str) -> None:
    """Given a running stack, when the shell blocks of a page are typed in their order, then none fails."""
    for block in to_run("sh")[name]:
        script = here.placed(block)
        if calls_of_the_command_line(block):
            for line in typed(script):
                ran = CliRunner().invoke(main, shlex.split(line)[1:])
                assert ran.exit_code == 0, (line, ran.output)
            continue
        if typed(block)[-1].startswith("export "):
            script += "overpaint settings keeper\n"
        done = here.shell(f"source overpaint-local/overpaint.env\n{script}")
        assert done.returncode == 0, (script, done.stdout, done.stderr)


@pytest.mark.parametrize("name", to_run("python"))
def test_the_python_of_a_page_runs(here: Newcomer, name: str) -> None:
    """Given a running stack, when the Python blocks of a page run as one program, then it comes to its end."""
    program = here.placed("\n".join(to_run("python")[name]))
    exec(compile(program, name, "exec"), {"__name__": "__main__"})
