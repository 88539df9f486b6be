"""Doing again what became a dead letter."""

from __future__ import annotations

import json
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from redis import Redis

from overpaint_common.dead import DeadLetter, DeadLetters, DeadSubmission
from overpaint_common.errors import BrokerUnavailable, InvalidJob, InvalidMessage, InvalidSignature, LedgerUnreadable
from overpaint_common.job import Job, JobId
from overpaint_common.live import broker_errors
from overpaint_common.raw import RawMessage
from overpaint_common.seeds import job_id_from_key
from overpaint_common.webhooks import DeadWebhook, schedule_webhook
from overpaint_producer.producer import Producer


@dataclass(frozen=True, slots=True)
class Replayed:
    """What a letter became."""

    id: str
    """Of the job; for a raw message the queue that it went back to."""
    notes: tuple[str, ...] = ()
    """What whoever asked for it should know."""


def replay(
    producer: Producer, redis: Redis, letters: DeadLetters, name: str, *, job_id: JobId | None = None
) -> Replayed:
    """Do again what a letter is about, then drop it.

    A job is submitted under `job_id`, or an id that its own one determines, so that a replay interrupted half-way can
    be repeated and is the same job. It is painted with the same seeds. A refused submission is submitted under its own
    id, or `job_id`; a raw message goes back to its queue; a webhook is handed to the keeper as if for the first time.

    Raises ObjectNotFound where there is no such letter, LedgerUnreadable for one that is not understood, InvalidJob or
    InvalidSignature for one that cannot be replayed, and what `Producer.submit` raises. The letter stays then.
    """
    letter = letters.read(name)
    document = letter.document
    if job_id is not None and not isinstance(document, DeadLetter | DeadSubmission):
        raise InvalidJob(f"{name} becomes no job, so it takes no id; replay it without one")
    match document:
        case DeadLetter():
            done = _again(producer, document, job_id)
        case DeadSubmission():
            done = _submission(producer, document, job_id)
        case RawMessage():
            done = _message(redis, document, name)
        case DeadWebhook():
            done = _webhook(producer, redis, document)
        case None:
            raise LedgerUnreadable(f"{name} cannot be replayed: {letter.note}; a newer version may have written it")
    letters.drop(name)
    return done


def _again(producer: Producer, letter: DeadLetter, job_id: JobId | None) -> Replayed:
    if job_id == letter.job_id:
        raise InvalidJob(f"job {job_id} has ended and its record is for good; replay it under another id, or none")
    job, notes = letter.job, []
    if job.deadline is not None and job.deadline <= datetime.now(UTC):
        notes.append(f"its deadline {job.deadline.isoformat()} has passed and was left out")
        job = job.model_copy(update={"deadline": None})
    new_id = job_id or job_id_from_key(f"dead letter of job {letter.job_id}")
    return _submitted(producer, job.model_copy(update={"id": new_id}), notes)


def _submission(producer: Producer, letter: DeadSubmission, job_id: JobId | None) -> Replayed:
    if letter.code == InvalidSignature.code:
        raise InvalidSignature(
            f"message {letter.id} is not signed as it should be, so who sent it is not known; read it, and submit its "
            "job yourself if you trust it"
        )
    job = Job.parse(_job_of(letter))
    return _submitted(producer, job if job_id is None else job.model_copy(update={"id": job_id}), [])


def _job_of(letter: DeadSubmission) -> str:
    match letter.body:
        case dict(job):
            return json.dumps({"id": letter.id, **job}, ensure_ascii=False)
        case [str(text), str(_)]:  # Signed, and refused for another reason than that.
            return text
        case _:
            raise InvalidJob(f"message {letter.id} holds no job as a JSON object; drop it")


def _submitted(producer: Producer, job: Job, notes: list[str]) -> Replayed:
    handle = producer.submit(job)
    if handle.not_queued is not None:
        notes.append(f"accepted, but not queued yet: {handle.not_queued}; the keeper will queue it")
    return Replayed(handle.id, tuple(notes))


def _message(redis: Redis, letter: RawMessage, name: str) -> Replayed:
    if not letter.queue.startswith("overpaint."):
        raise InvalidMessage(f"{name} came from {letter.queue[:200]!r}, which is no queue of Overpaint's; drop it")
    client: Any = redis
    with broker_errors():
        client.lpush(letter.queue, letter.data)
    return Replayed(letter.queue)


def _webhook(producer: Producer, redis: Redis, letter: DeadWebhook) -> Replayed:
    job_id, notes = letter.event.job_id, []
    producer.ledger.keep_webhook(letter.replayed(datetime.now(UTC)))
    try:
        schedule_webhook(redis, job_id)
    except BrokerUnavailable as error:
        notes.append(f"handed over, but Redis cannot tell the keeper, which looks for itself in a while: {error}")
    return Replayed(job_id, tuple(notes))
