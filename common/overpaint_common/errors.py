"""Every error that Overpaint raises or records.

    OverpaintError
    |-- SettingsError                 settings are missing or contradict each other
    |-- InvalidJob                    the job itself is wrong; no retry can help
    |   |-- InvalidReference          not an s3:// or file:// reference
    |   |-- UnknownModel              no worker's registry has a model of that name
    |   |-- NotServed                 a valid request that this fleet does not serve
    |   |-- StrengthTooSmall          strength x steps leaves no step to run
    |   |-- IdempotencyConflict       the same key came with another body
    |   `-- JobsRefused               some of many jobs are wrong; none was accepted
    |-- PartlySubmitted               some of many jobs were accepted, others were not
    |-- ForbiddenReference            outside the operator's allowlist
    |-- ForbiddenWebhook              a receiver that the operator does not allow
    |-- InvalidSignature              an HMAC is missing or wrong
    |-- InvalidMessage                a message that cannot be understood
    |-- StorageError
    |   |-- ObjectNotFound
    |   |-- ObjectExists              a conditional put found the key taken
    |   |-- ObjectTooLarge            larger than the reader's limit
    |   |-- StorageDenied             the store refused the credentials
    |   |-- StorageFull               no space left
    |   |-- LedgerUnreadable          a document of the ledger that this version does not understand
    |   `-- StorageUnavailable        down, slow, or its answer was lost
    |-- BrokerUnavailable             Redis is down
    |-- SourceError                   the source object is no usable picture
    |   |-- SourceEmpty
    |   |-- SourceNotAPicture
    |   |-- SourceTruncated
    |   |-- SourceTooLarge            more pixels or bytes than allowed
    |   `-- SourceAnimated            several frames where one picture is wanted
    |-- UnsafePicture                 the model's safety checker refused what it painted
    |-- EngineError
    |   |-- ModelLoadFailed           the registry entry or its files are wrong
    |   |   `-- ModelUnreachable      its repository cannot be reached
    |   |-- PipelineFailed            the pipeline raised
    |   |-- DeviceOutOfMemory
    |   `-- EngineDied                the engine thread is gone; the job goes back
    |-- WorkerStopping                the worker was told to stop; the job goes back
    |-- WorkerCrashed                 workers died at the job again and again
    |-- LeaseLost                     another worker holds the job now
    |-- InternalError                 a bug of ours
    |-- JobCancelled                  somebody cancelled the job
    |-- JobExpired                    its deadline passed first
    |-- JobFailed                     raised to whoever asks a failed job for its pictures
    |-- NotFinished                   asked for the record of a job that has none yet
    `-- WaitTimeout                   the caller's own limit on waiting

`code` is the stable name that records carry; `retryable` says whether the same job could succeed later. Docstring and
`remedy` are what docs/errors.md says of an error: what it means, and what to do.
"""

from __future__ import annotations

from collections.abc import Mapping
from itertools import islice
from typing import ClassVar

_TOLD = 5
"""Reasons that a message about many jobs repeats; the error's own mapping has all."""


class OverpaintError(Exception):
    """Base of all errors; catch it to catch everything Overpaint raises on purpose."""

    code: ClassVar[str] = "error"
    retryable: bool = False
    remedy: ClassVar[str] = "See the message."


class SettingsError(OverpaintError):
    """Settings are missing or contradict each other, or something is not installed."""

    code = "settings"
    remedy = "Set what the message names; it says all that is wrong at once."


class InvalidJob(OverpaintError, ValueError):
    """A field of the job is wrong, unknown or missing."""

    code = "invalid_job"
    remedy = "Mend the fields that the message lists."


class InvalidReference(InvalidJob):
    """Not an `s3://bucket/key` or `file:///path` reference."""

    code = "invalid_reference"
    remedy = "Spell it as the message shows."


class UnknownModel(InvalidJob):
    """No worker's registry has a model of that name, or none was named where there are several."""

    code = "unknown_model"
    remedy = "Use one of those that the message lists, or start a worker that has it."


class NotServed(InvalidJob):
    """A valid request that this fleet does not serve: an operation, a size, a number of steps."""

    code = "not_served"
    remedy = "Ask for what the message says is served."


class StrengthTooSmall(InvalidJob):
    """Strength times steps leaves no step to run."""

    code = "strength_too_small"
    remedy = "Take the number of steps that the message names, or strength 0."


