"""A service that has pictures repainted: FastAPI in front, Overpaint behind.

    pip install overpaint fastapi uvicorn
    uvicorn fastapi_app:app

Beside Overpaint's settings it reads PICTURES, the place that its pictures go to, and OVERPAINT_WEBHOOK_SECRET.
"""

from __future__ import annotations

import gc
import logging
import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Annotated

from fastapi import Depends, FastAPI, Header, Request, Response
from fastapi.responses import JSONResponse, StreamingResponse
from pydantic import BaseModel

from overpaint_common.errors import (
    BrokerUnavailable,
    ForbiddenReference,
    IdempotencyConflict,
    InvalidJob,
    InvalidSignature,
    ObjectNotFound,
    OverpaintError,
    StorageUnavailable,
)
from overpaint_producer import AsyncJobHandle, AsyncProducer, verify_webhook

log = logging.getLogger(__name__)

STATUS_OF: list[tuple[type[OverpaintError], int]] = [
    (IdempotencyConflict, 409),
    (InvalidJob, 422),
    (ForbiddenReference, 403),
    (InvalidSignature, 403),
    (ObjectNotFound, 404),
    (StorageUnavailable, 503),
    (BrokerUnavailable, 503),
]
"""What a client is answered; the first that fits counts, and everything else is a fault of ours."""


@asynccontextmanager
async def lifespan(app: FastAPI) -> AsyncIterator[None]:
    async with AsyncProducer() as producer:
        app.state.producer = producer
        # What is loaded by now stays: no garbage collection stops the loop to look at it again.
        gc.freeze()
        yield


app = FastAPI(title="Paintings", lifespan=lifespan)


async def get_producer(request: Request) -> AsyncProducer:
    """One for the whole process; tests give another."""
    producer: AsyncProducer = request.app.state.producer
    return producer


async def get_place() -> str:
    return os.environ.get("PICTURES", "s3://pictures/")


async def get_secret() -> str:
    return os.environ["OVERPAINT_WEBHOOK_SECRET"]


async def get_job(job_id: str, producer: Annotated[AsyncProducer, Depends(get_producer)]) -> AsyncJobHandle:
    return await producer.handle(job_id)


Producing = Annotated[AsyncProducer, Depends(get_producer)]
Job = Annotated[AsyncJobHandle, Depends(get_job)]


class Order(BaseModel):
    source: str
    prompt: str
    strength: float = 0.5


class Painting(BaseModel):
    id: str
    state: str
    step: int = 0
    steps: int = 0
    pictures: list[str] = []
    """URLs, good for an hour."""


@app.exception_handler(OverpaintError)
async def explain(_: Request, error: OverpaintError) -> JSONResponse:
    status = next((status for kind, status in STATUS_OF if isinstance(error, kind)), 500)
    if status == 500:
        log.error("%s: %s", error.code, error)
        return JSONResponse({"code": error.code}, 500)
    headers = {"Retry-After": "5"} if error.retryable else {}
    return JSONResponse({"code": error.code, "detail": str(error)}, status, headers)


@app.post("/paintings", status_code=202)
async def order(
    order: Order,
    producer: Producing,
    place: Annotated[str, Depends(get_place)],
    response: Response,
    idempotency_key: Annotated[str | None, Header()] = None,
) -> Painting:
    """Durable once answered: a client that got no answer sends the same again, with the same key."""
    job = await producer.img2img(
        order.source, prompt=order.prompt, strength=order.strength, output=place, idempotency_key=idempotency_key
    )
    response.headers["Location"] = f"/paintings/{job.id}"
    return await show(job)


@app.get("/paintings/{job_id}")
async def show(job: Job) -> Painting:
    moment = await job.status()
    pictures = await job.urls() if moment.state == "succeeded" else []
    return Painting(id=job.id, state=moment.state, step=moment.step, steps=moment.steps, pictures=pictures)


@app.get("/paintings/{job_id}/events")
async def follow(job: Job) -> StreamingResponse:
    """Server-sent events: every moment of the job, the last one its end. A thousand clients cost one thread."""

    async def events() -> AsyncIterator[str]:
        async for moment in job.progress():
            yield f"data: {moment.model_dump_json()}\n\n"

    return StreamingResponse(events(), media_type="text/event-stream")


@app.delete("/paintings/{job_id}")
async def cancel(job: Job) -> Painting:
    record = await job.cancel()
    return Painting(id=job.id, state=record.status)


@app.post("/webhooks/overpaint", status_code=204)
async def ended(request: Request, secret: Annotated[str, Depends(get_secret)]) -> None:
    event = verify_webhook(request.headers, await request.body(), secret)
    # It may come again: what is done here is done once for each event.id.
    log.info("job %s %s: %s", event.job_id, event.status, event.result)
