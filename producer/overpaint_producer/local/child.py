"""A child process that never outlives its parent."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
from collections.abc import Mapping, Sequence
from pathlib import Path

# Runs in the child before the real program: asks Linux for SIGTERM at the parent's death, and goes on as the program
# under the same process id. The parent may have died before the question was asked, hence the second look.
_BIND = """
import ctypes, os, signal, sys
if sys.platform == "linux":
    ctypes.CDLL(None, use_errno=True).prctl(1, signal.SIGTERM, 0, 0, 0)
    if os.getppid() != int(sys.argv[1]):
        sys.exit("the parent is gone")
os.execv(sys.argv[2], sys.argv[2:])
"""


class Child:
    """One running program, in its own session so that Ctrl-C reaches only the parent, which then stops it in order.

    On Linux it gets SIGTERM when this process dies in any way, `kill -9` included. Both outputs go to the file `log`,
    appended. Raises OSError if the program cannot be started.
    """

    def __init__(self, command: Sequence[str | Path], *, log: Path, env: Mapping[str, str] | None = None) -> None:
        self.log = log
        self._command = [sys.executable, "-I", "-S", "-c", _BIND, str(os.getpid()), *map(str, command)]
        self._env = None if env is None else dict(env)
        self._process: subprocess.Popen[bytes] | None = None
        self._error: OSError | None = None
        self._started = threading.Event()
        # Linux means the death of the thread that forked, so that thread has to live as long as the child does.
        self._guard = threading.Thread(target=self._run, name=f"child-{log.stem}", daemon=True)
        self._guard.start()
        self._started.wait()
        if self._error is not None:
            raise self._error

    @property
    def pid(self) -> int:
        return self._running.pid

    @property
    def exit_code(self) -> int | None:
        """None while it runs; negative for the signal that ended it."""
        return self._running.poll()

    def wait(self, timeout: float | None = None) -> int | None:
        """The exit code as soon as there is one, or None after `timeout` seconds."""
        try:
            return self._running.wait(timeout)
        except subprocess.TimeoutExpired:
            return None

    def stop(self, grace: float) -> int:
        """End it with SIGTERM, after `grace` seconds with SIGKILL, and return its exit code."""
        if self.exit_code is None:
            self._running.terminate()
            if self.wait(grace) is None:
                self._running.kill()
        return self._running.wait()

    def kill(self) -> None:
        """End it at once, as a crash would."""
        self._running.send_signal(signal.SIGKILL)
        self._running.wait()

    def tail(self, lines: int = 12) -> str:
        """The end of its log."""
        return tail(self.log, lines)

    @property
    def _running(self) -> subprocess.Popen[bytes]:
        assert self._process is not None
        return self._process

    def _run(self) -> None:
        try:
            with self.log.open("ab") as log:
                self._process = subprocess.Popen(
                    self._command,
                    stdin=subprocess.DEVNULL,
                    stdout=log,
                    stderr=subprocess.STDOUT,
                    env=self._env,
                    start_new_session=True,
                )
        except OSError as error:
            self._error = error
            return
        finally:
            self._started.set()
        self._process.wait()


def tail(path: Path, lines: int = 12) -> str:
    """The last lines of a text file; empty where there is none."""
    try:
        with path.open("rb") as file:
            file.seek(max(0, path.stat().st_size - 16_384))
            text = file.read().decode(errors="replace")
    except FileNotFoundError:
        return ""
    return "\n".join(text.splitlines()[-lines:])
