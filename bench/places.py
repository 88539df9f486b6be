"""Where a bench runs its jobs: Redis, a worker and a store on this machine, with one source picture in the store."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from unittest.mock import patch

from PIL import Image

from overpaint_common.errors import ObjectNotFound
from overpaint_common.job import Job
from overpaint_common.references import Reference
from overpaint_producer import JobHandle, Producer
from overpaint_producer.local.stack import WORKER, LocalStack
from tests.support.s3 import moto_server

ONE_THREAD = {"OVERPAINT_CPU_THREADS": "1"}


@dataclass(frozen=True)
class Place:
    """A running worker with its store, and a producer for it."""

    stack: LocalStack
    producer: Producer
    source: str
    output: str

    def submit(self, *, prompt: str, steps: int, strength: float = 1) -> JobHandle:
        return self.producer.img2img(
            self.source, prompt=prompt, output=self.output, steps=steps, strength=strength, guidance_scale=4, seed=1
        )

    def ended(self, job: Job) -> bool:
        """Whether everything is done for the job, cleaning up included: its open marker is gone."""
        try:
            self.producer.store.head(self.producer.ledger.keys.marker(job.priority, job.model, job.id))
        except ObjectNotFound:
            return True
        return False

    def all_ended(self) -> bool:
        """The same of all jobs."""
        return next(self.producer.store.list(self.producer.ledger.keys.root.join("open").as_prefix()), None) is None


def noise(side: int) -> Image.Image:
    """A square picture that no codec makes small."""
    return Image.effect_noise((side, side), 60).convert("RGB")


@contextmanager
def local_place(
    folder: Path, picture: Image.Image, *, command: Sequence[str] = WORKER, settings: Mapping[str, str] | None = None
) -> Iterator[Place]:
    """With a folder as the store; `settings` are more variables for the worker."""
    with LocalStack(folder, command=command, environment={**os.environ, **ONE_THREAD, **(settings or {})}) as stack:
        path = stack.inputs / "scene.png"
        picture.save(path)
        with Producer(stack.settings) as producer:
            yield Place(stack, producer, str(Reference.from_path(path)), str(Reference.from_path(stack.outputs)))


@contextmanager
def s3_place(folder: Path, picture: Image.Image, *, command: Sequence[str] = WORKER) -> Iterator[Place]:
    """With the S3 protocol to moto, an S3 server written in Python, in a thread of this process."""
    with (
        moto_server() as server,
        patch.dict(os.environ, server.environment),
        server.bucket() as bucket,
        _S3Stack(folder, bucket, server.endpoint_url, command) as stack,
        Producer(stack.settings) as producer,
    ):
        path = folder / "scene.png"
        picture.save(path)
        source = bucket.join("in", "scene.png")
        server.client.upload_file(str(path), source.bucket, source.key)
        yield Place(stack, producer, str(source), stack.variables["OVERPAINT_WRITE"])


class _S3Stack(LocalStack):
    def __init__(self, folder: Path, bucket: Reference, endpoint_url: str, command: Sequence[str]) -> None:
        super().__init__(folder, command=command, environment={**os.environ, **ONE_THREAD})
        self._bucket = bucket
        self._endpoint_url = endpoint_url

    @property
    def variables(self) -> dict[str, str]:
        return {
            "OVERPAINT_REDIS_URL": self.redis.url,
            "OVERPAINT_LEDGER": str(self._bucket.join("ledger").as_prefix()),
            "OVERPAINT_READ": str(self._bucket.join("in").as_prefix()),
            "OVERPAINT_WRITE": str(self._bucket.join("out").as_prefix()),
            "OVERPAINT_S3_ENDPOINT_URL": self._endpoint_url,
            "OVERPAINT_S3_ADDRESSING_STYLE": "path",
        }
