"""The Celery layer: from a message to a claimed job."""

from __future__ import annotations

import logging
import time
from collections.abc import Sequence
from typing import Any

from celery import Celery, Task
from celery.exceptions import Reject

from overpaint_common import wire
from overpaint_common.errors import BrokerUnavailable, OverpaintError
from overpaint_common.leases import Claim
from overpaint_common.tickets import declaration
from overpaint_worker import transport
from overpaint_worker.jobs import work
from overpaint_worker.retry import rule_of
from overpaint_worker.runtime import Runtime
from overpaint_worker.submissions import accept_submission

log = logging.getLogger(__name__)

REJECT_PAUSE = 0.5
"""Seconds before a draining worker puts a message back, lest it fetch the same one again and again."""


def create_app(runtime: Runtime) -> Celery:
    """The Celery application of one worker process, serving `runtime`'s models from the most urgent queue down."""
    app = Celery("overpaint", set_as_current=False, fixups=[])
    app.conf.update(wire.celery_settings(runtime.settings.redis_url.get_secret_value()))
    app.conf.broker_transport = transport.NAME
    app.conf.task_queues = [declaration(name) for name in runtime.consumption.queues]
    runtime.consumption.attach(app)

    def run(task: Task, job_id: str, queued_ms: int = 0) -> None:
        _run(runtime, task, job_id, queued_ms)

    def submit(task: Task, *arguments: Any) -> None:
        _submit(runtime, task, arguments)

    app.task(name=wire.RUN_TASK, bind=True, shared=False)(run)
    app.task(name=wire.SUBMIT_TASK, bind=True, shared=False)(submit)
    return app


def _run(runtime: Runtime, task: Task, job_id: str, queued_ms: int) -> None:
    queue = task.request.delivery_info["routing_key"]
    try:
        if runtime.draining.is_set():
            # A ticket of its own time, so that the keeper does not take it for one that was lost.
            runtime.tickets.send_again(queue, job_id)
            return
        claim = runtime.leases.claim(job_id, queue, queued_ms)
    except BrokerUnavailable as error:
        raise Reject(str(error), requeue=True) from error
    if isinstance(claim, Claim):
        work(runtime, claim)
    else:
        log.info("ticket dropped job=%s: %s %s", job_id, claim.why, claim.holder)


def _submit(runtime: Runtime, task: Task, arguments: Sequence[Any]) -> None:
    if runtime.draining.is_set():
        time.sleep(REJECT_PAUSE)
        raise Reject("the worker is draining", requeue=True)
    try:
        accept_submission(runtime, task.request.id, arguments)
    except OverpaintError as error:
        runtime.draining.wait(rule_of(error).backoff.first)
        raise Reject(str(error), requeue=True) from error
