"""Finding the devices without importing torch, which would bind the supervisor to them."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from itertools import takewhile

from overpaint_common.errors import SettingsError

LISTING_LIMIT = 30.0
"""Seconds that nvidia-smi may take to list the devices."""

_CUDA_DEVICE = re.compile(r"[0-9]+|(GPU|MIG)-.+")
"""An index, or a UUID, which may be shortened."""


def find_devices(wanted: str) -> list[str]:
    """The devices to start a child for: "cpu", or CUDA indices or UUIDs as text.

    `wanted` is "auto" (all CUDA devices that CUDA_VISIBLE_DEVICES leaves, else the CPU), "cpu", or a list separated by
    commas. Raises SettingsError for an entry that is empty, repeated or no device, and where nvidia-smi hangs.
    """
    if wanted == "auto":
        return _cuda_devices() or ["cpu"]
    devices = [device.strip() for device in wanted.split(",")]
    if len(set(devices)) != len(devices) or not all(_is_cuda(device) or device == "cpu" for device in devices):
        raise SettingsError(f"devices {wanted!r}: name each device once, as in --devices 0,1, or cpu, or auto")
    return devices


def child_environment(device: str) -> dict[str, str]:
    """What a child must find in its environment before it imports torch."""
    if device == "cpu":
        return {"CUDA_VISIBLE_DEVICES": "", "OVERPAINT_DEVICE": device}
    # Without a workspace of fixed size cuBLAS may add up in another order each time:
    # https://docs.nvidia.com/cuda/cublas/#results-reproducibility
    workspace = os.environ.get("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
    return {"CUDA_VISIBLE_DEVICES": device, "OVERPAINT_DEVICE": device, "CUBLAS_WORKSPACE_CONFIG": workspace}


def _cuda_devices() -> list[str]:
    visible = os.environ.get("CUDA_VISIBLE_DEVICES")
    if visible is not None:
        # CUDA takes the entries before the first invalid one, so that "-1" and "NoDevFiles" mean none:
        # https://docs.nvidia.com/cuda/cuda-programming-guide/05-appendices/environment-variables.html
        return list(takewhile(_is_cuda, (device.strip() for device in visible.split(","))))
    tool = shutil.which("nvidia-smi")
    if tool is None:
        return []
    command = [tool, "--query-gpu=index", "--format=csv,noheader"]
    try:
        listing = subprocess.run(command, capture_output=True, text=True, timeout=LISTING_LIMIT, check=False)
    except subprocess.TimeoutExpired:
        raise SettingsError(
            f"nvidia-smi lists no devices within {LISTING_LIMIT:g} s, so its driver may hang; "
            "name the devices yourself, as in --devices 0,1, or --devices cpu"
        ) from None
    return listing.stdout.split() if listing.returncode == 0 else []


def _is_cuda(device: str) -> bool:
    return _CUDA_DEVICE.fullmatch(device) is not None
