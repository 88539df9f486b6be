"""A terminal of a given width, for what a command line prints to one."""

from __future__ import annotations

import fcntl
import os
import pty
import re
import select
import struct
import subprocess
import sys
import termios
import time
from collections.abc import Callable
from dataclasses import dataclass
from threading import Thread
from typing import Self
from unittest.mock import patch

ESCAPES = re.compile(r"\x1b\[[0-9;?]*[A-Za-z]")


@dataclass(frozen=True)
class Printed:
    """What a terminal was sent by stdout and stderr together."""

    code: int
    raw: str

    @property
    def lines(self) -> list[str]:
        """As one sees them, without colours; what a progress bar overwrote counts too."""
        return [line.rstrip() for line in re.split(r"[\r\n]+", ESCAPES.sub("", self.raw))]


def print_to_terminal(program: Callable[[], object], *, columns: int = 80) -> Printed:
    """Call `program` in this process with a terminal for its stdout and stderr."""
    here, there = pty.openpty()
    fcntl.ioctl(there, termios.TIOCSWINSZ, struct.pack("HHHH", 24, columns, 0, 0))
    received: list[bytes] = []
    reader = Thread(target=_read, args=(here, received), daemon=True)
    reader.start()
    code = 0
    with (
        os.fdopen(there, "w") as terminal,
        patch.object(sys, "stdout", terminal),
        patch.object(sys, "stderr", terminal),
    ):
        try:
            program()
        except SystemExit as ended:
            code = ended.code if isinstance(ended.code, int) else 1
        terminal.flush()
    reader.join()
    os.close(here)
    return Printed(code, b"".join(received).decode())


def _read(terminal: int, received: list[bytes]) -> None:
    while True:
        try:
            piece = os.read(terminal, 65536)
        except OSError:  # How Linux tells that the other side was closed.
            return
        if not piece:
            return
        received.append(piece)


class Terminal:
    """A program at a terminal of its own, to be typed to; it is killed at the end of the block."""

    def __init__(self, command: list[str], environment: dict[str, str]) -> None:
        here, there = pty.openpty()
        self._terminal = here
        self._unread = b""
        self._process = subprocess.Popen(
            command, stdin=there, stdout=there, stderr=there, env=environment, start_new_session=True
        )
        os.close(there)

    def type(self, text: str) -> None:
        os.write(self._terminal, text.encode())

    def read_until(self, end: str, *, seconds: float = 30) -> None:
        """Read on as far as `end`; fails where it does not come in time."""
        deadline, wanted = time.monotonic() + seconds, end.encode()
        while wanted not in self._unread:
            ready, _, _ = select.select([self._terminal], [], [], max(0.0, deadline - time.monotonic()))
            assert ready, f"no {end!r} in {self._unread!r}"
            self._unread += os.read(self._terminal, 65536)
        self._unread = self._unread.partition(wanted)[2]

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._process.kill()
        self._process.wait()
        os.close(self._terminal)
