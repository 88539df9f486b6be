"""`overpaint doctor` sees what is wrong and says what to do."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import BinaryIO

import pytest
from redis import Redis

from overpaint_common.live import Live, connect
from overpaint_common.references import Reference
from overpaint_common.storage import LocalStore, ObjectInfo
from overpaint_producer.cli.checks import check_ledger
from overpaint_producer.cli.doctor import SUBJECTS
from overpaint_producer.local.redis import EmbeddedRedis
from overpaint_worker.keeper.leader import Leader
from tests.cli.conftest import Place


def findings(place: Place, expected: int, **variables: str) -> dict[str, dict[str, str]]:
    """The findings by check."""
    done = place.run("doctor", "--json", **variables)
    assert done.exit_code == expected, done.output
    return {found["check"]: found for found in map(json.loads, done.stdout.splitlines())}


def test_all_is_well(place: Place) -> None:
    place.announce(alive=True)
    assert findings(place, 0)["keeper"]["state"] == "warn"
    with connect(place.redis.url) as redis:
        assert Leader(redis).lead()
    found = findings(place, 0)
    assert {finding["state"] for finding in found.values()} == {"ok"}
    assert found.keys() >= {
        *("versions", "settings", "redis", "redis eviction", "redis persistence", "redis memory", "redis rights"),
        *("storage", "conditional put", "clock", "worker", "keeper", "model", "disk", "open files"),
        *("devices", "model files", "worker settings"),
    }
    assert found["worker"]["message"] == "played: mini on cpu, 8 slots"


def test_workers_that_disagree_are_a_failure(place: Place) -> None:
    """Given two workers of one model with other allowlists and ledgers, when it looks, then it names both."""
    place.announce(alive=True)
    live = Live(connect(place.redis.url))
    (worker,) = live.workers()
    other = worker.model_copy(update={"name": "other", "reads": ("s3://elsewhere/",), "ledger": "s3://books/"})
    live.announce(other, list(live.models().values()))
    live.close()

    lines = [json.loads(line) for line in place.run("doctor", "--json").stdout.splitlines()]

    failures = {found["check"]: found for found in lines if found["state"] == "fail"}
    assert set(failures) == {"worker", "allowlists"}
    assert "it keeps its ledger at s3://books/" in failures["worker"]["message"]
    assert "the workers of mini may not all" in failures["allowlists"]["message"]


def test_it_leaves_nothing_behind(place: Place) -> None:
    findings(place, 0)
    assert not [path for path in (place.folder / "ledger").rglob("*") if path.is_file()]


def test_people_get_one_line_a_finding_one_a_remedy_and_a_summary(place: Place) -> None:
    done = place.run("doctor", "--only", "fleet,clock")
    assert [line.split()[:2] for line in done.stdout.splitlines()] == [
        ["ok", "clock"],
        ["warn", "worker"],
        ["->", "start"],
        ["warn", "keeper"],
        ["->", "start"],
        ["ok", "model"],
        ["2", "to"],
    ]
    assert "warn  worker             none is alive" in done.stdout
    assert "-> start one: overpaint worker" in done.stdout
    assert done.stdout.endswith("2 to think about, 2 well\n")


def test_a_subject_that_does_not_exist_is_refused_with_those_that_do(place: Place) -> None:
    done = place.run("doctor", "--only", "redis,weather")
    assert done.exit_code == 2
    assert "'weather' is none of versions, settings, redis" in done.stderr


def test_every_subject_can_be_looked_at_alone(place: Place) -> None:
    for subject in SUBJECTS:
        done = place.run("doctor", "--only", subject, "--json")
        assert done.exit_code == 0, done.output
        assert done.stdout, subject


def test_no_settings_at_all_is_a_failure_that_names_them(place: Place) -> None:
    found = findings(place, 3, OVERPAINT_LEDGER="")
    assert not {"redis", "storage", "fleet"} & found.keys()
    assert "OVERPAINT_LEDGER" in found["settings"]["message"]


def test_each_wrong_setting_is_a_finding_and_a_stranger_a_warning(place: Place) -> None:
    """Given two wrong values, when it looks, then both are told; given a name with a slip, then that."""
    done = place.run("doctor", "--json", "--only", "redis", OVERPAINT_LEDGER="ledger", OVERPAINT_REDIS_URL="redis")
    wrong = [json.loads(line)["message"] for line in done.stdout.splitlines()]
    assert done.exit_code == 3
    assert [message.partition(":")[0] for message in wrong] == ["OVERPAINT_REDIS_URL", "OVERPAINT_LEDGER"]

    done = place.run("doctor", "--json", "--only", "settings", OVERPAINT_LEDGERS="s3://books/")
    (_, stranger) = map(json.loads, done.stdout.splitlines())
    assert (done.exit_code, stranger["state"]) == (0, "warn")
    assert "OVERPAINT_LEDGERS" in stranger["message"]


def test_a_check_that_breaks_hides_no_other(place: Place, tmp_path: Path) -> None:
    """Given a check of another package that raises, when it looks, then that is a finding among all the others."""
    package = tmp_path / "broken"
    package.mkdir()
    (package / "broken_check.py").write_text("def look():\n    raise RuntimeError('no such luck')\n")
    metadata = package / "broken-1.0.dist-info"
    metadata.mkdir()
    (metadata / "METADATA").write_text("Metadata-Version: 2.1\nName: broken\nVersion: 1.0\n")
    (metadata / "entry_points.txt").write_text("[overpaint.checks]\nclock = broken_check:look\n")
    done = subprocess.run(
        [sys.executable, "-m", "overpaint_producer.cli", "doctor", "--json", "--only", "clock"],
        env={**os.environ, **place.variables, "PYTHONPATH": str(package)},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    found = [json.loads(line) for line in done.stdout.splitlines()]
    assert done.returncode == 3
    assert [finding["state"] for finding in found] == ["ok", "fail"]
    assert "RuntimeError: no such luck" in found[1]["message"]
    assert "Traceback" not in done.stderr


def test_a_wrong_allowlist_is_named_as_it_is_set(place: Place) -> None:
    found = findings(place, 3, OVERPAINT_READ="s3://photos/,photos")
    assert found["settings"]["message"].startswith("OVERPAINT_READ: reference 'photos' is not understood")


def test_an_allowlist_that_covers_the_ledger_is_a_failure(place: Place) -> None:
    found = findings(place, 3, OVERPAINT_WRITE=place.folder.as_uri())
    assert "overlap" in found["settings"]["message"]


def test_redis_down_does_not_hide_the_state_of_storage_nor_show_the_password(place: Place) -> None:
    found = findings(place, 3, OVERPAINT_REDIS_URL="redis://user:secret@127.0.0.1:1/0")
    assert (found["redis"]["state"], found["fleet"]["state"], found["storage"]["state"]) == ("fail", "fail", "ok")
    assert "OVERPAINT_REDIS_URL" in found["redis"]["remedy"]
    assert "secret" not in json.dumps(found)


def test_storage_down_says_where(place: Place) -> None:
    found = findings(
        place,
        3,
        OVERPAINT_LEDGER="s3://my-ledger/",
        OVERPAINT_S3_ENDPOINT_URL="http://127.0.0.1:1",
        OVERPAINT_S3_MAX_ATTEMPTS="1",
        AWS_ACCESS_KEY_ID="key",
        AWS_SECRET_ACCESS_KEY="secret",
    )
    assert "http://127.0.0.1:1" in found["storage"]["message"]
    assert found["storage"]["remedy"]
    assert "conditional put" not in found


def test_a_redis_that_throws_data_away_fails_and_one_without_a_log_is_warned_of(place: Place, tmp_path: Path) -> None:
    with EmbeddedRedis(tmp_path / "other", append_only=False) as redis:
        with Redis.from_url(redis.url) as client:
            client.config_set("maxmemory", "100mb")
            client.config_set("maxmemory-policy", "allkeys-lru")
        found = findings(place, 3, OVERPAINT_REDIS_URL=redis.url)
    assert (found["redis eviction"]["state"], found["redis persistence"]["state"]) == ("fail", "warn")
    assert "noeviction" in found["redis eviction"]["remedy"]
    assert "appendonly yes" in found["redis persistence"]["remedy"]


class Careless(LocalStore):
    """A store that ignores the condition, as some S3 lookalikes do."""

    def put(
        self, reference: Reference, body: bytes | BinaryIO, *, content_type: str, if_absent: bool = False
    ) -> ObjectInfo:
        del if_absent
        return super().put(reference, body, content_type=content_type)


def test_a_store_that_ignores_conditions_fails(tmp_path: Path) -> None:
    found = {f.check: f for f in check_ledger(Careless(), Reference.from_path(tmp_path).as_prefix())}
    assert (found["storage"].state, found["conditional put"].state) == ("ok", "fail")
    assert "If-None-Match" in found["conditional put"].remedy
    assert not [path for path in tmp_path.rglob("*") if path.is_file()]


@pytest.mark.parametrize("alive", [True, False])
def test_a_model_that_nobody_serves_now_is_still_listed(place: Place, alive: bool) -> None:
    place.announce(alive=alive)
    found = findings(place, 0)
    assert found["worker"]["state"] == ("ok" if alive else "warn")
    assert found["model"]["message"].startswith("mini: img2img, stable-diffusion, 64 pixels")
