"""The worker's pure decisions: retries, devices, the order of queues."""

from __future__ import annotations

import pytest

from overpaint_common.errors import (
    BrokerUnavailable,
    DeviceOutOfMemory,
    EngineDied,
    ForbiddenReference,
    OverpaintError,
    SettingsError,
    SourceEmpty,
    StorageFull,
    StorageUnavailable,
)
from overpaint_common.wire import queues_of
from overpaint_worker.devices import child_environment, find_devices
from overpaint_worker.retry import OUTAGE_ATTEMPTS, gives_up, pause


@pytest.mark.parametrize(
    ("error", "attempts", "given_up"),
    [
        (SourceEmpty("x"), 1, True),
        (ForbiddenReference("x"), 1, True),
        (DeviceOutOfMemory("x"), 1, False),
        (DeviceOutOfMemory("x"), 3, True),
        (EngineDied("x"), 2, False),
        (StorageFull("x"), 3, True),
        (StorageUnavailable("x"), 3, False),
        (BrokerUnavailable("x"), 50, False),
        (StorageUnavailable("x"), OUTAGE_ATTEMPTS, True),
    ],
)
def test_what_cannot_help_is_given_up_and_outages_are_waited_out(
    error: OverpaintError, attempts: int, given_up: bool
) -> None:
    """Given an error and the attempts so far, when it is decided, then only what may help is tried again."""
    assert gives_up(error, attempts, max_attempts=3) is given_up


def test_only_a_dead_engine_needs_no_pause() -> None:
    """Given an outage, when the job goes back, then it waits first, lest it circle at full speed."""
    assert pause(EngineDied("x")) == 0
    assert pause(StorageUnavailable("x")) > 0


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
