"""The Celery layer: from a message to a job, and back to the queue where it did not work out."""

from __future__ import annotations

import json
import logging
import time
from typing import Any

from celery import Celery, Task
from celery.exceptions import Reject
from pydantic import TypeAdapter, ValidationError

from overpaint_common import wire
from overpaint_common.errors import BrokerUnavailable, InvalidJob, ObjectNotFound, OverpaintError, StorageError
from overpaint_common.job import Job, JobId
from overpaint_common.live import Progress
from overpaint_common.tickets import declaration
from overpaint_worker.attempt import run_job
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
    names = wire.queues_of(runtime.cards)
    if runtime.settings.accept_submissions:
        names.append(wire.SUBMIT_QUEUE)
    app.conf.task_queues = [declaration(name) for name in names]

    def run(task: Task, job_id: str, *_: Any) -> None:
        _run(runtime, task, job_id)

    def submit(task: Task, body: Any) -> None:
        _submit(runtime, task, body)

    app.task(name=wire.RUN_TASK, bind=True)(run)
    app.task(name=wire.SUBMIT_TASK, bind=True)(submit)
    return app


def _run(runtime: Runtime, task: Task, job_id: str, *_: Any) -> None:
    _guard(runtime)
    try:
        run_job(runtime, _JOB_ID.validate_python(job_id))
    except (ObjectNotFound, ValidationError) as error:
        log.warning("ticket dropped job=%r: %s", job_id, error)
    except OverpaintError as error:
        _give_back(runtime, task, job_id, error)


def _submit(runtime: Runtime, task: Task, body: Any) -> None:
    _guard(runtime)
    try:
        accepted = runtime.acceptance.accept(_named(body, task.request.id))
    except StorageError as error:
        runtime.draining.wait(pause(error))
        raise Reject(str(error), requeue=True) from error
    except OverpaintError as error:
        log.warning("submission refused code=%s: %s", error.code, error)
        letter = json.dumps({"code": error.code, "error": str(error), "body": body})
        runtime.ledger.bury("submissions", task.request.id, letter.encode())
    else:
        if accepted.not_queued is not None:
            raise Reject(str(accepted.not_queued), requeue=True)


def _named(body: Any, task_id: str) -> Job:
    """The job of a message, under the message's own id if it has none, so that a repeated message is the same job."""
    if not isinstance(body, dict):
        raise InvalidJob(f"the job is a JSON {type(body).__name__}; send one JSON object as the only argument")
    return Job.parse(json.dumps({"id": task_id, **body}))


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
