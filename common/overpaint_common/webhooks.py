"""Webhooks: what is sent, its signature, and checking that on arrival.

Requests are signed as https://www.standardwebhooks.com lays down, so a receiver can verify them with any of that
project's libraries, or with `verify_webhook`.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import hmac
import time
from collections.abc import Iterable
from datetime import datetime
from typing import TYPE_CHECKING, Any, Literal, Protocol, Self

from pydantic import AwareDatetime, Field, HttpUrl, ValidationError

from overpaint_common import wire
from overpaint_common.errors import InvalidMessage, InvalidSignature, SettingsError
from overpaint_common.frozen import Frozen
from overpaint_common.job import JobId, Label, LabelName, explain
from overpaint_common.live import broker_errors
from overpaint_common.receivers import origin
from overpaint_common.references import ObjectUri
from overpaint_common.result import Result, ResultStatus

if TYPE_CHECKING:
    from redis import Redis

ID_HEADER = "webhook-id"
TIMESTAMP_HEADER = "webhook-timestamp"
SIGNATURE_HEADER = "webhook-signature"

SECRET_PREFIX = "whsec_"
SECRET_BYTES = (24, 64)
"""Fewest and most bytes of a secret."""

MAKE_SECRET = (
    """python3 -c "import base64, secrets; print('whsec_' + base64.b64encode(secrets.token_bytes(32)).decode())\""""
)


class Headers(Protocol):
    """Names and values: a mapping, or what a web framework has for the headers of a request."""

    def items(self) -> Iterable[tuple[str, str]]: ...


class WebhookEvent(Frozen):
    """The body of a webhook: how a job ended, and where to read more."""

    schema_version: Literal[1] = 1
    id: str
    """The same in every request about this end: what came before under it is a repetition."""
    type: Literal["job.succeeded", "job.failed", "job.cancelled", "job.expired"]
    job_id: JobId
    status: ResultStatus
    labels: dict[LabelName, Label] = Field(default_factory=dict)
    """As the job gave them."""
    result: ObjectUri | None = None
    """The owner's copy of the record, which names the pictures; None where it could not be written."""
    failure: str | None = None
    """Code of the error, for a job that failed."""
    finished_at: AwareDatetime

    @classmethod
    def of(cls, record: Result, result: ObjectUri | None) -> Self:
        """What is told of a record whose copy lies at `result`."""
        return cls.model_validate(
            {
                "id": f"{record.job_id}_{record.attempt}",
                "type": f"job.{record.status}",
                "job_id": record.job_id,
                "status": record.status,
                "labels": record.job.labels,
                "result": result,
                "failure": record.failure.code if record.failure else None,
                "finished_at": record.finished_at,
            }
        )

    def body(self) -> bytes:
        """The JSON that is sent."""
        return self.model_dump_json(exclude_none=True).encode()


class PendingWebhook(Frozen):
    """What the ledger holds of a webhook from its hand-over until it is delivered or given up."""

    schema_version: Literal[1] = 1
    webhook: HttpUrl = Field(repr=False)
    """Where to: in full, so never to be shown; `receiver` may be."""
    event: WebhookEvent
    handed_over_at: AwareDatetime
    tries: int = 0
    error: str | None = None
    """Why the last try failed."""

    @property
    def receiver(self) -> str:
        return origin(self.webhook)

    def evolve(self, **changes: Any) -> Self:
        return self.model_copy(update=changes)


class DeadWebhook(Frozen):
    """A webhook that was given up, as it lies under `dead/webhooks/`."""

    schema_version: Literal[1] = 1
    receiver: str
    error: str
    """Why the last try failed."""
    tries: int
    event: WebhookEvent
    webhook: HttpUrl = Field(repr=False)
    """In full, for another try; of all fields this one is not to be shown."""
    handed_over_at: AwareDatetime
    buried_at: AwareDatetime

    @classmethod
    def of(cls, pending: PendingWebhook, now: datetime) -> Self:
        return cls(
            receiver=pending.receiver,
            error=pending.error or "never tried",
            tries=pending.tries,
            event=pending.event,
            webhook=pending.webhook,
            handed_over_at=pending.handed_over_at,
            buried_at=now,
        )

    def replayed(self, now: datetime) -> PendingWebhook:
        """The same webhook, under the same id, with all its tries before it: for `Ledger.keep_webhook`."""
        return PendingWebhook(webhook=self.webhook, event=self.event, handed_over_at=now)


