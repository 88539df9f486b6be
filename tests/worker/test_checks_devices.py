"""What `overpaint doctor` says of CUDA devices; no machine that runs these tests needs one."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from overpaint_common.findings import Finding
from overpaint_worker import checks
from overpaint_worker.checks.devices import Device, check_devices, judged

GIB = 2**30
H200 = Device("0", "NVIDIA H200", 140 * GIB, 139 * GIB, "570.86.15")
TORCH: dict[str, Any] = {
    "torch": "2.13.0+cu128",
    "cuda": "12.8",
    "built_for": ["sm_80", "sm_90", "compute_120"],
    "devices": ["sm_90"],
    "said": [],
}


def states(device: Device, **torch: Any) -> tuple[str, Finding]:
    listed, used = judged([device], {**TORCH, **torch})
    return listed.state, used


def nvidia_smi(folder: Path, script: str, monkeypatch: pytest.MonkeyPatch) -> None:
    tool = folder / "nvidia-smi"
    tool.write_text(f"#!/bin/sh\n{script}\n")
    tool.chmod(0o755)
    monkeypatch.setenv("PATH", str(folder), prepend=":")


def test_a_device_that_torch_can_use_is_well() -> None:
    listed, used = judged([H200], TORCH)
    assert listed.message == "0: NVIDIA H200, 139 GiB of 140 GiB free, driver 570.86.15"
    assert (listed.state, used.state) == ("ok", "ok")


def test_a_device_whose_memory_somebody_else_holds_is_warned_of() -> None:
    assert states(Device("0", "NVIDIA H200", 140 * GIB, 10 * GIB, "570"))[0] == "warn"


@pytest.mark.parametrize("capability", ["sm_80", "sm_86", "sm_90", "sm_120", "sm_121"])
def test_binaries_run_on_newer_devices_of_their_generation_and_intermediate_code_on_all(capability: str) -> None:
    assert states(H200, devices=[capability])[1].state == "ok"


@pytest.mark.parametrize("capability", ["sm_70", "sm_75", "sm_100"])
def test_a_device_that_torch_was_not_built_for_fails(capability: str) -> None:
    found = states(H200, devices=[capability])[1]
    assert (found.state, f"not built for {capability}" in found.message) == ("fail", True)


def test_a_driver_that_is_too_old_fails_with_torch_own_words(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    found = states(H200, devices=[], said=["The NVIDIA driver on your system is too old"])[1]
    assert (found.state, "too old" in found.message) == ("fail", True)


def test_devices_that_a_variable_hides_are_a_warning(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    found = states(H200, devices=[])[1]
    assert (found.state, "CUDA_VISIBLE_DEVICES" in found.message) == ("warn", True)


def test_a_driver_that_does_not_work_fails_with_its_own_words(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    nvidia_smi(tmp_path, "echo 'Failed to initialize NVML: Driver/library version mismatch'; exit 18", monkeypatch)
    (found,) = check_devices()
    assert (found.state, "version mismatch" in found.message) == ("fail", True)


def test_a_torch_for_the_cpu_beside_a_device_is_warned_of(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Given a machine that lists a device, when the torch installed here is for the CPU alone, then it says so."""
    torch = pytest.importorskip("torch")
    if torch.version.cuda is not None:
        pytest.skip("torch is built for CUDA here")
    nvidia_smi(tmp_path, "echo '0, NVIDIA H200, 143771, 143000, 570.86.15'", monkeypatch)
    listed, used = check_devices()
    assert (listed.state, used.state) == ("ok", "warn")
    assert f"torch {torch.__version__} is built for the CPU only" in used.message


def test_device_files_without_the_tool_that_lists_them_are_warned_of(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    (found,) = check_devices(tmp_path)
    assert (found.state, "no NVIDIA device" in found.message) == ("ok", True)
    (tmp_path / "nvidia0").touch()
    (found,) = check_devices(tmp_path)
    assert (found.state, "no nvidia-smi" in found.message) == ("warn", True)


def test_without_the_worker_extra_a_machine_can_submit_and_nothing_else_is_looked_at(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Given a package of the extra that is not installed, when it looks, then that is told and is no fault."""
    monkeypatch.setenv("OVERPAINT_LEDGER", tmp_path.as_uri())
    monkeypatch.setattr(checks, "EXTRA", ("torch", "no_such_package"))
    (found,) = checks.check_worker()
    assert (found.state, found.message.startswith("no_such_package not installed")) == ("ok", True)
    assert [*checks.check_devices(), *checks.check_models()] == []


def test_settings_by_which_no_worker_would_start_fail_where_one_is_meant_to(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Given a producer's settings, when it looks, then all is well; given an allowlist besides, then one fault each."""
    monkeypatch.setenv("OVERPAINT_LEDGER", f"{tmp_path.as_uri()}/ledger/")
    (found,) = checks.check_worker()
    assert (found.state, "neither worker nor keeper would start" in found.message) == ("ok", True)
    monkeypatch.setenv("OVERPAINT_READ", f"{tmp_path.as_uri()}/in/")
    monkeypatch.setenv("OVERPAINT_SLOTS", "many")
    assert [(each.state, each.message.partition(":")[0]) for each in checks.check_worker()] == [
        ("fail", "OVERPAINT_WRITE"),
        ("fail", "OVERPAINT_SLOTS"),
    ]
