"""Puts messages that nobody could understand from Redis into the ledger, among the dead letters."""

from __future__ import annotations

import logging
from datetime import UTC, datetime
from typing import Any

from redis import Redis

from overpaint_common import wire
from overpaint_common.dead import DeadLetters, DeadMessage
from overpaint_common.errors import InvalidMessage
from overpaint_common.live import broker_errors
from overpaint_worker.messages import RawMessage

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
            message = RawMessage.parse(entry)
        except InvalidMessage as error:
            log.warning("entry that no worker wrote: %s", error)
            message = RawMessage(queue="", reason=str(error), received_at=datetime.now(UTC), data=entry.encode())
        self._dead.put("raw", message.name, DeadMessage.model_validate(message.model_dump(mode="json")))