def decode_secret(text: str) -> bytes:
    """The key of a `whsec_...` secret; raises ValueError, which never repeats it."""
    low, high = SECRET_BYTES
    try:
        encoded = text.removeprefix(SECRET_PREFIX)
        key = base64.b64decode(encoded + "=" * (-len(encoded) % 4), validate=True)
    except (binascii.Error, ValueError):
        key = b""
    if not text.startswith(SECRET_PREFIX) or not low <= len(key) <= high:
        raise ValueError(
            f"not {SECRET_PREFIX} followed by {low} to {high} bytes in base64; make one with: {MAKE_SECRET}"
        )
    return key


def signed_headers(event_id: str, timestamp: int, body: bytes, keys: Iterable[bytes]) -> dict[str, str]:
    """The three headers of a request made at `timestamp` (seconds since 1970), signed with each key."""
    return {
        ID_HEADER: event_id,
        TIMESTAMP_HEADER: str(timestamp),
        SIGNATURE_HEADER: " ".join(f"v1,{_signature(event_id, str(timestamp), body, key)}" for key in keys),
    }


def _signature(event_id: str, timestamp: str, body: bytes, key: bytes) -> str:
    content = f"{event_id}.{timestamp}.".encode("utf-8", "surrogateescape") + body
    return base64.b64encode(hmac.new(key, content, hashlib.sha256).digest()).decode()


def verify_webhook(headers: Headers, body: bytes | str, secret: str, *, tolerance: float = 300.0) -> WebhookEvent:
    """What a webhook says, once it is certain that it comes from who holds `secret` and was sent just now.

    `headers` may be in any case; `body` is the request's body as it came, before any parsing; `secret` is the
    `whsec_...` of OVERPAINT_WEBHOOK_SECRET; `tolerance` is how many seconds the sender's clock and the receiver's may
    differ. Raises InvalidSignature for a request to be refused, InvalidMessage for a genuine one of a newer version,
    SettingsError for a secret that is none.

    A webhook may come more than once: act on each `event.id` once, and answer 2xx also to its repetitions.
    """
    try:
        key = decode_secret(secret)
    except ValueError as error:
        raise SettingsError(f"the webhook's secret: {error}") from None
    given = {name.lower(): value for name, value in headers.items()}
    missing = [name for name in (ID_HEADER, TIMESTAMP_HEADER, SIGNATURE_HEADER) if not given.get(name)]
    if missing:
        raise InvalidSignature(f"the webhook has no {', '.join(missing)}; pass on all headers of the request")
    _check_age(given[TIMESTAMP_HEADER], tolerance)
    data = body.encode() if isinstance(body, str) else body
    wanted = f"v1,{_signature(given[ID_HEADER], given[TIMESTAMP_HEADER], data, key)}".encode()
    signatures = (part.encode("utf-8", "surrogateescape") for part in given[SIGNATURE_HEADER].split())
    if not any(hmac.compare_digest(wanted, signature) for signature in signatures):
        raise InvalidSignature(
            "no signature of the webhook fits: it was changed, its body was parsed before it was verified, or the "
            "secret is not the sender's"
        )
    try:
        return WebhookEvent.model_validate_json(data, extra="ignore")
    except ValidationError as error:
        raise InvalidMessage(
            f"the webhook is genuine but not understood: {explain(error)}; a newer version may have sent it: upgrade "
            "this one"
        ) from None


def _check_age(timestamp: str, tolerance: float) -> None:
    try:
        age = time.time() - int(timestamp)
    except ValueError:
        raise InvalidSignature(f"{TIMESTAMP_HEADER} {timestamp[:40]!r} is no number of seconds") from None
    if abs(age) > tolerance:
        raise InvalidSignature(
            f"the webhook was sent {abs(age):.0f} s {'ago' if age > 0 else 'from now'}, more than {tolerance:.0f} s: a "
            "replay, or one of the two clocks is wrong"
        )


def schedule_webhook(redis: Redis, job_id: JobId) -> None:
    """Tell the keeper of a webhook that was handed over, to be tried at once; raises BrokerUnavailable.

    A hint: the keeper finds what it was not told of as well, within ten minutes.
    """
    client: Any = redis
    with broker_errors():
        seconds, micros = client.time()
        client.zadd(wire.WEBHOOKS_KEY, {job_id: seconds * 1000 + micros // 1000}, nx=True)
