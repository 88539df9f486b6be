"""docs/handbook.md: what an operator copies from it works, and what it says of logs is so."""

from __future__ import annotations

import json
import re
import shlex
import signal
import subprocess
import sys
from configparser import ConfigParser
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner
from redis import Redis

from overpaint_common.dead import DeadLetter, DeadLetters
from overpaint_common.errors import WorkerCrashed
from overpaint_common.job import Job, Output
from overpaint_common.live import Live, connect
from overpaint_common.passes import Img2Img
from overpaint_common.raw import RawMessage
from overpaint_common.result import Failure, Result
from overpaint_producer import Producer
from overpaint_producer.cli import main
from overpaint_producer.local.redis import EmbeddedRedis
from overpaint_worker import exits
from overpaint_worker.settings import WorkerSettings
from tests.docs.conftest import environment
from tests.docs.pages import DOCS, README, ROOT, page, typed
from tests.support.s3 import S3Server
from tests.support.stack import eventually

HANDBOOK = page(DOCS / "handbook.md")
REDIS, UNIT = HANDBOOK.blocks("ini")


def block(language: str, line: str) -> str:
    """The one in a language that has such a line."""
    (found,) = [body for body in HANDBOOK.blocks(language) if line in body.splitlines()]
    return found


@pytest.fixture
def redis(tmp_path: Path) -> Any:
    with EmbeddedRedis(tmp_path / "redis") as running:
        yield running


@pytest.fixture
def variables(tmp_path: Path, redis: EmbeddedRedis) -> dict[str, str]:
    """The settings of a stack of its own, in which nothing runs."""
    for name in ("ledger", "photos", "pictures"):
        (tmp_path / name).mkdir()
    return {
        "OVERPAINT_REDIS_URL": redis.url,
        "OVERPAINT_LEDGER": f"{(tmp_path / 'ledger').as_uri()}/",
        "OVERPAINT_READ": f"{(tmp_path / 'photos').as_uri()}/",
        "OVERPAINT_WRITE": f"{(tmp_path / 'pictures').as_uri()}/",
    }


def test_redis_takes_what_the_page_configures(redis: EmbeddedRedis) -> None:
    """Given a Redis, when it is given each line of the page, then it takes it, and doctor asks for no other."""
    with Redis.from_url(redis.url, decode_responses=True) as client:
        for line in REDIS.splitlines():
            name, value = line.split()
            client.config_set(name, value)
            assert client.config_get(name) == {name: value}


