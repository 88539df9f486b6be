"""Which of several keepers works: the one that holds a key in Redis."""

from __future__ import annotations

from typing import Any

from redis import Redis
from redis.exceptions import ResponseError

from overpaint_common import wire
from overpaint_common.live import broker_errors
from overpaint_common.scripts import script
from overpaint_common.seeds import new_attempt_id

TERM = 10.0
"""Seconds that a leader may be silent before another one takes over."""


class Leader:
    """A claim to lead. Two may believe that they lead for a moment; all that a keeper does can be done twice."""

    def __init__(self, redis: Redis) -> None:
        self._redis: Any = redis
        self._token = new_attempt_id()
        self._lead = script(redis, "lead")
        self._resign = script(redis, "resign")

    def lead(self) -> bool:
        """Whether this one leads, for TERM seconds from now; raises BrokerUnavailable."""
        with broker_errors():
            return bool(self._lead(keys=[wire.KEEPER_KEY], args=[self._token, int(TERM * 1000)]))

    def server(self) -> str:
        """Which process answers: another one may lack the last writes. Empty where it does not say.

        Raises BrokerUnavailable.
        """
        with broker_errors():
            try:
                return str(self._redis.info("server").get("run_id", ""))
            except ResponseError:
                return ""

    def resign(self) -> None:
        """Let another one take over at once; raises BrokerUnavailable."""
        with broker_errors():
            self._resign(keys=[wire.KEEPER_KEY], args=[self._token])
