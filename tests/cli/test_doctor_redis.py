"""What `overpaint doctor` says of a real Redis that is set up in other ways than it should be."""

from __future__ import annotations

import re
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from redis import Redis

from overpaint_common.findings import Finding
from overpaint_producer.cli.checks.clock import check_redis_clock
from overpaint_producer.cli.checks.redis import check_redis
from overpaint_producer.cli.checks.redis_rights import trials
from overpaint_producer.local.redis import EmbeddedRedis, free_port, is_free
from tests.support.stack import eventually

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def spare(tmp_path_factory: pytest.TempPathFactory) -> Iterator[EmbeddedRedis]:
    """A server that tests may set up as they like."""
    with EmbeddedRedis(tmp_path_factory.mktemp("spare")) as redis:
        yield redis


@pytest.fixture
def admin(spare: EmbeddedRedis) -> Iterator[Any]:
    """Puts back afterwards what tests change."""
    changed = ("maxmemory", "maxmemory-policy", "appendonly", "save", "timeout", "maxclients")
    with Redis.from_url(spare.url, decode_responses=True) as client:
        before = client.config_get(*changed)
        yield client
        for name in changed:
            client.config_set(name, before[name])


def look(url: str) -> dict[str, Finding]:
    return {finding.check: finding for finding in check_redis(url)}


def test_one_as_it_should_be_is_well_and_keeps_nothing_of_the_look(spare: EmbeddedRedis, admin: Any) -> None:
    found = look(spare.url)
    assert {finding.state for finding in found.values()} == {"ok"}
    assert admin.dbsize() == 0


@pytest.mark.parametrize(
    ("setting", "value", "check", "state", "remedy"),
    [
        ("maxmemory-policy", "allkeys-lru", "redis eviction", "warn", "noeviction"),
        ("appendonly", "no", "redis persistence", "warn", "appendonly yes"),
        ("timeout", "10", "redis connections", "warn", "timeout 0"),
        ("maxclients", "2", "redis connections", "warn", "raise maxclients"),
    ],
)
def test_one_setting_that_is_wrong_is_named_with_what_to_set(
    spare: EmbeddedRedis, admin: Any, setting: str, value: str, check: str, state: str, remedy: str
) -> None:
    admin.config_set(setting, value)
    wrong = {name: finding for name, finding in look(spare.url).items() if finding.state != "ok"}
    assert wrong.keys() == {check}
    assert wrong[check].state == state
    assert remedy in wrong[check].remedy