@pytest.mark.parametrize("on", [README, HANDBOOK.path], ids=lambda path: path.name)
def test_a_worker_starts_with_what_the_page_exports(on: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Given the page's exports and the registry beside them, when a worker reads its settings, then nothing lacks."""
    (lines,) = [typed(body) for body in page(on).blocks("sh") if "overpaint worker" in body.splitlines()]
    for line in lines[:-1]:
        name, value = shlex.split(line)[1].split("=", 1)
        monkeypatch.setenv(name, value)
    monkeypatch.chdir(tmp_path)
    (tmp_path / "models.toml").write_text(HANDBOOK.blocks("toml")[0])

    settings = WorkerSettings.load()

    assert set(settings.open_registry().models) == {"sd15", "sdxl"}
    assert settings.access


def test_a_keeper_starts_and_leads(variables: dict[str, str]) -> None:
    """Given an empty stack, when the page's keeper is started, then it leads, and ends when it is told to."""
    (words,) = [shlex.split(body) for body in HANDBOOK.blocks("sh") if body == "overpaint keeper\n"]
    keeper = subprocess.Popen(
        [sys.executable, "-m", "overpaint_producer.cli", *words[1:]],
        env={**environment(), **variables},
        stderr=subprocess.PIPE,
        text=True,
    )
    live = Live(connect(variables["OVERPAINT_REDIS_URL"]))
    try:
        eventually(live.kept, "a keeper leads")
    finally:
        keeper.send_signal(signal.SIGTERM)
        _, log = keeper.communicate(timeout=20)
        live.close()
    assert keeper.returncode == 0, log


def test_the_unit_of_systemd_starts_a_worker() -> None:
    """Given the page's unit, when its lines are read, then it calls a command there is and waits for the drain."""
    unit = ConfigParser(interpolation=None)
    unit.optionxform = str  # type: ignore[method-assign, assignment]
    unit.read_string(UNIT)
    service = unit["Service"]
    program, *words = shlex.split(service["ExecStart"])
    assert program.endswith("/bin/overpaint")
    assert CliRunner().invoke(main, [*words, "--help"]).exit_code == 0
    assert service.getint("RestartPreventExitStatus") == exits.CONFIG
    assert service.getint("TimeoutStopSec") > WorkerSettings.model_fields["grace"].default
    assert service["KillMode"] == "mixed"


def test_the_policy_is_what_the_settings_page_asks_for() -> None:
    """Given the page's policy, when it is held against the table of rights, then each place has the table's actions."""
    (policy,) = (json.loads(body) for body in HANDBOOK.blocks("json"))
    granted = {statement["Sid"]: set(statement["Action"]) for statement in policy["Statement"]}
    rows = page(DOCS / "settings.md").section("Rights on S3").rows("who")
    asked = {place.strip("`"): set(re.findall(r"s3:\w+", actions)) for who, place, actions in rows if "workers" in who}
    assert granted == {
        "Ledger": asked["the ledger"],
        "Read": asked["OVERPAINT_READ"],
        "Write": asked["OVERPAINT_WRITE"],
    }


def test_the_lifecycle_spares_what_is_open(server: S3Server, monkeypatch: pytest.MonkeyPatch) -> None:
    """Given a bucket, when the page's program has run, then its rules end what is finished, and nothing else."""
    monkeypatch.setenv("AWS_ENDPOINT_URL", server.endpoint_url)
    with server.bucket() as bucket:
        program = HANDBOOK.blocks("python")[0].replace("my-ledger", bucket.bucket)
        exec(program, {})
        rules = server.client.get_bucket_lifecycle_configuration(Bucket=bucket.bucket)["Rules"]
    assert {rule["Filter"]["Prefix"] for rule in rules} == {"jobs/", "dead/"}


def test_dead_letters_are_shown_and_done_again(variables: dict[str, str], monkeypatch: pytest.MonkeyPatch) -> None:
    """Given a job that was given up and a message that nobody understood, when the page's lines are typed, then the
    job is submitted again and the message is gone."""
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    with Producer() as producer:
        letters = DeadLetters(producer.store, producer.settings.ledger_root)
        _bury(producer, letters, "order-1234-cover", variables)
        for line in typed(block("sh", "overpaint dead list")):
            ran = CliRunner().invoke(main, shlex.split(line)[1:], input="y\n")
            assert ran.exit_code == 0, (line, ran.output)
        assert letters.names("jobs") == letters.names("raw") == []


def _bury(producer: Producer, letters: DeadLetters, job_id: str, variables: dict[str, str]) -> None:
    job = Job(
        id=job_id,
        source=f"{variables['OVERPAINT_READ']}cat.png",
        model="mini",
        passes=(Img2Img(steps=4),),
        output=Output(prefix=variables["OVERPAINT_WRITE"]),
    )
    producer.submit(job)
    request = producer.ledger.request(job_id)
    record = Result(
        job_id=job_id,
        status="failed",
        attempt="0123456789ab",
        attempts=3,
        job=request.job,
        failure=Failure.of(WorkerCrashed("3 workers died while they worked on it, the last one gpu-1")),
        accepted_at=request.accepted_at,
        finished_at=datetime.now(UTC),
    )
    letters.bury_job(DeadLetter.of(request, producer.ledger.commit(record), crashes=3, worker="gpu-1"))
    raw = RawMessage(queue="overpaint.submit", reason="no JSON", received_at=datetime.now(UTC), data=b"no JSON")
    producer.ledger.bury("raw", raw.name, raw.model_dump_json().encode())


def test_each_line_of_the_log_is_one_that_programs_write() -> None:
    """Given the page's table of log lines, when the worker's source is searched, then it logs each of them."""
    source = "\n".join(file.read_text() for file in (ROOT / "worker").rglob("*.py"))
    logged = re.findall(r'log\.(?:warning|error|exception)\(\s*"([^"]+)', source)
    told = [row[0] for row in HANDBOOK.rows("the message begins with")]
    assert len(told) > 15
    assert [line for line in told if not any(each.startswith(line) for each in logged)] == []
