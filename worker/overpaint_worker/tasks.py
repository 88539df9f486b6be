"""The Celery layer: from a message to a job, and back to the queue where it did not work out."""

from __future__ import annotations

import hashlib
import json
import logging
import re
import time
from collections.abc import Sequence
from typing import Any

from celery import Celery, Task
from celery.exceptions import Reject
from pydantic import TypeAdapter, ValidationError

from overpaint_common import wire
from overpaint_common.errors import BrokerUnavailable, InvalidJob, ObjectNotFound, OverpaintError, StorageError
from overpaint_common.job import Job, JobId
from overpaint_common.live import Progress
from overpaint_common.tickets import declaration
from overpaint_worker.attempt import errors_named, run_job
from overpaint_worker.retry import pause
from overpaint_worker.runtime import Runtime

log = logging.getLogger(__name__)

REJECT_PAUSE = 0.5
"""Seconds before a draining worker puts a ticket back, lest it fetch the same one again and again."""

_JOB_ID: TypeAdapter[str] = TypeAdapter(JobId)


def create_app(runtime: Runtime) -> Celery:
    """The Celery application of one worker process, serving `runtime`'s models from the most urgent queue down."""
    app = Celery("overpaint", set_as_current=False, fixups=[])
    app.conf.update(wire.celery_settings(runtime.settings.redis_url.get_secret_value()))
    # Whole jobs come first: accepting one takes milliseconds, and it may be urgent.
    first = [wire.SUBMIT_QUEUE] if runtime.settings.accept_submissions else []
    app.conf.task_queues = [declaration(name) for name in (*first, *wire.queues_of(runtime.cards))]

    def run(task: Task, *ticket: Any) -> None:
        _run(runtime, task, ticket)

    def submit(task: Task, *arguments: Any) -> None:
        _submit(runtime, task, arguments)

    app.task(name=wire.RUN_TASK, bind=True)(run)
    app.task(name=wire.SUBMIT_TASK, bind=True)(submit)
    return app


def _run(runtime: Runtime, task: Task, ticket: Sequence[Any]) -> None:
    _guard(runtime)
    try:
        job_id = _JOB_ID.validate_python(ticket[0] if ticket else None)
    except ValidationError:
        log.warning("ticket dropped: %.200r names no job", ticket)
        return
    try:
        with errors_named(), runtime.in_hand.claim(job_id) as claimed:
            if claimed:
                _run_job(runtime, job_id)
            else:
                log.info("ticket dropped: job %s is in hand already", job_id)
    except OverpaintError as error:
        _give_back(runtime, task, job_id, error)


def _run_job(runtime: Runtime, job_id: str) -> None:
    try:
        request = runtime.ledger.request(job_id)
    except ObjectNotFound as error:
        log.warning("ticket dropped: %s", error)
        detail = f"worker {runtime.worker.name} found no such job in its ledger {runtime.worker.ledger}"
        runtime.reporter.post(job_id, Progress(state="accepted", detail=detail))
        return
    run_job(runtime, request)


def _submit(runtime: Runtime, task: Task, arguments: Sequence[Any]) -> None:
    _guard(runtime)
    try:
        with errors_named():
            try:
                accepted = runtime.acceptance.accept(_named(arguments, task.request.id))
            except StorageError:
                raise
            except OverpaintError as error:
                log.warning("submission refused code=%s: %s", error.code, error)
                _bury(runtime, task.request.id, arguments, error)
                return
            if accepted.not_queued is not None:
                raise accepted.not_queued
    except OverpaintError as error:
        runtime.draining.wait(pause(error))
        raise Reject(str(error), requeue=True) from error


def _named(arguments: Sequence[Any], task_id: str) -> Job:
    """The job of a message, under the message's own id if it has none, so that a repeated message is the same job."""
    if len(arguments) != 1 or not isinstance(arguments[0], dict):
        raise InvalidJob("overpaint.submit takes one argument: the job as a JSON object")
    return Job.parse(json.dumps({"id": task_id, **arguments[0]}, ensure_ascii=False))


def _bury(runtime: Runtime, task_id: str, arguments: Sequence[Any], error: OverpaintError) -> None:
    body = arguments[0] if len(arguments) == 1 else list(arguments)
    letter = json.dumps({"id": task_id, "code": error.code, "error": str(error), "body": body})
    # A client may name its messages as it likes, a key may not.
    plain = re.fullmatch(r"[\w-]{1,64}", task_id, re.ASCII)
    name = task_id if plain else hashlib.sha256(task_id.encode(errors="replace")).hexdigest()
    runtime.ledger.bury("submissions", name, letter.encode())


def _guard(runtime: Runtime) -> None:
    if runtime.draining.is_set():
        time.sleep(REJECT_PAUSE)
        raise Reject("the worker is draining", requeue=True)


def _give_back(runtime: Runtime, task: Task, job_id: str, error: OverpaintError) -> None:
    """Queue the job anew, then let its old ticket be acknowledged: a crash in between leaves two, never none."""
    log.warning("job given back job=%s code=%s: %s", job_id, error.code, error)
    runtime.reporter.post(job_id, Progress(state="queued", detail=f"given back after {error.code}"))
    runtime.draining.wait(pause(error))
    try:
        runtime.tickets.send_to(task.request.delivery_info["routing_key"], job_id)
    except BrokerUnavailable as unavailable:
        raise Reject(str(unavailable), requeue=True) from error
