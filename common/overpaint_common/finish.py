"""What follows the end of a job, whoever decided it."""

from __future__ import annotations

import logging

from redis import Redis

from overpaint_common.dead import DeadLetter, DeadLetters
from overpaint_common.errors import BrokerUnavailable
from overpaint_common.ledger import Ledger, Request
from overpaint_common.result import Result
from overpaint_common.storage import ObjectStore
from overpaint_common.webhooks import schedule_webhook

log = logging.getLogger(__name__)


class Finish:
    """Completes jobs that have a record. Can be repeated from the start after any interruption."""

    def __init__(self, ledger: Ledger, dead: DeadLetters, outputs: ObjectStore, redis: Redis) -> None:
        self._ledger = ledger
        self._dead = dead
        self._outputs = outputs
        self._redis = redis

    def __call__(self, request: Request, record: Result, *, crashes: int = 0, worker: str | None = None) -> None:
        """Keep a dead letter of a job that could succeed later, do what `Ledger.finish` does, tell of the webhook.

        Raises StorageError. Without Redis the keeper finds the webhook in the ledger.
        """
        if record.failure is not None and record.failure.retryable:
            self._dead.bury_job(DeadLetter.of(request, record, crashes=crashes, worker=worker))
        self._ledger.finish(request, record, self._outputs)
        if request.job.webhook is not None:
            try:
                schedule_webhook(self._redis, request.job.id)
            except BrokerUnavailable as error:
                log.warning("webhook waits in the ledger job=%s: %s", request.job.id, error)
