"""Whether a failed job is tried again: pure decisions."""

from __future__ import annotations

from overpaint_common.errors import (
    BrokerUnavailable,
    EngineDied,
    ModelUnreachable,
    OverpaintError,
    StorageUnavailable,
    WorkerStopping,
)
from overpaint_common.live import Attempts

OUTAGE_ATTEMPTS = 100
"""Attempts lost to outages and stopping workers before a job is given up: many, for no job is to blame."""

PAUSE = 2.0
"""Seconds to wait before a job goes back to the queue, lest it circle at full speed."""

LONG_PAUSE = 15.0
"""The same where only a person can help, such as a ledger that denies access."""


def is_outage(error: OverpaintError) -> bool:
    """Whether the error tells of storage, Redis, a model hub or a stopping worker rather than of the job."""
    return isinstance(error, StorageUnavailable | BrokerUnavailable | ModelUnreachable | WorkerStopping)


def gives_up(error: OverpaintError, attempts: Attempts, max_attempts: int) -> bool:
    """Whether to record the failure; `attempts` counts the one that just failed as started, not yet as an outage."""
    if not error.retryable:
        return True
    if is_outage(error):
        return attempts.outages >= OUTAGE_ATTEMPTS
    return attempts.started - attempts.outages >= max_attempts


def pause(error: OverpaintError) -> float:
    """Seconds to wait before the job is queued again."""
    if isinstance(error, EngineDied | WorkerStopping):
        return 0.0
    return PAUSE if is_outage(error) else LONG_PAUSE
