"""Whether this machine, Redis and S3 agree about the time."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from email.utils import parsedate_to_datetime
from typing import TYPE_CHECKING, Any

from redis.exceptions import RedisError

from overpaint_common.errors import SettingsError
from overpaint_common.findings import Finding, fail, from_error, ok, warn
from overpaint_common.live import connect
from overpaint_common.references import Reference
from overpaint_common.settings import AccessSettings
from overpaint_common.storage.s3 import S3Options
from overpaint_common.storage.s3 import connect as connect_s3
from overpaint_producer.cli.checks.redis import PATIENCE
from overpaint_producer.cli.checks.s3 import S3_ERRORS, headers_of

if TYPE_CHECKING:
    from mypy_boto3_s3 import S3Client

REDIS_WARN = 1.0
"""Seconds. A deadline is set by the caller's clock and passes by Redis's; below this, queueing itself takes longer."""

REDIS_FAIL = 300.0
"""Seconds by which a webhook's timestamp may be off before receivers refuse it, and as long as many a deadline."""

S3_WARN = 60.0
"""Seconds, well before S3 stops answering; its header tells whole seconds."""

S3_FAIL = 900.0
"""Seconds from which on S3 refuses every signed request (RequestTimeTooSkewed)."""

_REMEDY = "let a time service such as chrony or systemd-timesyncd set the clock"


def check_clocks(settings: AccessSettings) -> Iterator[Finding]:
    """This machine's clock against Redis's, and against S3's where the ledger is there."""
    yield from check_redis_clock(settings.redis_url.get_secret_value())
    if settings.ledger_root.scheme == "s3":
        try:
            client = connect_s3(S3Options.of(settings))
        except SettingsError as error:
            yield from_error("clock", error)
        except S3_ERRORS as error:
            yield _unknown(error)
        else:
            yield from check_s3_clock(client, settings.ledger_root)


def check_redis_clock(url: str, now: Callable[[], float] = time.time) -> Iterator[Finding]:
    """By how much Redis's clock is ahead of `now`, as exactly as half a round trip allows."""
    with connect(url, patience=PATIENCE) as client:
        connection: Any = client
        try:
            connection.time()  # Opens the connection, which would count otherwise.
            began = now()
            seconds, microseconds = connection.time()
            ended = now()
        except (RedisError, OSError):
            yield warn("clock", "Redis's is unknown while it does not answer", "see what is said of redis")
            return
    ahead = seconds + microseconds / 1e6 - (began + ended) / 2
    yield _finding("Redis's", ahead, REDIS_WARN + (ended - began) / 2, REDIS_FAIL, "deadlines pass by Redis's clock")


def check_s3_clock(client: S3Client, place: Reference) -> Iterator[Finding]:
    """By how much S3's clock is ahead, from the Date of any answer, a refusal included."""
    try:
        began = time.time()
        told = headers_of(client, place).get("date")
        middle = (began + time.time()) / 2
    except S3_ERRORS as error:
        yield _unknown(error)
        return
    if told is None:
        return
    try:
        moment = parsedate_to_datetime(told).timestamp()
    except ValueError:
        return
    why = f"S3 refuses requests that are off by more than {S3_FAIL / 60:.0f} minutes"
    yield _finding("S3's", moment + 0.5 - middle, S3_WARN, S3_FAIL, why)


def _unknown(error: Exception) -> Finding:
    return warn("clock", f"S3's is unknown while it does not answer: {type(error).__name__}", "see storage")


def _finding(whose: str, ahead: float, warning: float, failure: float, why: str) -> Finding:
    off = abs(ahead)
    side = "ahead of" if ahead > 0 else "behind"
    if off <= warning:
        within = f"{max(off, 0.001):.1g} s" if off < 1 else f"{off:.0f} s"
        return ok("clock", f"{whose} is within {within} of this machine's")
    message = f"{whose} is {_span(off)} {side} this machine's; {why}"
    return (fail if off > failure else warn)("clock", message, _REMEDY)


def _span(seconds: float) -> str:
    return f"{seconds:.1f} s" if seconds < 120 else f"{seconds / 60:.0f} minutes"
