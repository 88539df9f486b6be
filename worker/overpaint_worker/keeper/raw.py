"""Puts messages that nobody could understand from Redis into the ledger, among the dead letters."""

from __future__ import annotations

import logging
from datetime import UTC, datetime
from typing import Any

from pydantic import ValidationError
from redis import Redis

from overpaint_common import wire
from overpaint_common.dead import DeadLetters
from overpaint_common.live import broker_errors
from overpaint_common.raw import RawMessage

log = logging.getLogger(__name__)

BATCH = 20
"""Messages a round: each may be large."""


class RawMessages:
    """Empties `wire.RAW_KEY`, one batch a call."""

    def __init__(self, redis: Redis, dead: DeadLetters) -> None:
        self._redis: Any = redis
        self._dead = dead

    def tick(self) -> None:
        """Raises BrokerUnavailable, StorageError; what was not put away stays in Redis."""
        with broker_errors():
            entries = self._redis.lrange(wire.RAW_KEY, 0, BATCH - 1)
        for entry in entries:
            self._keep(entry)
            with broker_errors():
                self._redis.lrem(wire.RAW_KEY, 1, entry)

    def _keep(self, entry: str) -> None:
        try:
            message = RawMessage.model_validate_json(entry)
        except ValidationError:
            reason = f"entry of {wire.RAW_KEY} that no worker wrote"
            log.warning("%s bytes=%d", reason, len(entry))
            message = RawMessage(queue="", reason=reason, received_at=datetime.now(UTC), data=entry.encode())
        self._dead.put("raw", message.name, message)
