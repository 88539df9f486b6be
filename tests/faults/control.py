"""Arming fail points in workers that run already, by a file that they look at."""

from __future__ import annotations

import os
import threading
import time
from pathlib import Path

from overpaint_common import failpoints

EVERY = 0.03
"""Seconds between two looks."""


class Control:
    """The test's end: writes the file."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._orders = 0
        self.arm("")

    def arm(self, spec: str) -> None:
        """Have all workers, and those to come, arm `spec` in place of what was armed before."""
        self._orders += 1
        draft = self.path.with_suffix(".draft")
        draft.write_text(f"{self._orders}\n{spec}")
        draft.replace(self.path)

    def obeyed(self, pid: int) -> bool:
        """Whether that process has armed the newest spec."""
        answer = _answer(self.path, pid)
        return answer.exists() and answer.read_text() == str(self._orders)


def obey(path: Path) -> None:
    """The worker's end: arm what the file says, now and whenever it changes."""
    done = _look(path, "")

    def watch() -> None:
        nonlocal done
        while True:
            time.sleep(EVERY)
            done = _look(path, done)

    threading.Thread(target=watch, name="control", daemon=True).start()


def _look(path: Path, done: str) -> str:
    order, _, spec = path.read_text().partition("\n")
    if order != done:
        failpoints.arm(spec)
        draft = path.with_suffix(f".{os.getpid()}.draft")
        draft.write_text(order)
        draft.replace(_answer(path, os.getpid()))
    return order


def _answer(path: Path, pid: int) -> Path:
    return path.with_suffix(f".{pid}")
