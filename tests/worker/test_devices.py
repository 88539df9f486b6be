"""Which devices get a child: what CUDA leaves visible, or what the operator names."""

from __future__ import annotations

import time
from pathlib import Path

import pytest

from overpaint_common.errors import SettingsError
from overpaint_worker.devices import find_devices


@pytest.mark.parametrize(
    ("visible", "devices"),
    [
        ("-1", ["cpu"]),
        ("NoDevFiles", ["cpu"]),
        ("", ["cpu"]),
        ("0,2,-1,1", ["0", "2"]),  # The example of CUDA's programming guide.
        ("1, 0", ["1", "0"]),
        ("0,,1", ["0"]),
        ("GPU-8932f937,GPU-1a", ["GPU-8932f937", "GPU-1a"]),
        ("MIG-GPU-8932f937-d72c-4106-c12f-20bd9faed9f6/1/2", ["MIG-GPU-8932f937-d72c-4106-c12f-20bd9faed9f6/1/2"]),
    ],
)
def test_cuda_takes_the_entries_before_the_first_invalid_one(
    monkeypatch: pytest.MonkeyPatch, visible: str, devices: list[str]
) -> None:
    """Given CUDA_VISIBLE_DEVICES, when devices are found, then those that CUDA would show, or the CPU."""
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", visible)
    assert find_devices("auto") == devices


@pytest.mark.parametrize("wanted", ["-1", "0,gpu", "cuda:0", "0,0", "auto,0"])
def test_a_name_that_is_no_device_is_refused(wanted: str) -> None:
    """Given --devices with an entry that no child could use, when devices are found, then the error says how."""
    with pytest.raises(SettingsError, match="name each device once, as in --devices 0,1"):
        find_devices(wanted)


def test_a_driver_that_hangs_is_named_with_its_remedy(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Given an nvidia-smi that never answers, when devices are found, then the error names --devices, and soon."""
    tool = tmp_path / "nvidia-smi"
    tool.write_text("#!/bin/sh\nexec /bin/sleep 60\n")
    tool.chmod(0o755)
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setattr("overpaint_worker.devices.LISTING_LIMIT", 0.2)
    started = time.monotonic()
    with pytest.raises(SettingsError, match="--devices cpu"):
        find_devices("auto")
    assert time.monotonic() - started < 10
