"""How a worker process that cannot serve ends: with 78 where a new one would fare no better, with 70 otherwise."""

from __future__ import annotations

import os
import signal
import subprocess
from pathlib import Path
from typing import Any

import pytest

from overpaint_common.errors import DeviceOutOfMemory, ModelLoadFailed, ModelUnreachable, UnknownModel
from overpaint_common.live import connect
from overpaint_common.references import Reference
from overpaint_producer.local.redis import EmbeddedRedis
from overpaint_worker import child
from overpaint_worker.engine.calls import Loader
from overpaint_worker.engine.registry import Registry
from tests.support.stack import LIGHT_WORKER, eventually


@pytest.fixture(autouse=True)
def _settings(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for name in ("ledger", "in", "out"):
        (tmp_path / name).mkdir()
    monkeypatch.setenv("OVERPAINT_REDIS_URL", "redis://127.0.0.1:1/0")
    monkeypatch.setenv("OVERPAINT_LEDGER", (tmp_path / "ledger").as_uri())
    monkeypatch.setenv("OVERPAINT_READ", (tmp_path / "in").as_uri())
    monkeypatch.setenv("OVERPAINT_WRITE", (tmp_path / "out").as_uri())
    monkeypatch.delenv("OVERPAINT_DEVICE", raising=False)


@pytest.mark.parametrize(
    ("error", "status"),
    [
        (ModelLoadFailed("broken"), 78),
        (UnknownModel("broken"), 78),
        (ModelUnreachable("broken"), 70),
        (DeviceOutOfMemory("broken"), 70),
    ],
)
def test_only_errors_that_would_come_again_are_final(
    error: Exception, status: int, caplog: pytest.LogCaptureFixture
) -> None:
    """Given a model that does not load, when the child starts, then its status tells whether to start another."""

    def loading(_: Registry, __: str) -> Loader:
        def load(_: str) -> Any:
            raise error

        return load

    assert child.main(loading) == status
    assert "broken" in caplog.text


def test_wrong_settings_are_final(monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> None:
    """Given a setting that is wrong, when the child starts, then it ends with 78 and names it."""
    monkeypatch.setenv("OVERPAINT_SLOTS", "0")
    assert child.main() == 78
    assert "OVERPAINT_SLOTS" in caplog.text


@pytest.mark.long
def test_a_child_told_to_stop_ends_though_redis_hangs(tmp_path: Path) -> None:
    """Given a child alone whose Redis hangs, when it gets SIGTERM, then it ends soon after its grace period."""
    with EmbeddedRedis(tmp_path / "redis", append_only=False) as redis, connect(redis.url) as client:
        folder = Reference.from_path(tmp_path)
        environment = {
            **os.environ,
            "OVERPAINT_REDIS_URL": redis.url,
            "OVERPAINT_LEDGER": str(folder.join("ledger")),
            "OVERPAINT_READ": str(folder.join("in")),
            "OVERPAINT_WRITE": str(folder.join("out")),
            "OVERPAINT_GRACE": "1",
        }
        command = [*LIGHT_WORKER, "child"]
        with subprocess.Popen(command, env=environment) as process:
            try:
                eventually(lambda: "brpop" in {known["cmd"] for known in client.client_list()}, "waiting for a ticket")
                os.kill(redis.pid, signal.SIGSTOP)
                process.terminate()
                assert process.wait(1 + child.OVERTIME + 10) in (0, 70)
            finally:
                process.kill()
                redis.kill()


def test_an_unforeseen_error_is_logged_and_not_final(caplog: pytest.LogCaptureFixture) -> None:
    """Given a device that CUDA does not know, when the child is built, then it ends with 70 and logs where."""

    def loading(_: Registry, __: str) -> Loader:
        raise RuntimeError("No CUDA GPUs are available")

    assert child.main(loading) == 70
    assert "unforeseen error" in caplog.text
    assert "Traceback" in caplog.text
    assert "No CUDA GPUs are available" in caplog.text
