"""Whether a failed job is tried again: pure decisions."""

from __future__ import annotations

from overpaint_common.errors import BrokerUnavailable, EngineDied, OverpaintError, StorageUnavailable

OUTAGE_ATTEMPTS = 100
"""Attempts that an outage of storage or Redis may cost before the job is given up: many, for no job is to blame."""

OUTAGE_PAUSE = 2.0
"""Seconds to wait before a job goes back to the queue because of an outage, lest it circle at full speed."""


def gives_up(error: OverpaintError, attempts: int, max_attempts: int) -> bool:
    """Whether to record the failure after `attempts` tries, the one that just failed included."""
    outage = isinstance(error, StorageUnavailable | BrokerUnavailable)
    return not error.retryable or attempts >= (OUTAGE_ATTEMPTS if outage else max_attempts)


def pause(error: OverpaintError) -> float:
    """Seconds to wait before the job is queued again."""
    return 0.0 if isinstance(error, EngineDied) else OUTAGE_PAUSE
