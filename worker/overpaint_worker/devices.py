"""Finding the devices without importing torch, which would bind the supervisor to them."""

from __future__ import annotations

import os
import shutil
import subprocess

from overpaint_common.errors import SettingsError


def find_devices(wanted: str) -> list[str]:
    """The devices to start a child for: "cpu", or CUDA indices or UUIDs as text.

    `wanted` is "auto" (all CUDA devices that CUDA_VISIBLE_DEVICES leaves, else the CPU), "cpu", or a list separated by
    commas. Raises SettingsError for an empty or repeated entry.
    """
    if wanted == "auto":
        return _cuda_devices() or ["cpu"]
    devices = [device.strip() for device in wanted.split(",")]
    if not all(devices) or len(set(devices)) != len(devices):
        raise SettingsError(f"devices {wanted!r}: name each device once, as in --devices 0,1, or cpu, or auto")
    return devices


def child_environment(device: str) -> dict[str, str]:
    """What a child must find in its environment before it imports torch."""
    return {"CUDA_VISIBLE_DEVICES": "" if device == "cpu" else device, "OVERPAINT_DEVICE": device}


def _cuda_devices() -> list[str]:
    visible = os.environ.get("CUDA_VISIBLE_DEVICES")
    if visible is not None:
        return [device.strip() for device in visible.split(",") if device.strip()]
    tool = shutil.which("nvidia-smi")
    if tool is None:
        return []
    listing = subprocess.run(
        [tool, "--query-gpu=index", "--format=csv,noheader"], capture_output=True, text=True, timeout=30, check=False
    )
    return listing.stdout.split() if listing.returncode == 0 else []
