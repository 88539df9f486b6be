"""One child process per device: started, watched, replaced, and ended together."""

from __future__ import annotations

import logging
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Sequence
from typing import Protocol

from overpaint_worker import exits
from overpaint_worker.devices import child_environment

log = logging.getLogger(__name__)

FIRST_BACKOFF = 1.0
LAST_BACKOFF = 30.0
STEADY = 60.0
"""Seconds a child must live for its next crash to be met with the first back-off again."""

CHILD = (sys.executable, "-m", "overpaint_worker.child")


class Companion(Protocol):
    """What runs beside the children in a thread of its own."""

    def start(self) -> None: ...

    def stop(self) -> None: ...


class Supervisor:
    """Keeps a child alive on each device until stopped, and a keeper beside them.

    A child that ends is replaced after a pause that doubles from crash to crash. A device is given up when its child
    ends with exits.CONFIG and none before it ended otherwise: what once worked may work again.
    """

    def __init__(
        self,
        devices: Sequence[str],
        *,
        grace: float,
        command: Sequence[str] = CHILD,
        keeper: Companion | None = None,
    ) -> None:
        self._devices = devices
        self._keeper = keeper
        self._grace = grace
        self._command = command
        self._stopping = threading.Event()
        self._given_up: set[str] = set()

    def run(self) -> int:
        """Serve until SIGTERM or SIGINT; returns 0, or exits.CONFIG when every device was given up."""
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, lambda *_: self.stop())
        watchers = [
            threading.Thread(target=self._watch, args=(device,), name=f"device-{device}") for device in self._devices
        ]
        if self._keeper is not None:
            self._keeper.start()
        for watcher in watchers:
            watcher.start()
        told = False
        while any(watcher.is_alive() for watcher in watchers):
            time.sleep(0.1)  # A bare join would keep Python from running the signal handlers.
            if self._stopping.is_set() and not told:
                # Not from the signal handler: it may have interrupted a thread that logs.
                log.info("stopping: jobs that have begun may take up to %.0f s, the others go back", self._grace)
                told = True
        if self._keeper is not None:
            self._keeper.stop()
        log.info("stopped")
        return exits.CONFIG if self._given_up.issuperset(self._devices) else 0

    def stop(self) -> None:
        """Let every child finish what it has begun, and end."""
        self._stopping.set()

    def _watch(self, device: str) -> None:
        backoff, worked = FIRST_BACKOFF, False
        while not self._stopping.is_set():
            started = time.monotonic()
            try:
                status = self._run_child(device)
            except OSError as error:  # No memory or process to spare, or the environment is being replaced.
                log.error("child not started device=%s: %s; tried again in %.0f s", device, error, backoff)
            else:
                if self._stopping.is_set():
                    log.info("child stopped device=%s status=%s", device, status)
                    return
                if status == exits.CONFIG and not worked:
                    log.error("device given up device=%s; see its child's log above, mend that and start again", device)
                    self._given_up.add(device)
                    return
                worked = worked or status != exits.CONFIG
                if time.monotonic() - started > STEADY:
                    backoff = FIRST_BACKOFF
                log.warning("child ended device=%s status=%s; a new one starts in %.0f s", device, status, backoff)
            self._stopping.wait(backoff)
            backoff = min(backoff * 2, LAST_BACKOFF)

    def _run_child(self, device: str) -> int:
        environment = {**os.environ, **child_environment(device), "OVERPAINT_PARENT_PIPE": "1"}
        # Its own session, so that Ctrl-C reaches the supervisor alone and the children drain.
        child = subprocess.Popen(self._command, env=environment, stdin=subprocess.PIPE, start_new_session=True)
        log.info("child started device=%s pid=%d", device, child.pid)
        with child:
            while True:
                try:
                    return child.wait(0.2)
                except subprocess.TimeoutExpired:
                    if self._stopping.is_set():
                        return self._end(child)

    def _end(self, child: subprocess.Popen[bytes]) -> int:
        child.send_signal(signal.SIGTERM)
        try:
            return child.wait(self._grace)
        except subprocess.TimeoutExpired:
            log.warning(
                "child killed pid=%d after %.0f s of grace; jobs it had not handed back go to another worker as their "
                "leases lapse",
                child.pid,
                self._grace,
            )
            child.kill()
            return child.wait()
