"""The same producer twice: all in memory, and with a real Redis and a folder. A test decides how jobs end."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from pathlib import Path

from PIL import Image

from overpaint_common.errors import OverpaintError
from overpaint_common.ledger import Ledger
from overpaint_common.live import connect
from overpaint_common.references import Reference
from overpaint_common.result import Result
from overpaint_common.settings import Settings
from overpaint_common.storage import LocalStore
from overpaint_producer import Producer
from overpaint_producer.local.redis import EmbeddedRedis
from overpaint_producer.testing import InMemoryProducer, StandIn, general_model
from tests.support.stack import encoded, picture

MODEL = "general"
RECEIVER = "hooks.example.com"


@dataclass(frozen=True)
class Backend:
    """What a test needs of either."""

    producer: Producer
    root: Reference
    worker: StandIn
    outage: Callable[[], AbstractContextManager[object]]
    """Redis is down until the block ends."""

    @property
    def output(self) -> str:
        return str(self.root.join("out").as_prefix())

    def source(self, name: str = "scene.png") -> str:
        reference = self.root.join("in", name)
        self.producer.store.put(reference, encoded(picture()), content_type="image/png")
        return str(reference)

    def finish(self, job_id: str, pictures: Sequence[Image.Image] | None = None) -> Result:
        return self.worker.succeed(job_id, pictures, None)

    def fail(self, job_id: str, error: OverpaintError) -> Result:
        return self.worker.fail(job_id, error)


@contextmanager
def in_memory() -> Iterator[Backend]:
    with InMemoryProducer(models=[MODEL], webhooks=[RECEIVER]) as producer:
        yield Backend(producer, Reference.parse("s3://photos/"), producer.worker, producer.outage)


@contextmanager
def for_real(redis: EmbeddedRedis, folder: Path) -> Iterator[Backend]:
    """On a Redis that belongs to this test alone while it runs; everything in it goes."""
    root = Reference.from_path(folder)
    settings = Settings.load(redis_url=redis.url, ledger=str(root.join("ledger").as_prefix()))
    places = [str(root.join(name).as_prefix()) for name in ("in", "out")]
    card = general_model(MODEL, read=places, write=places, webhooks=[RECEIVER])
    client = connect(redis.url)
    client.flushall()
    store = LocalStore()
    ledger = Ledger(store, settings.ledger_root)
    worker = StandIn("stand-in", [card.model_copy(update={"ledger": settings.ledger})], ledger, store, client)
    worker.announce()

    @contextmanager
    def outage() -> Iterator[None]:
        redis.stop()
        try:
            yield
        finally:
            redis.start()
            worker.announce()

    try:
        with Producer(settings, store=store) as producer:
            yield Backend(producer, root, worker, outage)
    finally:
        client.close()
