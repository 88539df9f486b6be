"""A `Producer` in memory, and the same for asyncio."""

from __future__ import annotations

import io
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from typing import Protocol

from fakeredis import FakeRedis, FakeServer
from PIL import Image
from pydantic import SecretStr

from overpaint_common import wire
from overpaint_common.errors import OverpaintError, PipelineFailed
from overpaint_common.fleet import ModelCard
from overpaint_common.job import Job
from overpaint_common.passes import OPERATIONS
from overpaint_common.references import Reference
from overpaint_common.result import Result
from overpaint_common.schedulers import SCHEDULERS
from overpaint_common.settings import Settings
from overpaint_common.storage import MemoryStore, ObjectStore
from overpaint_common.tickets import Tickets
from overpaint_common.webhooks import WebhookEvent, decode_secret, signed_headers
from overpaint_producer.aio import CALLS, AsyncProducer
from overpaint_producer.compose import Place, reference
from overpaint_producer.handle import JobHandle
from overpaint_producer.offload import offloaded
from overpaint_producer.producer import RETRY_FOR, Producer
from overpaint_producer.testing.standin import Paint, StandIn

MODEL = "in-memory"
LEDGER = "s3://in-memory-ledger/"
PLACES = ("s3://photos/", "s3://pictures/", "file:///")
RECEIVERS = ("*",)

WEBHOOK_SECRET = "whsec_aW4tbWVtb3J5LWluLW1lbW9yeS1pbi1tZW1vcnk="
"""For tests alone: anybody can read it here."""


class Identified(Protocol):
    """A handle of either kind."""

    @property
    def id(self) -> str: ...


@dataclass(frozen=True, slots=True)
class WebhookRequest:
    """A POST as a keeper would send it."""

    url: str
    headers: Mapping[str, str]
    body: bytes
    event: WebhookEvent
    """What the body says."""


def general_model(
    name: str = MODEL,
    *,
    read: Sequence[str] = PLACES,
    write: Sequence[str] = PLACES,
    webhooks: Sequence[str] = RECEIVERS,
) -> ModelCard:
    """The card of a model that serves every operation with every scheduler, as a worker would announce it.

    `read`, `write` and `webhooks` are what the operator allows: see OVERPAINT_READ, OVERPAINT_WRITE and
    OVERPAINT_WEBHOOKS.
    """
    return ModelCard(
        name=name,
        operations=OPERATIONS,
        schedulers=SCHEDULERS,
        family="stable-diffusion",
        steps_rule="floor",
        native_size=512,
        default_steps=50,
        default_guidance_scale=7.5,
        max_steps=1000,
        max_size=2048,
        revision=MODEL,
        reads=tuple(read),
        writes=tuple(write),
        ledger=LEDGER,
        webhooks=tuple(webhooks),
    )


