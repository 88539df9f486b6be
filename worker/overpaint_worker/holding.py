"""The jobs that this process holds: their leases are renewed here, and each can be interrupted for a reason."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from overpaint_common.errors import BrokerUnavailable, JobCancelled, LeaseLost, OverpaintError
from overpaint_common.leases import Claim, Leases

log = logging.getLogger(__name__)

RENEWALS = 3
"""Renewals in the time that a lease lasts."""


class Hold:
    """One job in hand: why it has to stop, once it has to."""

    def __init__(self, claim: Claim) -> None:
        self.claim = claim
        self.stopped = threading.Event()
        """Set when the job is to leave the engine at its next step and go no further."""
        self.begun = False
        """Whether the engine has begun to paint it."""
        self._reason: OverpaintError | None = None

    def stop(self, reason: OverpaintError) -> None:
        """Interrupt the job; the first reason counts."""
        if self._reason is None:
            self._reason = reason
        self.stopped.set()

    def check(self) -> None:
        """Raises the reason once there is one."""
        if self.stopped.is_set():
            raise self.reason

    @property
    def reason(self) -> OverpaintError:
        """Why the job was stopped; JobCancelled where nobody gave another reason."""
        return self._reason or JobCancelled(f"job {self.claim.job_id} was cancelled")


class Holdings:
    """All jobs in hand. Renews their leases until each ends, and stops those that another worker holds by now."""

    def __init__(self, leases: Leases, *, seconds: float) -> None:
        """`seconds` that a lease lasts."""
        self._leases = leases
        self._pause = seconds / RENEWALS
        self._lock = threading.Lock()
        self._renewing = threading.Lock()
        self._holds: dict[str, Hold] = {}
        self._refusal: Callable[[], OverpaintError] | None = None
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._loop, name="leases", daemon=True)

    def start(self) -> None:
        self._thread.start()

    def stop(self) -> None:
        self._ended.set()
        self._thread.join()

    @contextmanager
    def hold(self, claim: Claim) -> Iterator[Hold]:
        """Renew the lease of `claim` until the block ends; ending the lease is the caller's."""
        hold = Hold(claim)
        with self._lock:
            self._holds[claim.attempt] = hold
            if self._refusal is not None:
                hold.stop(self._refusal())
        try:
            yield hold
        finally:
            # A renewal under way would take the lease again after it was ended.
            with self._renewing, self._lock:
                self._holds.pop(claim.attempt, None)

    def refuse(self, reason: Callable[[], OverpaintError]) -> None:
        """From now on stop each new job at once, for what `reason` makes."""
        with self._lock:
            self._refusal = reason

    def __iter__(self) -> Iterator[Hold]:
        with self._lock:
            return iter(list(self._holds.values()))

    def _loop(self) -> None:
        pause = self._pause
        while not self._ended.wait(pause):
            try:
                with self._renewing:
                    self._renew()
                pause = self._pause
            except BrokerUnavailable as error:
                log.warning("leases not renewed: %s", error)
                pause = min(1.0, self._pause)
            except Exception:
                log.exception("leases not renewed")
                pause = min(1.0, self._pause)

    def _renew(self) -> None:
        holds = {hold.claim.attempt: hold for hold in self}
        if not holds:
            return
        for claim in self._leases.renew([hold.claim for hold in holds.values()]):
            log.warning("lease lost job=%s attempt=%s", claim.job_id, claim.attempt)
            reason = LeaseLost(f"another worker holds job {claim.job_id} by now; this one goes no further")
            holds[claim.attempt].stop(reason)
