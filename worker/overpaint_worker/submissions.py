"""Whole jobs that came as plain Celery messages: accepted, or kept as dead letters."""

from __future__ import annotations

import hashlib
import json
import logging
import re
from collections.abc import Sequence
from typing import Any, Protocol

from overpaint_common.acceptance import Acceptance
from overpaint_common.errors import BrokerUnavailable, InvalidJob, InvalidSignature, OverpaintError, StorageError
from overpaint_common.job import Job
from overpaint_common.ledger import Ledger
from overpaint_common.signing import verify
from overpaint_worker.attempt import errors_named
from overpaint_worker.settings import WorkerSettings

log = logging.getLogger(__name__)

KIND = "submissions"
"""Of the dead letters that refused jobs become."""


class Accepting(Protocol):
    """What is needed of a worker's runtime."""

    @property
    def settings(self) -> WorkerSettings: ...

    @property
    def acceptance(self) -> Acceptance: ...

    @property
    def ledger(self) -> Ledger: ...


def accept_submission(runtime: Accepting, task_id: str, arguments: Sequence[Any]) -> None:
    """Accept the job of one `overpaint.submit` message, or bury the message if the job is refused.

    Raises StorageError, or BrokerUnavailable where the accepted job could not be queued: then the same call again is
    safe, and needed. Whatever else goes wrong is a refusal, so that no message comes back for ever.
    """
    secret = runtime.settings.submit_secret
    try:
        with errors_named():
            job = signed_job(arguments, secret.get_secret_value()) if secret else named_job(arguments, task_id)
            accepted = runtime.acceptance.accept(job)
    except (StorageError, BrokerUnavailable):
        raise
    except OverpaintError as error:
        log.warning("submission refused code=%s: %s", error.code, error)
        _bury(runtime.ledger, task_id, arguments, error)
        return
    if accepted.not_queued is not None:
        raise accepted.not_queued


def named_job(arguments: Sequence[Any], task_id: str) -> Job:
    """The job of a message, under the message's own id if it has none, so that a repeated message is the same job.

    Raises InvalidJob.
    """
    if len(arguments) == 2 and all(isinstance(argument, str) for argument in arguments):
        raise InvalidJob(
            "the job is signed, but this worker has no secret to check it by; set OVERPAINT_SUBMIT_SECRET on the "
            "workers, or send the job as a JSON object"
        )
    if len(arguments) != 1 or not isinstance(arguments[0], dict):
        raise InvalidJob("overpaint.submit takes one argument: the job as a JSON object")
    return Job.parse(json.dumps({"id": task_id, **arguments[0]}, ensure_ascii=False))


def signed_job(arguments: Sequence[Any], secret: str) -> Job:
    """The job of a signed message: its JSON as a text, and the text's signature; see `overpaint_common.signing`.

    Raises InvalidSignature, before the text is parsed, or InvalidJob.
    """
    match arguments:
        case [str(text), str(signature)]:
            if not verify(text, signature, secret):
                raise InvalidSignature(
                    "the signature is not that of the text; sign exactly the text that is sent, in UTF-8, with the "
                    "workers' OVERPAINT_SUBMIT_SECRET"
                )
        case _:
            raise InvalidSignature(
                "overpaint.submit takes signed jobs only: the job's JSON as one text, and the hex HMAC-SHA256 of that "
                "text under OVERPAINT_SUBMIT_SECRET"
            )
    job = Job.parse(text)
    if "id" not in job.model_fields_set:
        raise InvalidJob("id: required in a signed job, for the message's own id is not signed")
    return job


def _bury(ledger: Ledger, task_id: str, arguments: Sequence[Any], error: OverpaintError) -> None:
    body = arguments[0] if len(arguments) == 1 else list(arguments)
    letter = json.dumps({"id": task_id, "code": error.code, "error": str(error), "body": body})
    # A client may name its messages as it likes, a key may not.
    plain = re.fullmatch(r"[\w-]{1,64}", task_id, re.ASCII)
    name = task_id if plain else hashlib.sha256(task_id.encode(errors="replace")).hexdigest()
    ledger.bury(KIND, name, letter.encode())
