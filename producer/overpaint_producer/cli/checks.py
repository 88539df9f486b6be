"""What `overpaint doctor` looks at. Each check returns findings and raises nothing."""

from __future__ import annotations

import platform
import time
from collections.abc import Iterator
from importlib.metadata import PackageNotFoundError, version
from typing import Any, Literal
from urllib.parse import urlsplit

from redis.exceptions import RedisError

from overpaint_common.errors import BrokerUnavailable, OverpaintError, SettingsError
from overpaint_common.fleet import WorkerCard
from overpaint_common.frozen import Frozen
from overpaint_common.live import Live, connect
from overpaint_common.references import Reference
from overpaint_common.seeds import new_attempt_id
from overpaint_common.settings import AccessSettings
from overpaint_common.storage import ObjectStore, WeakStore, require_conditional_puts

OLDEST_REDIS = (6, 2)
"""The oldest that Overpaint is tested with."""

SLOW = 1.0
"""Seconds for one small object beyond which storage is worth a look."""

LIBRARIES = (
    "overpaint",
    "celery",
    "kombu",
    "redis",
    "boto3",
    "pydantic",
    "pillow",
    "torch",
    "diffusers",
    "transformers",
)


class Finding(Frozen):
    """One line of the report."""

    check: str
    state: Literal["ok", "warn", "fail"]
    message: str
    """What was seen."""
    remedy: str = ""
    """What to do about it."""


def examine() -> Iterator[Finding]:
    """Every finding, as soon as it is known; later checks are left out where an earlier one makes them pointless."""
    yield _versions()
    try:
        settings = AccessSettings.load()
        _ = settings.access
    except SettingsError as error:
        yield Finding(check="settings", state="fail", message=str(error))
        return
    url = settings.redis_url.get_secret_value()
    yield Finding(check="settings", state="ok", message=f"ledger {settings.ledger}, Redis {_shown(url)}")
    yield from check_redis(url)
    yield from check_ledger(settings.open_store(), settings.ledger_root)
    yield from check_fleet(url, settings.ledger)


def check_redis(url: str) -> Iterator[Finding]:
    """Whether it answers, keeps what it is given, and survives a restart."""
    client: Any = connect(url)
    try:
        began = time.monotonic()
        info: dict[str, Any] = client.info()
        milliseconds = (time.monotonic() - began) * 1000
    except (RedisError, OSError) as error:
        remedy = "start Redis, or set OVERPAINT_REDIS_URL to where it is; check password, TLS (rediss://) and network"
        yield Finding(check="redis", state="fail", message=f"{_shown(url)} does not answer: {error}", remedy=remedy)
        return
    finally:
        client.close()
    found = str(info.get("redis_version", "0"))
    recent = tuple(int(part) for part in found.split(".")[:2] if part.isdigit()) >= OLDEST_REDIS
    yield Finding(
        check="redis",
        state="ok" if recent else "warn",
        message=f"version {found} answers in {milliseconds:.0f} ms",
        remedy="" if recent else f"use {'.'.join(map(str, OLDEST_REDIS))} or newer",
    )
    yield _eviction(info)
    yield _persistence(info)


def check_ledger(store: ObjectStore, root: Reference) -> Iterator[Finding]:
    """Write, read, list and delete one object, and whether the store decides conditional puts."""
    probe = root.join("doctor", new_attempt_id())
    try:
        began = time.monotonic()
        store.put(probe, b"content", content_type="text/plain")
        whole = store.read(probe, limit=100) == b"content"
        seconds = (time.monotonic() - began) / 2
        listed = any(info.reference == probe for info in store.list(root.join("doctor")))
        store.delete(probe)
        conditional = _conditional_put(store, root)
    except OverpaintError as error:
        yield _failed("storage", error)
        return
    if not whole or not listed:
        missing = "what was written cannot be read back" if not whole else "an object just written is not listed"
        yield Finding(check="storage", state="fail", message=missing, remedy="use a store with strong consistency")
    else:
        yield Finding(
            check="storage",
            state="ok" if seconds < SLOW else "warn",
            message=f"reads, writes, lists and deletes; {seconds * 1000:.0f} ms for a small object",
            remedy="" if seconds < SLOW else "move the bucket, or this program, into the same region",
        )
    yield conditional


