"""Whether Redis answers, keeps what it is given, survives a restart, and has room."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping
from statistics import median
from typing import Any

from redis.exceptions import AuthenticationError, NoPermissionError, RedisError

from overpaint_common.configuration import masked_url
from overpaint_common.findings import Finding, amount, fail, ok, warn
from overpaint_common.live import connect
from overpaint_producer.cli.checks.redis_rights import check_rights

PATIENCE = 3.0
"""Seconds for one that does not answer, for each of the checks that ask it."""

OLDEST = (6, 2)
"""The oldest that Overpaint is tested with."""

SLOW = 0.05
"""Seconds for one round trip beyond which it shows: a job costs its worker some dozens of them."""

ROUND_TRIPS = 5

FULL = 0.8
"""Share of memory or of connections in use from which on a busy hour could use up the rest."""

SHORTEST_TIMEOUT = 60
"""Seconds; the clients look after a connection every 15 seconds, but only while they use it."""


def check_redis(url: str) -> Iterator[Finding]:
    """Everything about the server at `url`, in few and cheap requests."""
    with connect(url, patience=PATIENCE) as client:
        try:
            took = _latency(client)
            info: dict[str, Any] = client.info()
        except AuthenticationError as error:
            remedy = "give user and password in OVERPAINT_REDIS_URL: redis://user:password@host:port/database"
            yield fail("redis", f"{masked_url(url)} lets nobody in without the right password: {error}", remedy)
            return
        except NoPermissionError:
            yield fail("redis", f"{masked_url(url)} lets this user ask neither TIME nor INFO", _ALLOW)
            return
        except (RedisError, OSError) as error:
            remedy = "start Redis, or set OVERPAINT_REDIS_URL to where it is; check the password, rediss:// and network"
            yield fail("redis", f"{masked_url(url)} does not answer: {error}", remedy)
            return
        yield _server(info, took)
        role = _role(info)
        if role is not None:
            yield role
            return  # A server that is the wrong one need not be set up well.
        config = _config(client)
        yield _eviction(info)
        yield from _memory(info)
        yield _persistence(info, config)
        yield from _connections(info, config)
        yield from check_rights(client)


_ALLOW = "allow them: in redis-cli, ACL SETUSER <user> +time +info"


def _latency(client: Any) -> float:
    """Seconds of a usual round trip; the first one also opens the connection."""
    client.time()  # Not PING, which a server that cannot save refuses.
    took = []
    for _ in range(ROUND_TRIPS):
        began = time.monotonic()
        client.time()
        took.append(time.monotonic() - began)
    return median(took)


def _config(client: Any) -> dict[str, str]:
    """What INFO does not tell; empty where the server lets nobody ask, as managed ones do not."""
    try:
        found: dict[str, str] = client.config_get("save", "timeout", "maxclients")
    except RedisError:
        return {}
    return found


def _server(info: Mapping[str, Any], took: float) -> Finding:
    found = str(info.get("redis_version", "0"))
    message = f"version {found} answers in {took * 1000:.3g} ms"
    if tuple(int(part) for part in found.split(".")[:2] if part.isdigit()) < OLDEST:
        return warn("redis", message, f"use {'.'.join(map(str, OLDEST))} or newer")
    if took > SLOW:
        return warn("redis", message, "run Redis near the workers: each job costs some dozens of round trips")
    return ok("redis", message)


def _role(info: Mapping[str, Any]) -> Finding | None:
    if info.get("role", "master") != "master":
        primary = f"{info.get('master_host', 'another server')}:{info.get('master_port', '?')}"
        message = f"it is a replica of {primary}, which takes no writes or loses them"
        return fail("redis role", message, "set OVERPAINT_REDIS_URL to the primary")
    if int(info.get("cluster_enabled", 0)):
        remedy = "use one primary without cluster mode, with a replica for failover if you wish"
        return fail("redis role", "it runs in cluster mode, where no script may touch keys of several slots", remedy)
    return None


def _eviction(info: Mapping[str, Any]) -> Finding:
    policy, limit = str(info.get("maxmemory_policy", "unknown")), int(info.get("maxmemory", 0))
    message = f"{policy}, " + (f"at most {amount(limit)}" if limit else "no memory limit")
    if policy == "noeviction":
        return ok("redis eviction", message)
    remedy = "set maxmemory-policy noeviction: with any other, a full Redis throws queued jobs away"
    return fail("redis eviction", message, remedy) if limit else warn("redis eviction", message, remedy)


def _memory(info: Mapping[str, Any]) -> Iterator[Finding]:
    used, limit = int(info.get("used_memory", 0)), int(info.get("maxmemory", 0))
    host = int(info.get("total_system_memory", 0))
    room = limit or host
    if not room:
        return
    message = f"{amount(used)} in use of {amount(room)}" + ("" if limit else ", all that its host has")
    if used < FULL * room:
        yield ok("redis memory", message)
        return
    what = "raise maxmemory" if limit else "give its host more memory, or set maxmemory"
    yield warn("redis memory", message, f"{what}, or drain the queues: a full Redis takes no more tickets")


def _persistence(info: Mapping[str, Any], config: Mapping[str, str]) -> Finding:
    check, look = "redis persistence", "look at Redis's log; its disk may be full"
    snapshots = config.get("save", "")
    if snapshots and info.get("rdb_last_bgsave_status", "ok") != "ok":
        return fail(check, "the last snapshot failed, and Redis takes no writes until one succeeds", look)
    if not int(info.get("aof_enabled", 0)):
        beside = f", snapshots on (save {snapshots})" if snapshots else ""
        remedy = "set appendonly yes: without it a restart of Redis forgets the queue, and the keeper has to rebuild it"
        return warn(check, f"append-only file off{beside}", remedy)
    if info.get("aof_last_write_status", "ok") != "ok":
        return fail(check, "append-only file not written", look)
    if info.get("aof_last_bgrewrite_status", "ok") != "ok":
        return warn(check, "append-only file on, but its last rewrite failed, so it only grows", look)
    return ok(check, "append-only file on")


def _connections(info: Mapping[str, Any], config: Mapping[str, str]) -> Iterator[Finding]:
    check, used = "redis connections", int(info.get("connected_clients", 0))
    most = int(info.get("maxclients", config.get("maxclients", 0)))
    if most and used >= FULL * most:
        remedy = "raise maxclients, or find who leaves connections open: redis-cli CLIENT LIST"
        yield warn(check, f"{used} of {most} in use", remedy)
    elif most:
        yield ok(check, f"{used} of {most} in use")
    timeout = int(config.get("timeout", 0))
    if 0 < timeout < SHORTEST_TIMEOUT:
        remedy = f"set timeout 0, or {SHORTEST_TIMEOUT} and more: each reconnect delays a job"
        yield warn(check, f"Redis closes those that are idle for {timeout} s", remedy)
