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
    WorkerStopping,
)
from overpaint_common.live import Attempts
from overpaint_common.patience import insist
from overpaint_common.settings import Settings
from overpaint_common.wire import celery_settings
from overpaint_worker.consumption import Consumption
from overpaint_worker.devices import child_environment, find_devices
from overpaint_worker.retry import OUTAGE_ATTEMPTS, Decision, decide, decide_blocked
from overpaint_worker.shares import Shares


@pytest.mark.parametrize(
    ("error", "attempts", "decision"),
    [
        (SourceEmpty("x"), Attempts(1, 0), Decision(give_up=True)),
        (ForbiddenReference("x"), Attempts(1, 0), Decision(give_up=True)),
        (DeviceOutOfMemory("x"), Attempts(1, 0), Decision(False, 5)),
        (DeviceOutOfMemory("x"), Attempts(2, 0), Decision(False, 20)),
        (DeviceOutOfMemory("x"), Attempts(3, 0), Decision(True, 60)),
        (DeviceOutOfMemory("x"), Attempts(5, 1, 2), Decision(False, 20, "", alone=True)),
        (StorageFull("x"), Attempts(3, 0), Decision(True, 240)),
        (StorageUnavailable("x"), Attempts(3, 2), Decision(False, 8, "outages")),
        (BrokerUnavailable("x"), Attempts(50, 49), Decision(False, 60, "outages")),
        (StorageUnavailable("x"), Attempts(200, OUTAGE_ATTEMPTS), Decision(True, 60, "outages")),
        (WorkerStopping("x"), Attempts(1, 0), Decision(False, 0, "outages")),
        (EngineDied("x"), Attempts(1, 0), Decision(False, 0, "crashes")),
        (EngineDied("x"), Attempts(2, 0, 1), Decision(False, 0, "crashes", alone=True)),
        (EngineDied("x"), Attempts(3, 0, 2), Decision(True, 0, "crashes", alone=True)),
    ],
)
def test_what_may_help_is_tried_again_and_crashes_are_counted_apart(
    error: OverpaintError, attempts: Attempts, decision: Decision
) -> None:
    """Given an error and the counts so far, when it is decided, then try, outage and crash each have their limit."""
    assert decide(error, attempts, max_attempts=3) == decision


def test_an_engine_that_dies_before_a_jobs_turn_is_no_crash_of_that_job() -> None:
    """Given jobs that only waited for the engine, when it dies, then they go back as after an outage."""
    assert decide(EngineDied("x"), Attempts(1, 0), 3, begun=False) == Decision(False, 0, "outages")


def test_a_ledger_that_denies_access_is_asked_again_but_seldom() -> None:
    """Given an error that no retry mends, when the ledger itself raised it, then the job waits longer each time."""
    delays = [decide_blocked(StorageDenied("x"), Attempts(n, n)).delay for n in range(8)]
    assert delays == sorted(delays)
    assert (delays[0], delays[-1]) == (15, 300)
    assert not decide_blocked(StorageDenied("x"), Attempts(500, 500)).give_up


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
    """Given two models, when their queues are listed, then whole jobs lead, then both's interactive."""
    consumption = Consumption(["a", "b"], Shares(8), leaving=threading.Event(), submissions=True)
    assert list(consumption.queues) == [
        "overpaint.submit",
        *("overpaint.a.interactive", "overpaint.b.interactive"),
        *("overpaint.a.standard", "overpaint.b.standard"),
        *("overpaint.a.bulk", "overpaint.b.bulk"),
    ]