class IdempotencyConflict(InvalidJob):
    """The same key or id came before with another body."""

    code = "idempotency_conflict"
    remedy = "A new key for a new job, or the very same body."


class JobsRefused(InvalidJob):
    """Some of many jobs that were submitted together are wrong; none was accepted."""

    code = "jobs_refused"
    remedy = "Mend those that `refused` names, and submit all of them again."

    def __init__(self, refused: Mapping[str, OverpaintError], *, of: int) -> None:
        self.refused = dict(refused)
        """Why, by the name or the place of each job that is wrong."""
        super().__init__(f"{len(refused)} of {of} jobs are wrong, none was accepted: {_some(refused)}")


class PartlySubmitted(OverpaintError):
    """Some of many jobs that were submitted together were accepted, the others were not."""

    code = "partly_submitted"
    retryable = True
    remedy = (
        "Submit all of them again under the same key or ids: those that were accepted are given back. The error's own "
        "`retryable` says whether that alone completes it; `failed` says why not."
    )

    def __init__(self, failed: Mapping[str, OverpaintError], accepted: Mapping[str, str]) -> None:
        self.failed = dict(failed)
        """Why, by the name or the place of each job that was not accepted."""
        self.accepted = dict(accepted)
        """The ids of the jobs that were, by the same."""
        self.retryable = all(error.retryable for error in failed.values())
        remedy = (
            "submit all of them again under the same idempotency key or ids to complete it"
            if self.retryable
            else "mend those that no repetition can help, then submit all of them again"
        )
        count = f"{len(accepted)} of {len(accepted) + len(failed)} jobs were accepted"
        super().__init__(f"{count}, the others not: {_some(failed)}; {remedy}")


class ForbiddenReference(OverpaintError):
    """The source or the output lies outside what the workers may use."""

    code = "forbidden_reference"
    remedy = "Move it, or have its prefix added to `OVERPAINT_READ` or `OVERPAINT_WRITE`."


class ForbiddenWebhook(OverpaintError):
    """The webhook's receiver is none that jobs may name, or its URL holds a password."""

    code = "forbidden_webhook"
    remedy = "Name another receiver, or have the operator add it to `OVERPAINT_WEBHOOKS`."


class InvalidSignature(OverpaintError):
    """The signature of a signed job, or of a webhook that came, is missing, wrong or too old."""

    code = "invalid_signature"
    remedy = "Sign the very bytes that are sent with the secret of the other side; refuse a webhook that raises this."


class InvalidMessage(OverpaintError):
    """A message that cannot be understood, or a genuine webhook of a newer version."""

    code = "invalid_message"
    remedy = "Mend what sends it, or upgrade this side."


class StorageError(OverpaintError):
    """The store refused for another reason than those below, such as a wrong region or an archived object."""

    code = "storage"
    remedy = "See the message."


class ObjectNotFound(StorageError):
    """There is no such object, bucket or job."""

    code = "object_not_found"
    remedy = "Check the reference or the job's id."


class ObjectExists(StorageError):
    """A conditional write found the key taken."""

    code = "object_exists"
    remedy = "None needed: Overpaint reads what is there."


class ObjectTooLarge(StorageError):
    """The object is larger than its reader's limit."""

    code = "object_too_large"
    remedy = "A smaller object, or a higher limit."


class StorageDenied(StorageError):
    """The store refused the credentials."""

    code = "storage_denied"
    remedy = "Check them and the bucket's policy against the rights that the settings page lists."


class StorageFull(StorageError):
    """No space or quota is left."""

    code = "storage_full"
    retryable = True
    remedy = "Free some."


class LedgerUnreadable(StorageError):
    """A document of the ledger that this version does not understand."""

    code = "ledger_unreadable"
    remedy = "A newer version wrote it: upgrade this one."


class StorageUnavailable(StorageError):
    """The store is down or slow, or its answer was lost."""

    code = "storage_unavailable"
    retryable = True
    remedy = "At submission nothing was accepted for certain: submit the same again, which is safe."


class BrokerUnavailable(OverpaintError):
    """Redis does not answer, or is full."""

    code = "broker_unavailable"
    retryable = True
    remedy = "Start it, make room, or mend `OVERPAINT_REDIS_URL`."


class SourceError(OverpaintError):
    """The source cannot be used for a reason of its own, such as a broken container."""

    code = "source"
    remedy = "See the message."


