"""A whole Overpaint for tests: real Redis, an S3 server behind a proxy that can fail, real worker processes."""

from __future__ import annotations

import io
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from PIL import Image

from overpaint_common.live import Live, connect
from overpaint_common.references import Reference
from overpaint_common.settings import Settings
from overpaint_producer import Img2Img, Job, Output, Producer
from overpaint_producer.local.redis import EmbeddedRedis
from tests.support.faulty_http import FaultyProxy
from tests.support.s3 import S3Server

WORKER = (sys.executable, "-m", "overpaint_worker", "--devices", "cpu")
LIGHT_WORKER = (sys.executable, "-m", "tests.faults.worker")
"""The same on a model of numpy alone, see tests.faults.light: for what is the same with every model."""
START_LIMIT = 90.0


def picture(width: int = 96, height: int = 64, colour: tuple[int, int, int] = (200, 40, 30)) -> Image.Image:
    """A plain scene: a square of `colour` on a lighter ground."""
    scene = Image.new("RGB", (width, height), (225, 220, 200))
    scene.paste(colour, (width // 4, height // 4, width * 3 // 4, height * 3 // 4))
    return scene


def encoded(image: Image.Image, format: str = "PNG", **options: object) -> bytes:
    file = io.BytesIO()
    image.save(file, format, **options)
    return file.getvalue()


def eventually(condition: Callable[[], bool], what: str, seconds: float = 30.0) -> None:
    """Wait until `condition` holds; fails naming `what` otherwise."""
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, f"not within {seconds} s: {what}"
        time.sleep(0.05)


def job(stack: Stack, **changes: object) -> Job:
    """A small job on the embedded model; `changes` are fields of Job."""
    fields = {
        "source": stack.put("scene.png", encoded(picture())),
        "model": "overpaint-mini",
        "passes": (Img2Img(prompt="a blue square", steps=4),),
        "output": Output(prefix=stack.output),
        **changes,
    }
    return Job.model_validate(fields)


@dataclass
class Worker:
    """A running worker: its supervisor process and its log."""

    process: subprocess.Popen[bytes]
    log: Path

    def text(self) -> str:
        return self.log.read_text(errors="replace")

    def stop(self, limit: float = 60.0) -> int:
        """SIGTERM, and the exit status."""
        self.process.send_signal(signal.SIGTERM)
        return self.process.wait(limit)


@dataclass
class Stack:
    """Prefixes `in/`, `out/` and `ledger/` of one bucket, one Redis, and workers as wanted."""

    redis: EmbeddedRedis
    server: S3Server
    proxy: FaultyProxy
    bucket: Reference
    folder: Path
    environment: Mapping[str, str] = field(default_factory=dict)
    """More settings for every worker."""

    def at(self, *names: str) -> Reference:
        return self.bucket.join(*names)

    @property
    def output(self) -> str:
        return str(self.at("out").as_prefix())

    def settings(self, **changes: object) -> Settings:
        return Settings.load(
            **{
                "redis_url": self.redis.url,
                "ledger": str(self.at("ledger")),
                "s3_endpoint_url": self.proxy.url,
                "s3_addressing_style": "path",
                "s3_max_attempts": 2,
                "s3_connect_timeout": 2,
                "s3_read_timeout": 5,
                **changes,
            }
        )

    @contextmanager
    def producer(self, **changes: object) -> Iterator[Producer]:
        with Producer(self.settings(**changes)) as producer:
            yield producer

    def put(self, name: str, data: bytes) -> str:
        """Store a source behind the proxy's back and return its reference."""
        reference = self.at("in", name)
        self.server.client.put_object(Bucket=reference.bucket, Key=reference.key, Body=data)
        return str(reference)

    def keys(self, *under: str) -> list[str]:
        """Keys below a prefix, relative to it, seen behind the proxy's back."""
        prefix = self.at(*under).as_prefix()
        pages = self.server.client.get_paginator("list_objects_v2").paginate(Bucket=prefix.bucket, Prefix=prefix.key)
        return [entry["Key"].removeprefix(prefix.key) for page in pages for entry in page.get("Contents", [])]

    def body(self, uri: str) -> bytes:
        """An object's content, read behind the proxy's back."""
        reference = Reference.parse(uri)
        return self.server.client.get_object(Bucket=reference.bucket, Key=reference.key)["Body"].read()

    def worker_environment(self) -> dict[str, str]:
        return {
            **os.environ,
            **self.server.environment,
            "OVERPAINT_REDIS_URL": self.redis.url,
            "OVERPAINT_LEDGER": str(self.at("ledger")),
            "OVERPAINT_READ": str(self.at("in")),
            "OVERPAINT_WRITE": self.output,
            "OVERPAINT_S3_ENDPOINT_URL": self.proxy.url,
            "OVERPAINT_S3_ADDRESSING_STYLE": "path",
            "OVERPAINT_S3_MAX_ATTEMPTS": "2",
            "OVERPAINT_S3_CONNECT_TIMEOUT": "2",
            "OVERPAINT_S3_READ_TIMEOUT": "5",
            "OVERPAINT_CPU_THREADS": "1",
            **self.environment,
        }

    @contextmanager
    def worker(self, command: Sequence[str] = WORKER, **environment: str) -> Iterator[Worker]:
        """A worker that has announced itself; stopped, or killed if it does not stop, at the end."""
        log = self.folder / f"worker-{time.monotonic_ns()}.log"
        before = self._announced()
        with log.open("wb") as file:
            process = subprocess.Popen(
                command, env=self.worker_environment() | environment, stdout=file, stderr=subprocess.STDOUT
            )
        running = Worker(process, log)
        try:
            eventually(
                lambda: process.poll() is not None or bool(self._announced() - before), "worker ready", START_LIMIT
            )
            assert process.poll() is None, running.text()
            yield running
        finally:
            if process.poll() is None:
                process.terminate()
                try:
                    process.wait(30)
                except subprocess.TimeoutExpired:
                    process.kill()
                    process.wait()

    def _announced(self) -> set[str]:
        live = Live(connect(self.redis.url))
        try:
            return {worker.name for worker in live.workers()}
        finally:
            live.close()


@contextmanager
def stack(server: S3Server, folder: Path, **environment: str) -> Iterator[Stack]:
    """An Overpaint without workers yet."""
    with (
        EmbeddedRedis(folder / "redis", append_only=False) as redis,
        server.bucket() as bucket,
        FaultyProxy(server.endpoint_url) as proxy,
    ):
        yield Stack(redis, server, proxy, bucket, folder, environment)
