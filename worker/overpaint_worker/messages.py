"""What a Celery message of ours looks like, and how one that is none is kept. Knows neither Celery nor Redis."""

from __future__ import annotations

import base64
import binascii
import json
from typing import Annotated, Any, NamedTuple, TypeVar

from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    TypeAdapter,
    ValidationError,
)

from overpaint_common import wire
from overpaint_common.errors import InvalidMessage
from overpaint_common.job import JobId

MAX_MESSAGE_BYTES = 1024 * 1024
"""A message beyond this is refused before it is parsed; a job may have a quarter of it."""

JSON = "application/json"
_T = TypeVar("_T")
_Name = Annotated[str, Field(pattern=r"^[^\x00-\x1f\x7f]{1,255}$")]


class _Part(BaseModel):
    """Fields that are not named are ignored and not passed on: what nobody reads can break nothing."""

    model_config = ConfigDict(strict=True, frozen=True, allow_inf_nan=False)


class _Headers(_Part):
    """What would delay, drop, repeat or cut a job behind its record's back must be unset, as Celery sends it."""

    task: str
    id: _Name
    eta: None = None
    expires: None = None
    group: None = None
    compression: None = None
    retries: Annotated[int, Field(ge=0, le=0)] | None = None
    timelimit: tuple[None, ...] | None = None


class _DeliveryInfo(_Part):
    exchange: str
    routing_key: str
    redelivered: bool = False


class _Properties(_Part):
    delivery_tag: _Name
    delivery_info: _DeliveryInfo
    body_encoding: str | None = None
    priority: Annotated[int, Field(ge=0, le=9)] | None = None


class _Envelope(_Part):
    body: str
    content_type: str = Field(alias="content-type")
    content_encoding: str | None = Field(default=None, alias="content-encoding")
    headers: _Headers
    properties: _Properties


class _Embed(_Part):
    """What Celery would run after the job; of ours there is nothing."""

    model_config = ConfigDict(extra="forbid")

    callbacks: tuple[()] | None = None
    errbacks: tuple[()] | None = None
    chain: tuple[()] | None = None
    chord: None = None


class _Body(NamedTuple):
    args: list[Any]
    kwargs: Annotated[dict[str, Any], Field(max_length=0)]
    embed: _Embed | None


class Ticket(NamedTuple):
    """The arguments of `overpaint.run`."""

    job_id: JobId
    queued: Annotated[int, Field(strict=True, ge=0, lt=2**53)] = 0
    """When the ticket was queued, in milliseconds since 1970."""


_ENVELOPE = TypeAdapter(_Envelope)
_BODY = TypeAdapter(_Body)
_TICKET = TypeAdapter(Ticket)


def check_message(raw: bytes, queue: str) -> dict[str, Any]:
    """What kombu may be given for the message `raw` that was popped from `queue`: fields checked, and no others.

    Raises InvalidMessage that says what is wrong without repeating anything of the message, which may be secret. The
    result goes back to `queue` if it is returned, whatever route the message itself named.
    """
    if len(raw) > MAX_MESSAGE_BYTES:
        raise InvalidMessage(f"message: {len(raw)} bytes; at most {MAX_MESSAGE_BYTES} are taken")
    envelope = _read(_ENVELOPE, raw)
    headers, properties = envelope.headers, envelope.properties
    wanted = wire.SUBMIT_TASK if queue == wire.SUBMIT_QUEUE else wire.RUN_TASK
    if headers.task != wanted:
        raise InvalidMessage(f"headers.task: only {wanted} is served in this queue")
    text = _text(envelope)
    body = _read(_BODY, text, "body")
    json.loads(text, object_hook=_refuse_tagged)
    if headers.task == wire.RUN_TASK:
        try:
            _TICKET.validate_python(body.args)
        except ValidationError as error:
            raise InvalidMessage(_explain(error, "body", "0")) from None
    return {
        "body": text,
        "content-type": JSON,
        "content-encoding": "utf-8",
        "headers": {"task": headers.task, "id": headers.id},
        "properties": {
            "correlation_id": headers.id,
            "delivery_tag": properties.delivery_tag,
            "delivery_info": {
                "exchange": "",
                "routing_key": queue,
                "redelivered": properties.delivery_info.redelivered,
            },
            "body_encoding": "utf-8",
            "priority": properties.priority,
        },
    }


def _text(envelope: _Envelope) -> str:
    """The body as JSON text."""
    if envelope.content_type != JSON:
        raise InvalidMessage(f"content-type: must be {JSON}")
    if (envelope.content_encoding or "utf-8").lower() != "utf-8":
        raise InvalidMessage("content-encoding: must be utf-8")
    match envelope.properties.body_encoding:
        case None | "utf-8":
            return envelope.body
        case "base64":
            try:
                # Some encoders break their lines.
                return base64.b64decode("".join(envelope.body.split()), validate=True).decode()
            except (binascii.Error, ValueError):
                raise InvalidMessage("body: not base64 of UTF-8, as properties.body_encoding says it is") from None
        case _:
            raise InvalidMessage("properties.body_encoding: must be base64 or utf-8")


def _refuse_tagged(found: dict[str, Any]) -> dict[str, Any]:
    """Celery's own spelling of dates and the like: it would decode them, or fail at it."""
    if found.keys() == {"__type__", "__value__"}:
        raise InvalidMessage("body: holds an object of __type__ and __value__; send plain JSON")
    return found


def _read(kind: TypeAdapter[_T], text: bytes | str, *within: str) -> _T:
    try:
        return kind.validate_json(text)
    except ValidationError as error:
        raise InvalidMessage(_explain(error, *within)) from None


def _explain(error: ValidationError, *within: str) -> str:
    """Where and what, without values, nor names that the sender chose."""
    found = {}
    for detail in error.errors(include_url=False, include_input=False):
        where = detail["loc"][:-1] if detail["type"] == "extra_forbidden" else detail["loc"]
        found[".".join(map(str, (*within, *where))) or "message"] = detail["msg"]
    return "; ".join(f"{where}: {what}" for where, what in found.items())
