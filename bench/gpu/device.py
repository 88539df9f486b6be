"""What the device takes while something runs on it, and how to leave it less memory."""

from __future__ import annotations

import gc
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from functools import wraps
from typing import Any
from unittest.mock import patch

import diffusers
import torch

SAMPLED = 0.1
"""Seconds between two looks at how busy the device is."""


@dataclass
class Gauge:
    """What was seen of a block; None where the device does not tell."""

    peak: int | None = None
    """Bytes that torch had allocated at most, beyond what it had before."""
    used: float | None = None
    """Share of the time in which a kernel ran, as the driver tells it."""


@contextmanager
def gauged(device: str) -> Iterator[Gauge]:
    """Measures the block."""
    gauge = Gauge()
    if not device.startswith("cuda"):
        yield gauge
        return
    torch.cuda.synchronize()
    torch.cuda.reset_peak_memory_stats()
    before = torch.cuda.memory_allocated()
    seen: list[float] = []
    ended = threading.Event()
    watch = threading.Thread(target=_watch, args=(seen, ended), name="gauge", daemon=True)
    watch.start()
    try:
        yield gauge
        torch.cuda.synchronize()
    finally:
        ended.set()
        watch.join()
    gauge.peak = int(torch.cuda.max_memory_allocated() - before)
    gauge.used = sum(seen) / len(seen) if seen else None


def _watch(seen: list[float], ended: threading.Event) -> None:
    while not ended.wait(SAMPLED):
        try:
            seen.append(torch.cuda.utilization() / 100)
        except Exception:
            # Without the driver's library for Python nothing is known.
            return


def released(device: str) -> int:
    """Give back what nobody refers to any more; bytes that torch keeps."""
    gc.collect()
    if not device.startswith("cuda"):
        return 0
    torch.cuda.synchronize()
    torch.cuda.empty_cache()
    return int(torch.cuda.memory_reserved())


@contextmanager
def limited(device: str, more: int, rows: int) -> Iterator[None]:
    """Within the block computing may take `more` bytes beyond what is held.

    A CPU has no such limit: there, forwards of a UNet on more than `rows` rows run out of memory.
    """
    if device.startswith("cuda"):
        held = released(device)
        total = torch.cuda.get_device_properties(0).total_memory
        torch.cuda.set_per_process_memory_fraction(min(1.0, (held + more) / total))
        try:
            yield
        finally:
            torch.cuda.set_per_process_memory_fraction(1.0)
            released(device)
        return

    forward = diffusers.UNet2DConditionModel.forward

    @wraps(forward)
    def refusing(network: Any, *given: Any, **named: Any) -> Any:
        count = len(given[0] if given else named["sample"])
        if count > rows:
            raise torch.OutOfMemoryError(f"{count} rows are more than {rows}")
        return forward(network, *given, **named)

    with patch.object(diffusers.UNet2DConditionModel, "forward", refusing):
        yield


@contextmanager
def crowded(device: str, free: int) -> Iterator[None]:
    """Within the block only so many bytes of a GPU are free, though nothing forbids to take more."""
    if not device.startswith("cuda"):
        yield
        return
    released(device)
    left, _ = torch.cuda.mem_get_info()
    ballast = torch.empty(max(0, left - free), dtype=torch.uint8, device=device)
    try:
        yield
    finally:
        del ballast
        released(device)


@contextmanager
def full_precision() -> Iterator[None]:
    """Within the block float32 is float32, and not TF32."""
    before = torch.backends.cudnn.allow_tf32, torch.get_float32_matmul_precision()
    torch.backends.cudnn.allow_tf32 = False
    torch.set_float32_matmul_precision("highest")
    try:
        yield
    finally:
        torch.backends.cudnn.allow_tf32 = before[0]
        torch.set_float32_matmul_precision(before[1])


def described(device: str) -> Mapping[str, Any]:
    """What it is, for the record."""
    told: dict[str, Any] = {"device": device, "torch": torch.__version__, "diffusers": diffusers.__version__}
    if device.startswith("cuda"):
        properties = torch.cuda.get_device_properties(0)
        told |= {"name": properties.name, "memory": properties.total_memory, "cuda": torch.version.cuda}
    return told