def check_fleet(url: str, ledger: str) -> Iterator[Finding]:
    """Which workers are alive, which models they serve, whether they agree, and whether each model has a worker."""
    live = Live(connect(url))
    try:
        models, workers, kept = live.models(), live.workers(), live.kept()
    except BrokerUnavailable:
        yield Finding(check="fleet", state="fail", message="unknown while Redis does not answer")
        return
    finally:
        live.close()
    for worker in workers:
        yield _worker(worker, ledger)
    yield from _allowlists(workers)
    if not workers:
        remedy = "start one: overpaint worker (jobs submitted meanwhile wait for it)"
        yield Finding(check="worker", state="warn", message="none is alive", remedy=remedy)
    yield _keeper(kept)
    served = {name for worker in workers for name in worker.models}
    for name, card in sorted(models.items()):
        problem = remedy = ""
        if name not in served and workers:
            problem, remedy = "; no living worker serves it", "start a worker with it, or jobs for it will wait"
        message = f"{name}: {', '.join(card.operations)}, {card.family}, {card.native_size} pixels{problem}"
        yield Finding(check="model", state="warn" if problem else "ok", message=message, remedy=remedy)


def _keeper(kept: bool) -> Finding:
    if kept:
        return Finding(check="keeper", state="ok", message="one leads")
    remedy = "start a worker, or `overpaint keeper`: nobody looks after dead workers, retries and deadlines"
    return Finding(check="keeper", state="warn", message="none leads", remedy=remedy)


def _worker(worker: WorkerCard, ledger: str) -> Finding:
    message = f"{worker.name}: {', '.join(worker.models)} on {worker.device}, {worker.slots} slots"
    if worker.ledger in (None, ledger):
        return Finding(check="worker", state="ok", message=message)
    return Finding(
        check="worker",
        state="fail",
        message=f"{message}; it keeps its ledger at {worker.ledger}",
        remedy=f"set OVERPAINT_LEDGER to one root everywhere; here it is {ledger}",
    )


def _allowlists(workers: list[WorkerCard]) -> Iterator[Finding]:
    for name in sorted({name for worker in workers for name in worker.models}):
        places = {(worker.reads, worker.writes) for worker in workers if name in worker.models}
        if len(places) > 1:
            yield Finding(
                check="allowlists",
                state="fail",
                message=f"the workers of {name} may not all read and write the same places",
                remedy="set OVERPAINT_READ and OVERPAINT_WRITE alike for all of them: a job fails where its worker may "
                "not read or write what another may",
            )


def _eviction(info: dict[str, Any]) -> Finding:
    policy, limit = str(info.get("maxmemory_policy", "unknown")), int(info.get("maxmemory", 0))
    message = f"{policy}, " + (f"at most {limit / 2**20:.0f} MiB" if limit else "no memory limit")
    if policy == "noeviction":
        return Finding(check="redis eviction", state="ok", message=message)
    remedy = "set maxmemory-policy noeviction: with any other, a full Redis throws queued jobs away"
    return Finding(check="redis eviction", state="fail" if limit else "warn", message=message, remedy=remedy)


def _persistence(info: dict[str, Any]) -> Finding:
    if not int(info.get("aof_enabled", 0)):
        remedy = "set appendonly yes: without it a restart of Redis forgets the queue, and the keeper has to rebuild it"
        return Finding(check="redis persistence", state="warn", message="append-only file off", remedy=remedy)
    if info.get("aof_last_write_status", "ok") != "ok":
        remedy = "look at Redis's log; its disk may be full"
        return Finding(check="redis persistence", state="fail", message="append-only file not written", remedy=remedy)
    return Finding(check="redis persistence", state="ok", message="append-only file on")


def _conditional_put(store: ObjectStore, root: Reference) -> Finding:
    check, asked = "conditional put", store.inner if isinstance(store, WeakStore) else store
    weak = asked is not store
    try:
        require_conditional_puts(asked, root)
    except SettingsError as error:
        if not weak:
            return _failed(check, error)
        remedy = "use a store that honours If-None-Match: * on PUT, and unset OVERPAINT_WEAK_COMMITS"
        message = "the store decides none; two workers that end one job at the same moment may both record it"
        return Finding(check=check, state="warn", message=message, remedy=remedy)
    if weak:
        remedy = "unset OVERPAINT_WEAK_COMMITS everywhere: it gives up promises that this store can keep"
        return Finding(check=check, state="warn", message="the store decides them, unasked", remedy=remedy)
    return Finding(check=check, state="ok", message="a second one for the same key is refused")


def _failed(check: str, error: OverpaintError) -> Finding:
    # Every message of the error tree ends in what to do, after its last semicolon.
    message, semicolon, remedy = str(error).rpartition("; ")
    return Finding(
        check=check, state="fail", message=message if semicolon else remedy, remedy=remedy if semicolon else ""
    )


def _versions() -> Finding:
    found = [f"python {platform.python_version()}"]
    for name in LIBRARIES:
        try:
            found.append(f"{name} {version(name)}")
        except PackageNotFoundError:
            continue  # The worker's libraries are not there where only a producer is installed.
    return Finding(check="versions", state="ok", message=", ".join(found))


def _shown(url: str) -> str:
    """The URL without user and password."""
    parts = urlsplit(url)
    return parts._replace(netloc=parts.netloc.rpartition("@")[2]).geturl()
