"""How much memory computing takes, on the device or in the host."""

from __future__ import annotations

import logging
import re
import time
from collections.abc import Callable
from pathlib import Path

import psutil
import torch

log = logging.getLogger(__name__)

FRESH = 1.0
"""Seconds for which a reading is good enough."""


class Memory:
    """Of the device that a model is on, in bytes."""

    def __init__(self, device: str) -> None:
        """`device` is "cpu", whose memory is the host's, or "cuda"."""
        self._cuda = device.startswith("cuda")
        self._reading: tuple[float, int] | None = None

    @property
    def total(self) -> int:
        if self._cuda:
            return int(torch.cuda.get_device_properties(0).total_memory)
        total = int(psutil.virtual_memory().total)
        return min(total, _container_limit() or total)

    def free(self) -> int:
        """What computing may still take, as of FRESH seconds ago at most."""
        now = time.monotonic()
        if self._reading is None or now - self._reading[0] > FRESH:
            self._reading = now, self._read()
        return self._reading[1]

    def peak(self, compute: Callable[[], object]) -> int | None:
        """What `compute` takes at most beyond what is held before it; None where the host does not tell."""
        if self._cuda:
            torch.cuda.synchronize()
            torch.cuda.reset_peak_memory_stats()
            before = torch.cuda.memory_allocated()
            compute()
            torch.cuda.synchronize()
            return int(torch.cuda.max_memory_allocated() - before)
        try:
            # Resets the highest resident set that Linux remembers of this process (proc_pid_clear_refs(5)).
            Path("/proc/self/clear_refs").write_text("5")
            before = _status("VmRSS")
        except OSError as error:
            log.info("the host does not tell how much memory computing takes: %s", error)
            compute()
            return None
        compute()
        return max(0, _status("VmHWM") - before)

    def _read(self) -> int:
        if self._cuda:
            free, _ = torch.cuda.mem_get_info()
            return int(free + torch.cuda.memory_reserved() - torch.cuda.memory_allocated())
        available = int(psutil.virtual_memory().available)
        limit = _container_limit()
        return available if limit is None else min(available, limit - psutil.Process().memory_info().rss)


def _status(field: str) -> int:
    found = re.search(rf"^{field}:\s+(\d+) kB$", Path("/proc/self/status").read_text(), re.MULTILINE)
    if found is None:
        raise OSError(f"/proc/self/status names no {field}")
    return int(found[1]) * 1024


def _container_limit() -> int | None:
    """What the control group of this process may use; None where it has no limit of its own (cgroup v2)."""
    try:
        text = Path("/sys/fs/cgroup/memory.max").read_text().strip()
    except OSError:
        return None
    return int(text) if text.isdigit() else None
