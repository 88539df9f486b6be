"""Ends that no worker brings about: jobs given up or expired, and what a dead worker left half-finished."""

from __future__ import annotations

import logging
from datetime import UTC, datetime

from overpaint_common.errors import ObjectNotFound, WorkerCrashed
from overpaint_common.finish import Finish
from overpaint_common.leases import Leases
from overpaint_common.ledger import Ledger
from overpaint_common.live import Attempts, Live, last_moment
from overpaint_common.result import Failure, Result, ResultStatus
from overpaint_common.seeds import new_attempt_id

log = logging.getLogger(__name__)


class Endings:
    """Records and finishes jobs. Every method raises StorageError or BrokerUnavailable, and can be repeated."""

    def __init__(self, ledger: Ledger, finish: Finish, live: Live, leases: Leases) -> None:
        self._ledger = ledger
        self._finish = finish
        self._live = live
        self._leases = leases

    def finish(self, job_id: str, *, crashes: int = 0, worker: str | None = None) -> bool:
        """Complete a job that has a record; whether it has one. `crashes` and `worker` are for its dead letter."""
        record = self._ledger.record(job_id)
        if record is None:
            return False
        try:
            request = self._ledger.request(job_id)
        except ObjectNotFound:
            log.warning("record without a request job=%s", job_id)
        else:
            self._finish(request, record, crashes=crashes, worker=worker)
            # Not before: tickets of a job that has ended are dropped, so that nobody else would finish it.
            self._live.report({job_id: [last_moment(record)]})
        self._leases.forget(job_id)
        return True

    def give_up(self, job_id: str, attempts: Attempts, worker: str) -> None:
        """Record a job that workers died at again and again."""
        error = WorkerCrashed(
            f"{attempts.crashes} workers died while they worked on it, the last one {worker or 'unknown'}; look into "
            "their logs, then replay it with `overpaint dead replay`, or drop it"
        )
        record = self._commit(job_id, "failed", attempts, Failure.of(error))
        if record is not None:
            self.finish(job_id, crashes=attempts.crashes, worker=worker)

    def expire(self, job_id: str) -> None:
        """Record that a deadline has passed, unless the job has ended; a worker that runs it stops at its next step."""
        record = self._commit(job_id, "expired", Attempts(0, 0), None)
        if record is not None:
            self._live.end(record)

    def _commit(self, job_id: str, status: ResultStatus, attempts: Attempts, failure: Failure | None) -> Result | None:
        try:
            request = self._ledger.request(job_id)
        except ObjectNotFound:
            log.warning("job to be ended is not in the ledger job=%s", job_id)
            self._leases.forget(job_id)
            return None
        record = self._ledger.commit(
            Result(
                job_id=job_id,
                status=status,
                attempt=new_attempt_id(),
                attempts=attempts.started,
                job=request.job,
                failure=failure,
                accepted_at=request.accepted_at,
                finished_at=datetime.now(UTC),
            )
        )
        log.info("job ended by the keeper job=%s status=%s", job_id, record.status)
        return record
