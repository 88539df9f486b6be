"""Messages that nobody could understand, byte for byte: in a Redis list first, then among the dead letters."""

from __future__ import annotations

import base64
import hashlib

from pydantic import AwareDatetime, field_serializer, field_validator

from overpaint_common.frozen import Frozen


class RawMessage(Frozen):
    """A message that a worker refused."""

    queue: str
    """Where it was found; empty where that is not known."""
    reason: str
    received_at: AwareDatetime
    """By Redis's clock."""
    data: bytes
    """In JSON as base64."""

    @property
    def name(self) -> str:
        """What to keep it under."""
        return fingerprint(self.data)

    @field_validator("data", mode="before")
    @classmethod
    def _decode(cls, value: object) -> object:
        return base64.b64decode(value, validate=True) if isinstance(value, str) else value

    @field_serializer("data", when_used="json")
    def _encode(self, value: bytes) -> str:
        return base64.b64encode(value).decode()


def fingerprint(data: bytes) -> str:
    """By which a message is named without repeating it: the start of its hex sha256."""
    return hashlib.sha256(data).hexdigest()[:16]
