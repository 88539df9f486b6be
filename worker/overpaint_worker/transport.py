"""kombu's Redis transport, made to stand every message and every failed acknowledgement.

    app.conf.broker_transport = NAME

The scheme of the broker's URL gives way to it, for `redis://` and `rediss://` alike.
"""

from __future__ import annotations

import json
import logging
import uuid
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from typing import Any

from kombu.transport import redis, virtual
from redis import Redis
from redis.exceptions import RedisError

from overpaint_common import failpoints, wire
from overpaint_common.errors import InvalidMessage
from overpaint_common.raw import RawMessage, fingerprint
from overpaint_worker.messages import check_message

log = logging.getLogger(__name__)

NAME = "overpaint_worker.transport:Transport"
"""What Celery's setting `broker_transport` takes."""

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


class QoS(redis.QoS):  # type: ignore[misc]
    """Loses neither a message nor a slot to a Redis that fails at the wrong moment.

    kombu's own keeps the slot of a message whose acknowledgement failed: once all are lost so, it never reads from
    Redis again, and never learns that Redis is back. Here such a message stays in kombu's hash `unacked` and comes
    again after the visibility timeout, also one that was to go back to its queue.
    """

    def append(self, message: Any, delivery_tag: str) -> None:
        failpoints.hit("popped")
        try:
            super().append(message, delivery_tag)
        except (RedisError, OSError) as error:
            # Redis is full or gone, and the message no longer there. Raising would lose it; this way it is worked on.
            log.warning("message in hand without a copy in Redis: %s", error)
            virtual.QoS.append(self, message, delivery_tag)
        failpoints.hit("appended")

    def ack(self, delivery_tag: str) -> None:
        try:
            # A full Redis lets go of things, only not in a transaction, which kombu's own is.
            with self.channel.conn_or_acquire() as client, client.pipeline(transaction=False) as pipe:
                self._remove_from_indices(delivery_tag, pipe).execute()
        finally:
            virtual.QoS.ack(self, delivery_tag)

    def reject(self, delivery_tag: str, requeue: bool = False) -> None:
        try:
            super().reject(delivery_tag, requeue=requeue)
        finally:
            virtual.QoS.ack(self, delivery_tag)

    def restore_by_tag(self, tag: bytes | str, client: Redis | None = None, leftmost: bool = False) -> None:
        try:
            super().restore_by_tag(tag, client=client, leftmost=leftmost)
        except (RedisError, OSError):
            raise
        except Exception as error:
            # An entry that kombu did not write. Left there, it would end every worker at its start.
            with self.channel.conn_or_acquire(client) as connected, connected.pipeline() as pipe:
                entry = connected.hget(self.unacked_key, tag) or b""
                self.channel.keep(entry, self.unacked_key, f"entry: cannot be given back, {type(error).__name__}")
                self._remove_from_indices(tag, pipe).execute()


class Channel(redis.Channel):  # type: ignore[misc]
    """Looks at each message before kombu and Celery do, both of which some messages crash; see `check_message`."""

    QoS = QoS

    def _create_client(self, asynchronous: bool = False) -> Redis:
        client: Redis = super()._create_client(asynchronous)
        if asynchronous:
            client.set_response_callback("BRPOP", self._screen)
        return client

    def _screen(self, reply: Sequence[bytes] | None, **_: Any) -> tuple[bytes, str] | None:
        """The reply to BRPOP as kombu is to see it: None, as if there had been no message, for one that is refused."""
        if not reply:
            return None
        key, raw = reply
        queue = key.decode().rsplit(self.sep, 1)[0]
        try:
            message = check_message(raw, queue)
        except InvalidMessage as error:
            self.keep(raw, queue, str(error))
            return None
        # A tag that came twice would let one message acknowledge the other.
        message["properties"]["delivery_tag"] = str(uuid.uuid4())
        return key, json.dumps(message)

    def keep(self, raw: bytes, queue: str, reason: str) -> None:
        """Put a refused message aside. Raises what Redis fails with: then the message is lost."""
        log.warning("message refused queue=%s bytes=%d sha256=%s: %s", queue, len(raw), fingerprint(raw), reason)
        try:
            with self.conn_or_acquire() as client:
                seconds, microseconds = client.time()
                received_at = _EPOCH + timedelta(seconds=seconds, microseconds=microseconds)
                kept = RawMessage(queue=queue, reason=reason, received_at=received_at, data=raw)
                client.rpush(wire.RAW_KEY, kept.model_dump_json())
        except (RedisError, OSError) as error:
            log.error("message lost sha256=%s: Redis did not keep it, %s", fingerprint(raw), error)
            raise


class Transport(redis.Transport):  # type: ignore[misc]
    """For `broker_transport`."""

    Channel = Channel