class InMemoryProducer(Producer):
    """A `Producer` whose Redis, object storage and fleet live in this process; the test decides how jobs end.

    Everything else is the very code that runs in production, with its errors. Objects of any bucket, and files too, lie
    in memory alone: `put` places sources there. Safe to share between threads.
    """

    def __init__(
        self,
        *,
        models: Iterable[str | ModelCard] = (MODEL,),
        read: Sequence[str] = PLACES,
        write: Sequence[str] = PLACES,
        webhooks: Sequence[str] = RECEIVERS,
        auto: bool = False,
        paint: Paint | None = None,
        store: ObjectStore | None = None,
    ) -> None:
        """Announce `models`: names stand for a `general_model` each, which may use `read`, `write` and `webhooks`.

        With `auto` each job is painted before the call that submits it returns. `paint` is what pictures are made with
        then, and by `finish`: a function of the job and its source; without it they are the source, in the model's
        size. `store` is where objects lie, unless in memory: one that fails when the test wants it to, say.
        """
        self._server = FakeServer()
        redis = FakeRedis(server=self._server, decode_responses=True, protocol=2)
        # Nothing here may depend on the environment or a file of whoever runs the tests.
        settings = Settings.model_construct(redis_url=SecretStr("redis://in-memory"), ledger=LEDGER)
        super().__init__(settings, store=store or MemoryStore(), redis=redis)
        cards = [
            general_model(model, read=read, write=write, webhooks=webhooks) if isinstance(model, str) else model
            for model in models
        ]
        self.webhook_secret = WEBHOOK_SECRET
        """What `take_webhooks` signs with, for `verify_webhook`."""
        self._tickets = Tickets(redis)
        self._auto = auto
        self._paint = paint
        self.worker = StandIn(MODEL, cards, self.ledger, self.store, redis)
        """What plays the one worker of the fleet."""
        self.worker.announce()

    def put(self, place: Place, content: Image.Image | bytes) -> str:
        """Store a picture, as PNG, or the bytes of any file; returns the reference, for `source` and the like."""
        uri = reference(place)
        data = content if isinstance(content, bytes) else _png(content)
        self.store.put(Reference.parse(uri), data, content_type="application/octet-stream")
        return uri

    def report(self, job: Identified | str, step: int, *, phase: str = "denoise", preview: bytes | None = None) -> bool:
        """Tell that a worker has done so many steps of a job; whether it goes on, or somebody has ended it.

        `phase` is one of those of `Progress`; `preview` a picture file for `JobHandle.preview`.
        """
        return self.worker.report(_id(job), step, phase=phase, preview=preview)

    def finish(self, job: Identified | str, pictures: Sequence[Image.Image] | None = None) -> Result:
        """End a job as succeeded, with one picture for each variant; returns the record that counts.

        Without `pictures` they are made as the constructor was told. A job that has ended keeps its own record. Raises
        ObjectNotFound for an unknown job, ValueError for another number of pictures.
        """
        return self.worker.succeed(_id(job), pictures, self._paint)

    def fail(self, job: Identified | str, error: OverpaintError | None = None) -> Result:
        """End a job as failed for a reason, PipelineFailed unless told otherwise; see `finish`."""
        return self.worker.fail(_id(job), error or PipelineFailed("the test said so; submit the job again"))

    def expire(self, job: Identified | str) -> Result:
        """End a job as a passed deadline does; see `finish`."""
        return self.worker.expire(_id(job))

    def work(self) -> list[Result]:
        """End every job that is queued or begun as succeeded, the most urgent first; returns their records."""
        return [self.finish(job_id) for job_id in self.worker.waiting()]

    def take_webhooks(self) -> list[WebhookRequest]:
        """The requests that a keeper would send by now, in the order of their jobs' ends; each is given once."""
        pending = [found for job_id in list(self.ledger.webhooks()) if (found := self.ledger.webhook(job_id))]
        keys = [decode_secret(self.webhook_secret)]
        requests = []
        for each in sorted(pending, key=lambda webhook: webhook.event.finished_at):
            body = each.event.body()
            headers = {"content-type": "application/json"}
            headers |= signed_headers(each.event.id, int(time.time()), body, keys)
            requests.append(WebhookRequest(str(each.webhook), headers, body, each.event))
            self.ledger.drop_webhook(each.event.job_id)
        return requests

    @contextmanager
    def outage(self) -> Iterator[None]:
        """Redis is down until the block ends; then what was accepted meanwhile is queued, as a keeper would do it."""
        self._server.connected = False
        try:
            yield
        finally:
            self._server.connected = True
        self._tickets.send_missing(
            (wire.queue_name(marker.model, marker.priority), marker.job_id)
            for marker in self.ledger.open_jobs()
            if self.ledger.record(marker.job_id) is None
        )
        self._paint_queued()

    def submit(self, job: Job, *, idempotency_key: str | None = None, retry_for: float = RETRY_FOR) -> JobHandle:
        """See `Producer.submit`."""
        handle = super().submit(job, idempotency_key=idempotency_key, retry_for=retry_for)
        self._paint_queued()
        return handle

    def submit_many(
        self,
        jobs: Iterable[Job] | Mapping[str, Job],
        *,
        idempotency_key: str | None = None,
        retry_for: float = RETRY_FOR,
        progress: Callable[[int, int], object] | None = None,
    ) -> list[JobHandle]:
        """See `Producer.submit_many`."""
        handles = super().submit_many(jobs, idempotency_key=idempotency_key, retry_for=retry_for, progress=progress)
        self._paint_queued()
        return handles

    def _paint_queued(self) -> None:
        if self._auto and self._server.connected:
            self.work()


class AsyncInMemoryProducer(AsyncProducer):
    """An `InMemoryProducer` for asyncio."""

    def __init__(self, blocking: InMemoryProducer | None = None, *, threads: int = CALLS) -> None:
        """Use a producer in memory that was made as wanted, or a plain one."""
        self._stand_for(blocking or InMemoryProducer(), threads)

    def _stand_for(self, blocking: Producer, threads: int) -> None:
        if not isinstance(blocking, InMemoryProducer):
            raise TypeError(f"a {type(blocking).__name__} is no InMemoryProducer; make an AsyncProducer of it")
        super()._stand_for(blocking, threads)
        self._in_memory = blocking

    @property
    def webhook_secret(self) -> str:
        """See `InMemoryProducer.webhook_secret`."""
        return self._in_memory.webhook_secret

    def outage(self) -> AbstractContextManager[None]:
        """See `InMemoryProducer.outage`: for `with`, since nothing in it waits."""
        return self._in_memory.outage()

    put = offloaded(InMemoryProducer.put)
    report = offloaded(InMemoryProducer.report)
    finish = offloaded(InMemoryProducer.finish)
    fail = offloaded(InMemoryProducer.fail)
    expire = offloaded(InMemoryProducer.expire)
    work = offloaded(InMemoryProducer.work)
    take_webhooks = offloaded(InMemoryProducer.take_webhooks)


def _id(job: Identified | str) -> str:
    return job if isinstance(job, str) else job.id


def _png(picture: Image.Image) -> bytes:
    file = io.BytesIO()
    picture.save(file, "PNG")
    return file.getvalue()
