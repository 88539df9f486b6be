"""A supervisor with its worker process, which can be made to fail by signals."""

from __future__ import annotations

import signal
import subprocess
from contextlib import suppress

import psutil

from tests.support.stack import Worker


class Crew(Worker):
    """A supervisor and its child, which can be made to fail by signals."""

    @property
    def child(self) -> psutil.Process | None:
        """The worker process, if one lives at this moment."""
        with suppress(psutil.NoSuchProcess):
            for child in psutil.Process(self.process.pid).children():
                if child.status() != psutil.STATUS_ZOMBIE:
                    return child
        return None

    def signal_child(self, number: int) -> int | None:
        """Send a signal to the worker process; its id, or None where none lives."""
        child = self.child
        with suppress(psutil.NoSuchProcess):
            if child is not None:
                child.send_signal(number)
                return int(child.pid)
        return None

    def end(self, limit: float = 40.0) -> None:
        """Stop both, by force where they do not within `limit` seconds."""
        child = self.child
        if child is not None:
            with suppress(psutil.NoSuchProcess):
                child.send_signal(signal.SIGCONT)
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGCONT)
            self.process.terminate()
        try:
            self.process.wait(limit)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
        with suppress(psutil.NoSuchProcess, psutil.TimeoutExpired):
            if child is not None:
                child.wait(5)
        with suppress(psutil.NoSuchProcess):
            if child is not None:
                child.kill()
