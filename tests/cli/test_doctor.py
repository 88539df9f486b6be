"""`overpaint doctor` sees what is wrong and says what to do."""

from __future__ import annotations

import json
from pathlib import Path
from typing import BinaryIO

import pytest
from redis import Redis

from overpaint_common.live import Live, connect
from overpaint_common.references import Reference
from overpaint_common.storage import LocalStore, ObjectInfo
from overpaint_producer.cli.checks import check_ledger
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
    assert {check: finding["state"] for check, finding in found.items()} == {
        "versions": "ok",
        "settings": "ok",
        "redis": "ok",
        "redis eviction": "ok",
        "redis persistence": "ok",
        "storage": "ok",
        "conditional put": "ok",
        "worker": "ok",
        "keeper": "ok",
        "model": "ok",
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


def test_people_get_one_line_a_finding_and_one_a_remedy(place: Place) -> None:
    done = place.run("doctor")
    assert "warn  worker             none is alive" in done.stdout
    assert "-> start one: overpaint worker" in done.stdout


def test_no_settings_at_all_is_a_failure_that_names_them(place: Place) -> None:
    found = findings(place, 3, OVERPAINT_LEDGER="")
    assert "OVERPAINT_LEDGER" in found["settings"]["message"]
    assert set(found) == {"versions", "settings"}


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