def test_one_that_is_nearly_full_is_warned_of_and_one_that_is_full_fails(spare: EmbeddedRedis, admin: Any) -> None:
    used = admin.info("memory")["used_memory"]
    admin.config_set("maxmemory", int(used * 1.2))
    nearly = look(spare.url)
    assert (nearly["redis memory"].state, nearly["redis rights"].state) == ("warn", "ok")
    admin.config_set("maxmemory", used // 2)
    full = look(spare.url)
    assert "OutOfMemory" in full["redis rights"].message
    assert full["redis rights"].state == "fail"


def test_one_that_throws_data_away_when_full_fails(spare: EmbeddedRedis, admin: Any) -> None:
    admin.config_set("maxmemory", "100mb")
    admin.config_set("maxmemory-policy", "volatile-ttl")
    assert look(spare.url)["redis eviction"].state == "fail"


def test_a_snapshot_that_cannot_be_written_fails(tmp_path: Path) -> None:
    # Given a folder where the snapshot's file belongs, and a snapshot that failed for it
    (tmp_path / "dump.rdb").mkdir()
    with EmbeddedRedis(tmp_path) as redis, Redis.from_url(redis.url) as client:
        client.config_set("save", "3600 1")
        client.bgsave()
        eventually(lambda: client.info("persistence")["rdb_last_bgsave_status"] == "err", "the snapshot failed")
        # When it looks, then that is told, and that Redis takes no writes now
        found = look(redis.url)
        assert found["redis persistence"].state == "fail"
        assert "takes no writes" in found["redis persistence"].message
        assert found["redis rights"].state == "fail"
        redis.kill()  # It would not end in order before it has saved.


def test_a_replica_is_refused_naming_its_primary(spare: EmbeddedRedis, tmp_path: Path) -> None:
    with EmbeddedRedis(tmp_path, append_only=False) as replica, Redis.from_url(replica.url) as client:
        client.replicaof("127.0.0.1", spare.port)
        found = look(replica.url)
    assert found.keys() == {"redis", "redis role"}
    assert found["redis role"].state == "fail"
    assert f"replica of 127.0.0.1:{spare.port}" in found["redis role"].message


class Clustered(EmbeddedRedis):
    def _options(self) -> list[str]:
        return [*super()._options(), "--cluster-enabled", "yes"]


def test_cluster_mode_is_refused(tmp_path: Path) -> None:
    # The servers of a cluster talk to each other on a second port, 10,000 above.
    port = next(port for port in iter(free_port, None) if port < 55_000 and is_free(port + 10_000))
    with Clustered(tmp_path, port=port) as redis:
        found = look(redis.url)
    assert found["redis role"].state == "fail"
    assert "cluster mode" in found["redis role"].message


@pytest.mark.parametrize(
    ("rules", "named"),
    [
        (["~*", "&*", "+@all", "-eval", "-evalsha"], {"EVAL", "EVALSHA"}),
        (["~*", "&*", "+@all", "-xadd", "-multi"], {"XADD", "MULTI"}),
        (["~overpaint*", "&*", "+@all"], {"EXISTS on unacked", "SREM on _kombu.binding.celery"}),
        (["~*", "resetchannels", "+@all"], {"PUBLISH on /0.celeryev/overpaint-doctor-"}),
    ],
)
def test_a_user_that_may_not_do_all_that_is_needed_is_told_what(
    spare: EmbeddedRedis, admin: Any, rules: list[str], named: set[str]
) -> None:
    admin.execute_command("ACL", "SETUSER", "limited", "reset", "on", ">secret", *rules)
    found = look(spare.url.replace("redis://", "redis://limited:secret@"))
    assert found["redis rights"].state == "fail"
    for name in named:
        assert name in found["redis rights"].message
    assert admin.dbsize() == 0


def test_a_user_with_the_rights_that_the_remedy_names_is_well(spare: EmbeddedRedis, admin: Any) -> None:
    admin.execute_command("ACL", "SETUSER", "limited", "reset", "on", ">secret", "~*", "&*", "+time", "+info")
    url = spare.url.replace("redis://", "redis://limited:secret@")
    remedy = re.search(r"ACL SETUSER <user> (.*)", look(url)["redis rights"].remedy)
    assert remedy is not None
    admin.execute_command("ACL", "SETUSER", "limited", *remedy[1].split())
    assert {finding.state for finding in look(url).values()} == {"ok"}


def test_a_wrong_password_is_told_from_a_server_that_is_down_and_never_shown(spare: EmbeddedRedis, admin: Any) -> None:
    admin.execute_command("ACL", "SETUSER", "limited", "reset", "on", ">secret")
    found = look(spare.url.replace("redis://", "redis://limited:passphrase@"))["redis"]
    assert found.state == "fail"
    assert "right password" in found.message
    assert "passphrase" not in f"{found.message} {found.remedy}"


def test_every_command_of_the_scripts_is_tried() -> None:
    """Given the Lua that Redis runs, when its commands are collected, then each is among those that are tried."""
    scripts = (ROOT / "common/overpaint_common/lua").glob("*.lua")
    used = {name for file in scripts for name in re.findall(r"redis\.call\(['\"](\w+)", file.read_text())}
    assert used
    assert used <= {str(command[0]) for command in trials("probe")}


@pytest.mark.parametrize(("ahead", "state"), [(0.0, "ok"), (-5.0, "warn"), (400.0, "fail")])
def test_a_clock_that_is_off_is_warned_of_and_then_refused(spare: EmbeddedRedis, ahead: float, state: str) -> None:
    (found,) = check_redis_clock(spare.url, now=lambda: time.time() + ahead)
    assert found.state == state
    if ahead:
        assert ("behind" if ahead > 0 else "ahead of") in found.message


def test_a_slow_look_finds_no_fault_with_the_clock(spare: EmbeddedRedis) -> None:
    """Given an answer that takes four seconds, when clocks are compared, then half of that counts for nothing."""
    readings = iter((time.time(), time.time() + 4))
    (found,) = check_redis_clock(spare.url, now=lambda: next(readings))
    assert found.state == "ok"
