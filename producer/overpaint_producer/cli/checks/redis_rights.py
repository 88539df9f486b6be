"""Whether the Redis user may do what Overpaint does, found by doing it to keys that nobody else has."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from redis.exceptions import NoPermissionError, RedisError, ResponseError

from overpaint_common.findings import Finding, fail, ok
from overpaint_common.seeds import new_attempt_id

PROBE_TTL = 60
"""Seconds after which Redis itself removes what a broken-off trial left."""

TEXT = "overpaint:doctor:PROBE"
TABLE = f"{TEXT}:hash"
ORDERED = f"{TEXT}:ordered"
STREAM = f"{TEXT}:events"
QUEUE = "overpaint.doctor-PROBE.standard"
KEYS = (TEXT, TABLE, ORDERED, STREAM, QUEUE)
"""What is tried on; PROBE stands for what nobody else has."""

KOMBU_KEYS = ("unacked", "unacked_index", "unacked_mutex", "_kombu.binding.celery", "_kombu.binding_permanent.celery")
"""Keys of the library below the queues; they have no prefix."""

SCRIPT = "e0e1f9fabfc9d4800c877a703b823ac0578ff8db"
"""The SHA-1 of `return 1`."""

Command = tuple[str | int, ...]

TRIALS: tuple[Command, ...] = (
    ("TIME",),
    ("EVAL", "return redis.call('TIME')", 0),
    ("SCRIPT", "LOAD", "return 1"),
    ("EVALSHA", SCRIPT, 0),
    ("SCRIPT", "EXISTS", SCRIPT),
    ("SET", TEXT, "1", "NX", "PX", PROBE_TTL * 1000),
    ("GET", TEXT),
    ("MGET", TEXT),
    ("EXISTS", TEXT),
    ("HSET", TABLE, "field", "1"),
    ("HINCRBY", TABLE, "field", 1),
    ("HGET", TABLE, "field"),
    ("HMGET", TABLE, "field"),
    ("HEXISTS", TABLE, "field"),
    ("HGETALL", TABLE),
    ("HDEL", TABLE, "nothing"),
    ("ZADD", ORDERED, 1, "member"),
    ("ZSCORE", ORDERED, "member"),
    ("ZMSCORE", ORDERED, "member"),
    ("ZREVRANK", ORDERED, "member"),
    ("ZCARD", ORDERED),
    ("ZCOUNT", ORDERED, "-inf", "+inf"),
    ("ZRANGEBYSCORE", ORDERED, "-inf", "+inf"),
    ("ZRANGE", ORDERED, 0, -1),
    ("ZREVRANGE", ORDERED, 0, -1),
    ("ZREVRANGEBYSCORE", ORDERED, "+inf", "-inf"),
    ("ZSCAN", ORDERED, 0),
    ("ZREM", ORDERED, "nothing"),
    ("ZREMRANGEBYSCORE", ORDERED, 5, 6),
    ("XADD", STREAM, "MAXLEN", "~", 10, "*", "field", "value"),
    ("XREAD", "COUNT", 1, "STREAMS", STREAM, "0"),
    ("LPUSH", QUEUE, "message"),
    ("RPUSH", QUEUE, "message"),
    ("LLEN", QUEUE),
    ("LRANGE", QUEUE, 0, -1),
    ("LREM", QUEUE, 1, "nothing"),
    ("BRPOP", QUEUE, 1),
    *(("EXPIRE", key, PROBE_TTL) for key in KEYS),
    *(("EXISTS", key) for key in KOMBU_KEYS),
    ("HDEL", "unacked", "PROBE"),
    ("ZREM", "unacked_index", "PROBE"),
    ("SREM", "_kombu.binding.celery", "PROBE"),
    ("SMEMBERS", "_kombu.binding.celery"),
    ("PUBLISH", "/0.celeryev/overpaint-doctor-PROBE", "{}"),
    *(("DEL", key) for key in KEYS),
    ("SADD", TEXT, "member"),
    ("DEL", TEXT),
)


def check_rights(client: Any) -> Iterator[Finding]:
    """Try every command on keys of our own, and on kombu's keys what changes nothing."""
    check, probe = "redis rights", new_attempt_id()
    refused: list[str] = []
    failed = ""
    try:
        for command in trials(probe):
            try:
                client.execute_command(*command)
            except NoPermissionError as error:
                refused.append(_refused(command, error))
        _try_transaction(client, probe, refused)
    except RedisError as error:
        failed = f"{type(error).__name__}: {error}"
    finally:
        _remove(client, probe)
    if failed:
        yield fail(check, f"trying the commands broke off: {failed}", "look at Redis's log and settings")
    elif refused:
        remedy = "allow that, or more: in redis-cli, ACL SETUSER <user> ~* &* +@all -@admin -@dangerous +info"
        yield fail(check, f"this user may not use {', '.join(dict.fromkeys(refused))}", remedy)
    else:
        yield ok(check, "this user may run scripts and use every key and command that is needed")


def trials(probe: str) -> list[Command]:
    """One use of every command that Overpaint and the libraries below it send, in an order in which they succeed."""
    return [tuple(_named(word, probe) if isinstance(word, str) else word for word in command) for command in TRIALS]


def _named(word: str, probe: str) -> str:
    return word.replace("PROBE", probe)


def _refused(command: Command, error: NoPermissionError) -> str:
    """The command, with its key or channel where only that is refused."""
    name = str(command[0])
    if any(word in str(error) for word in ("a key", "the keys", "channel")) and len(command) > 1:
        return f"{name} on {str(command[1]).partition(':')[0]}"
    return name


def _try_transaction(client: Any, probe: str, refused: list[str]) -> None:
    try:
        with client.pipeline(transaction=True) as pipe:
            pipe.watch(_named(TEXT, probe))
            pipe.multi()
            pipe.time()
            pipe.execute()
    except (NoPermissionError, ResponseError):  # The latter is for an EXEC without its MULTI.
        refused.append("MULTI")


def _remove(client: Any, probe: str) -> None:
    for key in KEYS:
        try:
            client.delete(_named(key, probe))
        except RedisError:
            return  # It expires by itself, if it was made at all.