class SourceEmpty(SourceError):
    """The object has no bytes."""

    code = "source_empty"
    remedy = "Store it again."


class SourceNotAPicture(SourceError):
    """No picture format is recognised."""

    code = "source_not_a_picture"
    remedy = "Store a picture."


class SourceTruncated(SourceError):
    """The file ends too early."""

    code = "source_truncated"
    remedy = "Store it again, whole."


class SourceTooLarge(SourceError):
    """More bytes or pixels than the worker allows; decompression bombs end here."""

    code = "source_too_large"
    remedy = "A smaller picture, or raise `OVERPAINT_MAX_SOURCE_BYTES` or `OVERPAINT_MAX_SOURCE_PIXELS`."


class SourceAnimated(SourceError):
    """Several frames where one picture is wanted."""

    code = "source_animated"
    remedy = "Store one frame."


class UnsafePicture(OverpaintError):
    """The model's safety checker refused what was painted; nothing is stored."""

    code = "unsafe_picture"
    remedy = "Another prompt or seed; the operator chooses with the registry's `safety`."


class EngineError(OverpaintError):
    """Base of what goes wrong on the device."""

    code = "engine"
    remedy = "See the message."


class ModelLoadFailed(EngineError):
    """The registry's entry does not load; at its start the worker ends with status 78."""

    code = "model_load_failed"
    remedy = "Mend the entry or its files."


class ModelUnreachable(ModelLoadFailed):
    """The model's repository cannot be reached, or answers that it is out of order; a worker starts again until it
    can."""

    code = "model_unreachable"
    retryable = True
    remedy = "Mend the network, the proxy or `HF_ENDPOINT`, or keep the model on disk and name its folder as `path`."


class PipelineFailed(EngineError):
    """The diffusers pipeline raised, or made no picture."""

    code = "pipeline_failed"
    retryable = True
    remedy = "See the message; the worker's log has the traceback."


class DeviceOutOfMemory(EngineError):
    """The job does not fit on the device."""

    code = "device_out_of_memory"
    retryable = True
    remedy = "A smaller `prepare.size`, or a larger device."


class EngineDied(EngineError):
    """The engine thread died or hung; the job went back and a new process takes over. Recorded where it happened to
    one job three times."""

    code = "engine_died"
    retryable = True
    remedy = "None, unless it is recorded: then see the workers' logs, and `OVERPAINT_STEP_LIMIT`."


class WorkerStopping(OverpaintError):
    """The worker was told to stop before the job was done; the job went back to the queue."""

    code = "worker_stopping"
    retryable = True
    remedy = "None needed."


class WorkerCrashed(OverpaintError):
    """Three workers died while they worked on the job, the last time with nothing beside it."""

    code = "worker_crashed"
    retryable = True
    remedy = "Look into the workers' logs, then replay its dead letter, or drop it."


class LeaseLost(OverpaintError):
    """Another worker holds the job by now; this one goes no further, and nothing is recorded."""

    code = "lease_lost"
    retryable = True
    remedy = "None needed; if it comes often, see `OVERPAINT_LEASE`."


class InternalError(OverpaintError):
    """A bug in Overpaint."""

    code = "internal"
    retryable = True
    remedy = "Report it with the worker's log."


class JobCancelled(OverpaintError):
    """The job was cancelled; raised to whoever asks for its pictures."""

    code = "cancelled"
    remedy = "Submit it under a new key."


class JobExpired(OverpaintError):
    """The job was not done before its deadline; raised to whoever asks for its pictures."""

    code = "expired"
    remedy = "Submit it under a new key, with a later deadline."


class JobFailed(OverpaintError):
    """The job failed; raised to whoever asks for its pictures."""

    code = "job_failed"
    remedy = "See the failure in its record."


class NotFinished(OverpaintError):
    """The job has no record yet."""

    code = "not_finished"
    remedy = "Wait for it."


class WaitTimeout(OverpaintError):
    """The caller's own limit on waiting has passed; the job goes on."""

    code = "wait_timeout"
    remedy = "Wait again, or cancel it."


def _some(errors: Mapping[str, OverpaintError]) -> str:
    told = "; ".join(f"job {name}: {error}" for name, error in islice(errors.items(), _TOLD))
    return told if len(errors) <= _TOLD else f"{told}; and {len(errors) - _TOLD} more"
