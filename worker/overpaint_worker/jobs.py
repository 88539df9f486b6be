"""From a claim to the end of its job: request, attempt, commit, finish, and what becomes of it otherwise."""

from __future__ import annotations

import logging
import threading
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager

from overpaint_common import failpoints
from overpaint_common.errors import (
    BrokerUnavailable,
    JobExpired,
    LeaseLost,
    ObjectNotFound,
    OverpaintError,
    StorageError,
    WorkerStopping,
)
from overpaint_common.job import Job
from overpaint_common.leases import Claim
from overpaint_common.live import Progress, last_moment
from overpaint_common.patience import insist
from overpaint_common.tickets import milliseconds
from overpaint_worker.attempt import TELL_PATIENCE, Attempt, errors_named
from overpaint_worker.consumption import SoloLoop
from overpaint_worker.holding import Hold
from overpaint_worker.retry import Decision, decide_blocked
from overpaint_worker.runtime import Runtime

log = logging.getLogger(__name__)

COMMIT_PATIENCE = 600.0
"""Seconds to go on trying to write the record of a job that is done."""

RETURN_PATIENCE = 60.0
"""Seconds to go on trying to end a lease; after that it lapses, and the keeper returns the job."""


def work(runtime: Runtime, claim: Claim) -> None:
    """Bring a claimed job to its end, or give it back. Raises nothing that a caller could mend."""
    decision: Decision | None = None
    with runtime.holdings.hold(claim) as hold:
        if runtime.draining.is_set():
            # The drain may have looked through the jobs in hand before this one was among them.
            hold.stop(WorkerStopping("the worker was told to stop; another one takes the job over"))
        failpoints.hit("claimed")
        try:
            with errors_named():
                decision = _run(runtime, hold)
        except LeaseLost as error:
            log.warning("job left to another worker: %s", error)
            return
        except OverpaintError as error:
            log.warning("job given back job=%s code=%s: %s", claim.job_id, error.code, error)
            decision = decide_blocked(error, claim.attempts)
    try:
        insist(
            lambda: _end(runtime, claim, decision),
            on=BrokerUnavailable,
            seconds=RETURN_PATIENCE,
            leaving=runtime.draining,
        )
    except BrokerUnavailable as error:
        log.warning("lease not ended, it lapses job=%s: %s", claim.job_id, error)
    failpoints.hit("released")


def solo_loop(runtime: Runtime) -> SoloLoop[Claim]:
    """What runs the suspects of this worker's models, each with nothing beside it."""
    waiting = ExitStack()

    def take() -> Claim | None:
        for model in runtime.cards:
            claim = runtime.leases.claim_suspect(model)
            if claim is not None:
                # The lease has to last until the other jobs have ended.
                waiting.enter_context(runtime.holdings.hold(claim))
                return claim
        return None

    def run(claim: Claim) -> None:
        waiting.close()
        work(runtime, claim)

    def give_back(claim: Claim) -> None:
        waiting.close()
        runtime.leases.give_back(claim, counted="outages", alone=True)

    return SoloLoop(runtime.consumption, take=take, run=run, give_back=give_back, leaving=runtime.draining)


def _end(runtime: Runtime, claim: Claim, decision: Decision | None) -> None:
    if decision is None:
        runtime.leases.done(claim)
        return
    waits = f"again in {decision.delay:.0f} s" if decision.delay else "again at once"
    runtime.reporter.post(claim.job_id, Progress(state="queued", detail=f"given back, to be tried {waits}"))
    # Told first: the next worker's claim must not be overwritten, nor its ticket be dropped for an end told too early.
    runtime.reporter.flush(claim.job_id, TELL_PATIENCE)
    runtime.leases.give_back(claim, counted=decision.counted, delay=decision.delay, alone=decision.alone)


def _run(runtime: Runtime, hold: Hold) -> Decision | None:
    """What becomes of the job, or None once it has ended.

    A job that is finished already costs one look at its record; what its end left undone is completed.
    """
    job_id = hold.claim.job_id
    try:
        request = runtime.ledger.request(job_id)
    except ObjectNotFound as error:
        log.warning("ticket dropped: %s", error)
        detail = f"worker {runtime.worker.name} found no such job in its ledger {runtime.worker.ledger}"
        runtime.reporter.post(job_id, Progress(state="accepted", detail=detail))
        return None
    record = runtime.ledger.record(job_id)
    if record is None:
        with _deadline(request.job, hold) as passed:
            attempt = Attempt(runtime, request, hold)
            result = attempt.expired() if passed else attempt.run()
        if isinstance(result, Decision):
            return result
        # The pictures are stored: to wait for the ledger is cheaper than to paint them again.
        record = insist(
            lambda: runtime.ledger.commit(result), on=StorageError, seconds=COMMIT_PATIENCE, leaving=runtime.draining
        )
        log.info("job committed job=%s status=%s ours=%s", job_id, record.status, record.attempt == result.attempt)
        failpoints.hit("recorded")
    runtime.reporter.post(job_id, last_moment(record))
    runtime.finish(request, record, crashes=hold.claim.attempts.crashes)
    return None


@contextmanager
def _deadline(job: Job, hold: Hold) -> Iterator[bool]:
    """Yields whether the job's deadline has passed; if not, stops the job when it does, until the block ends."""
    if job.deadline is None:
        yield False
        return
    left = (milliseconds(job.deadline) - hold.claim.now_ms) / 1000
    reason = JobExpired(f"the deadline {job.deadline.isoformat()} has passed")
    timer = threading.Timer(max(left, 0), hold.stop, (reason,))
    timer.daemon = True
    timer.start()
    try:
        yield left <= 0
    finally:
        timer.cancel()
