"""Which CUDA devices there are, and whether the installed torch can use them."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from overpaint_common.findings import Finding, amount, fail, ok, warn
from overpaint_worker.devices import LISTING_LIMIT

PROBE_LIMIT = 120.0
"""Seconds for importing torch from a cold disk and waking the driver."""

BUSY = 0.5
"""Free share of a device's memory below which somebody else computes there: a worker counts on 60 % for weights."""

_FIELDS = "index,name,memory.total,memory.free,driver_version"

_PROBE = """
import json, sys, warnings
with warnings.catch_warnings(record=True) as told:
    warnings.simplefilter("always")
    import torch
    count = torch.cuda.device_count() if torch.cuda.is_available() else 0
    found = {
        "torch": torch.__version__,
        "cuda": torch.version.cuda,
        "built_for": torch.cuda.get_arch_list() if count else [],
        "devices": ["sm_%d%d" % torch.cuda.get_device_capability(i) for i in range(count)],
        "said": [str(warning.message).split("\\n")[0] for warning in told][:1],
    }
print(json.dumps(found))
"""


@dataclass(frozen=True, slots=True)
class Device:
    """One line of nvidia-smi; memory in bytes."""

    index: str
    name: str
    total: int
    free: int
    driver: str


def check_devices(folder: Path = Path("/dev")) -> Iterator[Finding]:
    """What nvidia-smi lists, then what torch makes of it. `folder` is where the driver puts its device files."""
    check, tool = "devices", shutil.which("nvidia-smi")
    if tool is None:
        if next(folder.glob("nvidia[0-9]*"), None) is None:
            cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
            yield ok(check, f"no NVIDIA device; a worker here paints on the CPU, {cores} cores: slow with large models")
            return
        remedy = (
            "install nvidia-smi with the driver (in containers: NVIDIA_DRIVER_CAPABILITIES=compute,utility), or name "
            "the devices yourself: overpaint worker --devices 0"
        )
        yield warn(check, "there are NVIDIA devices, but no nvidia-smi, so a worker would paint on the CPU", remedy)
        return
    try:
        command = [tool, f"--query-gpu={_FIELDS}", "--format=csv,noheader,nounits"]
        listing = subprocess.run(command, capture_output=True, text=True, timeout=LISTING_LIMIT, check=False)
    except subprocess.TimeoutExpired:
        yield fail(check, f"nvidia-smi does not answer within {LISTING_LIMIT:g} s", "restart the machine")
        return
    if listing.returncode != 0:
        said = (listing.stdout + listing.stderr).strip().partition("\n")[0]
        yield fail(check, f"nvidia-smi fails: {said}", "repair the driver; after an update it wants a restart")
        return
    devices = [device for line in listing.stdout.splitlines() if (device := _device(line)) is not None]
    yield from judged(devices, _probe())


def judged(devices: Sequence[Device], probe: dict[str, Any] | str) -> Iterator[Finding]:
    """The findings for what nvidia-smi lists and what torch says of itself, or why it says nothing."""
    check = "devices"
    for device in devices:
        memory = f"{amount(device.free)} of {amount(device.total)} free"
        message = f"{device.index}: {device.name}, {memory}, driver {device.driver}"
        if device.free < BUSY * device.total:
            yield warn(check, message, "see who uses it (nvidia-smi): running workers, or give it to this one alone")
        else:
            yield ok(check, message)
    if isinstance(probe, str):
        yield fail(check, f"torch cannot be asked: {probe}", "install it anew: pip install --force-reinstall torch")
        return
    built = f"torch {probe['torch']}"
    if probe["cuda"] is None:
        remedy = "install a build of torch for CUDA, or start workers with --devices cpu"
        yield warn(check, f"{built} is built for the CPU only and cannot use them", remedy)
    elif not probe["devices"]:
        hidden = os.environ.get("CUDA_VISIBLE_DEVICES")
        why = next(iter(probe["said"]), "it does not say why")
        if hidden is not None:
            yield warn(check, f"CUDA_VISIBLE_DEVICES={hidden!r} hides all from torch", "unset it, or list the devices")
            return
        remedy = f"bring the driver up to CUDA {probe['cuda']}, or install a torch for an older one"
        yield fail(check, f"{built} for CUDA {probe['cuda']} finds none: {why}", remedy)
    elif strangers := sorted({each for each in probe["devices"] if not _runs_on(each, probe["built_for"])}):
        remedy = "install another release of torch, or leave these devices out with --devices"
        yield fail(check, f"{built} is not built for {', '.join(strangers)}", remedy)
    else:
        yield ok(check, f"{built} for CUDA {probe['cuda']} uses {len(probe['devices'])} of {len(devices)}")


def _runs_on(capability: str, built_for: Sequence[str]) -> bool:
    """Binaries run on their own major version from their minor one on; intermediate code on all that is newer."""
    own = int(capability.removeprefix("sm_"))
    for built in built_for:
        kind, _, digits = built.rpartition("_")
        number = int("".join(filter(str.isdigit, digits)) or 0)
        if number <= own and (kind == "compute" or number // 10 == own // 10):
            return True
    return not built_for


def _probe() -> dict[str, Any] | str:
    """What torch says in a process of its own, so that this one holds no device; or why it says nothing."""
    try:
        asked = subprocess.run(
            [sys.executable, "-c", _PROBE], capture_output=True, text=True, timeout=PROBE_LIMIT, check=False
        )
    except subprocess.TimeoutExpired:
        return f"no answer within {PROBE_LIMIT:g} s"
    if asked.returncode != 0:
        return (asked.stderr.strip().splitlines() or [f"exit status {asked.returncode}"])[-1]
    found: dict[str, Any] = json.loads(asked.stdout.splitlines()[-1])
    return found


def _device(line: str) -> Device | None:
    parts = [part.strip() for part in line.split(",")]
    if len(parts) != 5:
        return None
    index, name, total, free, driver = parts
    # Devices that share the host's memory tell none of their own.
    sizes = [int(size) * 2**20 if size.isdigit() else 0 for size in (total, free)]
    return Device(index, name, sizes[0], sizes[1], driver)
