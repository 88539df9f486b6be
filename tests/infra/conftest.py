"""Redis as compose.yaml starts it, an S3 server, and the project's programs as its images start them."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest
from redis import Redis
from redis.exceptions import ConnectionError as RedisConnectionError

from overpaint_common.live import Live, connect
from overpaint_producer.local.child import Child
from overpaint_producer.local.redis import find_redis_server, free_port
from tests.infra.containers import Container, compose, example_env, of_compose
from tests.infra.images import DOCKER, PREFIX
from tests.support.s3 import moto_server
from tests.support.stack import eventually

SCRIPTS = Path(sys.executable).parent
"""Where this environment keeps what the images keep in /opt/overpaint/bin."""


def _argv(argv: list[str]) -> list[str]:
    program, *arguments = [word.replace(f"{PREFIX}/libexec", str(DOCKER)) for word in argv]
    return [str(SCRIPTS / program), *arguments]


@dataclass(frozen=True)
class Host:
    """Runs containers' programs as processes: their argv, their environment and no other, with loopback addresses."""

    folder: Path
    addresses: dict[str, str]
    """Settings that lead to Redis and storage here, and into them."""
    live: Live

    def environment(self, container: Container, **changes: str) -> dict[str, str]:
        plain = {"PATH": os.pathsep.join((str(SCRIPTS), "/usr/bin", "/bin")), "TMPDIR": str(self.folder)}
        return {**plain, **container.local(self.folder, **self.addresses), **changes}

    def run(self, container: Container, *argv: str, **changes: str) -> subprocess.CompletedProcess[str]:
        """The program, or another that the container has, until it ends."""
        return subprocess.run(
            _argv(list(argv) or container.argv),
            env=self.environment(container, **changes),
            cwd=self.folder,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )

    @contextmanager
    def running(self, container: Container, *, before: Sequence[str] = (), **changes: str) -> Iterator[Child]:
        """The program in the background, started by the command `before`; stopped at the end where it still runs."""
        log = self.folder / f"{container.name.replace(' ', '-')}.log"
        child = Child([*before, *_argv(container.argv)], log=log, env=self.environment(container, **changes))
        try:
            yield child
        finally:
            child.stop(10)

    def serves(self, container: Container, role: str) -> bool:
        return self.run(container, "overpaint", "ready", role).returncode == 0


@pytest.fixture(scope="module")
def host(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Host]:
    """Given Redis under compose.yaml's command, and an S3 server with the buckets that its one-shot service makes."""
    folder = tmp_path_factory.mktemp("host")
    (folder / "redis").mkdir()
    port, password = free_port(), example_env()["REDIS_PASSWORD"]
    command = compose()["services"]["redis"]["command"]
    assert command[0] == "redis-server"
    here = ["--bind", "127.0.0.1", "--port", str(port), "--dir", str(folder / "redis")]
    redis = Child([find_redis_server(), *command[1:], *here], log=folder / "redis.log")
    try:
        with moto_server() as store, Redis(port=port, password=password) as client:
            eventually(lambda: _answers(client), "Redis answers")
            addresses = {
                "OVERPAINT_REDIS_URL": f"redis://:{password}@127.0.0.1:{port}/0",
                "OVERPAINT_S3_ENDPOINT_URL": store.endpoint_url,
                "OVERPAINT_S3_ADDRESSING_STYLE": "path",
                "AWS_ACCESS_KEY_ID": "testing",
                "AWS_SECRET_ACCESS_KEY": "testing",
            }
            host = Host(folder, addresses, Live(connect(addresses["OVERPAINT_REDIS_URL"])))
            made = host.run(of_compose()["buckets"])
            assert made.returncode == 0, made.stderr
            yield host
            host.live.close()
    finally:
        redis.stop(10)


def _answers(client: Redis) -> bool:
    try:
        return bool(client.ping())
    except RedisConnectionError:
        return False
