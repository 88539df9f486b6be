"""Whether a failed job is tried again, when, and what the try counts as: pure decisions."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from overpaint_common.errors import (
    BrokerUnavailable,
    DeviceOutOfMemory,
    EngineDied,
    InternalError,
    ModelUnreachable,
    OverpaintError,
    PipelineFailed,
    StorageFull,
    StorageUnavailable,
    WorkerStopping,
)
from overpaint_common.leases import GIVE_UP_AT, SUSPECT_AT, Counted
from overpaint_common.live import Attempts

OUTAGE_ATTEMPTS = 100
"""Attempts lost to outages and stopping workers before a job is given up: many, for no job is to blame."""


@dataclass(frozen=True, slots=True)
class Backoff:
    """Pauses that grow from try to try."""

    first: float
    """Seconds before the second try."""
    factor: float
    longest: float
    """Seconds."""

    def after(self, tries: int) -> float:
        """Seconds to wait after this many tries, at least one."""
        # The exponent is bounded, lest a float overflow.
        return min(self.longest, self.first * self.factor ** min(max(tries, 1) - 1, 64))


AT_ONCE = Backoff(0, 1, 0)


@dataclass(frozen=True, slots=True)
class Rule:
    """What an error means for the next try."""

    kind: Literal["try", "outage", "crash"]
    """try: one of the job's own `max_attempts`; outage: no job's fault; crash: it took the engine along."""
    backoff: Backoff


RULES: dict[type[OverpaintError], Rule] = {
    StorageUnavailable: Rule("outage", Backoff(2, 2, 60)),
    BrokerUnavailable: Rule("outage", Backoff(2, 2, 60)),
    ModelUnreachable: Rule("outage", Backoff(15, 2, 300)),
    WorkerStopping: Rule("outage", AT_ONCE),
    EngineDied: Rule("crash", AT_ONCE),
    StorageFull: Rule("try", Backoff(15, 4, 300)),
    PipelineFailed: Rule("try", Backoff(2, 4, 60)),
    DeviceOutOfMemory: Rule("try", Backoff(5, 4, 60)),
    InternalError: Rule("try", Backoff(5, 4, 60)),
}
"""By class of error, subclasses included; a retryable error that is not here is tried as an InternalError is."""

BLOCKED = Rule("outage", Backoff(15, 2, 300))
"""For errors of the ledger itself that only a person can mend, such as one that denies access."""


@dataclass(frozen=True, slots=True)
class Decision:
    """What becomes of a job after an attempt that raised."""

    give_up: bool
    """Record the failure."""
    delay: float = 0
    """Otherwise: seconds until it is queued again."""
    counted: Counted = ""
    alone: bool = False
    """Whether it is to run with nothing beside it."""


def decide(error: OverpaintError, attempts: Attempts, max_attempts: int, *, begun: bool = True) -> Decision:
    """Decide by the error, the attempts so far and whether painting had `begun`.

    `attempts` counts the one that just failed as started, not yet as an outage or a crash. An engine that died before
    this job's turn came is no crash of its own.
    """
    if not error.retryable:
        return Decision(give_up=True)
    rule = rule_of(error)
    if rule.kind == "crash" and begun:
        crashes = attempts.crashes + 1
        return Decision(crashes >= GIVE_UP_AT, 0, "crashes", alone=crashes >= SUSPECT_AT)
    if rule.kind in ("outage", "crash"):
        give_up = attempts.outages >= OUTAGE_ATTEMPTS
        return Decision(give_up, rule.backoff.after(attempts.outages + 1), "outages", _suspected(attempts))
    tries = attempts.started - attempts.outages - attempts.crashes
    return Decision(tries >= max_attempts, rule.backoff.after(tries), "", _suspected(attempts))


def decide_blocked(error: OverpaintError, attempts: Attempts) -> Decision:
    """The same where the ledger itself raised, so that nothing can be recorded: the job is always tried again."""
    rule = rule_of(error) if error.retryable else BLOCKED
    return Decision(False, rule.backoff.after(attempts.outages + 1), "outages", _suspected(attempts))


def rule_of(error: OverpaintError) -> Rule:
    """The rule of a retryable error."""
    return next((rule for kind, rule in RULES.items() if isinstance(error, kind)), RULES[InternalError])


def _suspected(attempts: Attempts) -> bool:
    return attempts.crashes >= SUSPECT_AT
