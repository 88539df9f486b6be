"""The worker's pure decisions: retries, devices, the order of queues."""

from __future__ import annotations

import ssl
import threading

import pytest

from overpaint_common.errors import (
    BrokerUnavailable,
    DeviceOutOfMemory,
    EngineDied,
    ForbiddenReference,
    OverpaintError,
    SettingsError,
    SourceEmpty,
    StorageDenied,
    StorageFull,
    StorageUnavailable,
)
from overpaint_common.live import Attempts
from overpaint_common.settings import Settings
from overpaint_common.wire import celery_settings, queues_of
from overpaint_worker.devices import child_environment, find_devices
from overpaint_worker.patience import insist
from overpaint_worker.retry import OUTAGE_ATTEMPTS, gives_up, pause


@pytest.mark.parametrize(
    ("error", "attempts", "given_up"),
    [
        (SourceEmpty("x"), Attempts(1, 0), True),
        (ForbiddenReference("x"), Attempts(1, 0), True),
        (DeviceOutOfMemory("x"), Attempts(1, 0), False),
        (DeviceOutOfMemory("x"), Attempts(3, 0), True),
        (EngineDied("x"), Attempts(3, 2), False),
        (StorageFull("x"), Attempts(3, 0), True),
        (StorageUnavailable("x"), Attempts(3, 2), False),
        (BrokerUnavailable("x"), Attempts(50, 49), False),
        (StorageUnavailable("x"), Attempts(200, OUTAGE_ATTEMPTS), True),
    ],
)
def test_what_cannot_help_is_given_up_and_outages_are_waited_out(
    error: OverpaintError, attempts: Attempts, given_up: bool
) -> None:
    """Given an error and the attempts so far, when it is decided, then only what may help is tried again."""
    assert gives_up(error, attempts, max_attempts=3) is given_up


def test_only_a_dead_engine_needs_no_pause() -> None:
    """Given an outage, when the job goes back, then it waits first, and longer where only a person can help."""
    assert 0 == pause(EngineDied("x")) < pause(StorageUnavailable("x")) < pause(StorageDenied("x"))


def test_an_interrupted_action_is_repeated_until_it_works_or_its_time_is_up() -> None:
    """Given an action that fails twice, when it is insisted on, then it works; one that never does raises its error."""
    tries: list[int] = []

    def action() -> int:
        tries.append(1)
        if len(tries) < 3:
            raise StorageUnavailable("not yet")
        return len(tries)

    assert insist(action, on=StorageUnavailable, seconds=30, leaving=threading.Event()) == 3
    leaving = threading.Event()
    leaving.set()
    tries.clear()
    with pytest.raises(StorageUnavailable):
        insist(action, on=StorageUnavailable, seconds=30, leaving=leaving)
    assert len(tries) == 1


def test_tls_to_redis_is_verified() -> None:
    """Given a rediss URL, when Celery's settings are made, then the server's certificate is required."""
    assert celery_settings("rediss://r:6379/0")["broker_use_ssl"] == {"ssl_cert_reqs": ssl.CERT_REQUIRED}
    assert "broker_use_ssl" not in celery_settings("redis://r:6379/0")


@pytest.mark.parametrize("url", ["redis://:s3cr/et@h:6379/0", "localhost:6379/s3cr", "redis://h:99999999/s3cr"])
def test_a_wrong_redis_url_is_refused_without_being_repeated(url: str) -> None:
    """Given a URL with a password that breaks it, when settings are read, then the error says how to write one."""
    with pytest.raises(SettingsError, match="redis://") as caught:
        Settings.load(redis_url=url, ledger="file:///tmp/ledger")
    assert "s3cr" not in str(caught.value)


def test_devices_follow_what_the_operator_left_visible(monkeypatch: pytest.MonkeyPatch) -> None:
    """Given CUDA_VISIBLE_DEVICES, when devices are found, then one child for each of those, or the CPU."""
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "2,5")
    assert find_devices("auto") == ["2", "5"]
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    assert find_devices("auto") == ["cpu"]
    assert find_devices("0, 1") == ["0", "1"]
    for wrong in ("0,0", "0,,1", ""):
        with pytest.raises(SettingsError, match="name each device once"):
            find_devices(wrong)


def test_a_child_sees_its_own_device_and_no_other() -> None:
    """Given a device, when its child's environment is made, then CUDA shows that one alone, or none for the CPU."""
    assert child_environment("3")["CUDA_VISIBLE_DEVICES"] == "3"
    assert child_environment("cpu")["CUDA_VISIBLE_DEVICES"] == ""


def test_queues_are_drained_from_the_most_urgent_down() -> None:
    """Given two models, when their queues are listed, then both's interactive come first and bulk last."""
    assert queues_of(["a", "b"]) == [
        *("overpaint.a.interactive", "overpaint.b.interactive"),
        *("overpaint.a.standard", "overpaint.b.standard"),
        *("overpaint.a.bulk", "overpaint.b.bulk"),
    ]
