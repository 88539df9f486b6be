"""Every error that Overpaint raises or records.

    OverpaintError
    |-- SettingsError                 settings are missing or contradict each other
    |-- InvalidJob                    the job itself is wrong; no retry can help
    |   |-- InvalidReference          not an s3:// or file:// reference
    |   |-- UnknownModel              no worker's registry has a model of that name
    |   |-- NotServed                 a valid request that this fleet does not serve
    |   |-- StrengthTooSmall          strength x steps leaves no step to run
    |   `-- IdempotencyConflict       the same key came with another body
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

`code` is the stable name that records carry; `retryable` says whether the same job could succeed later.
"""

from __future__ import annotations

from typing import ClassVar


class OverpaintError(Exception):
    """Base of all errors; catch it to catch everything Overpaint raises on purpose."""

    code: ClassVar[str] = "error"
    retryable: ClassVar[bool] = False


class SettingsError(OverpaintError):
    code = "settings"


class InvalidJob(OverpaintError, ValueError):
    code = "invalid_job"


class InvalidReference(InvalidJob):
    code = "invalid_reference"


class UnknownModel(InvalidJob):
    code = "unknown_model"


class NotServed(InvalidJob):
    code = "not_served"


class StrengthTooSmall(InvalidJob):
    code = "strength_too_small"


class IdempotencyConflict(InvalidJob):
    code = "idempotency_conflict"


class ForbiddenReference(OverpaintError):
    code = "forbidden_reference"


class ForbiddenWebhook(OverpaintError):
    code = "forbidden_webhook"


class InvalidSignature(OverpaintError):
    code = "invalid_signature"


class InvalidMessage(OverpaintError):
    code = "invalid_message"


class StorageError(OverpaintError):
    code = "storage"


class ObjectNotFound(StorageError):
    code = "object_not_found"


class ObjectExists(StorageError):
    code = "object_exists"


class ObjectTooLarge(StorageError):
    code = "object_too_large"


class StorageDenied(StorageError):
    code = "storage_denied"


class StorageFull(StorageError):
    code = "storage_full"
    retryable = True


class LedgerUnreadable(StorageError):
    code = "ledger_unreadable"


class StorageUnavailable(StorageError):
    code = "storage_unavailable"
    retryable = True


class BrokerUnavailable(OverpaintError):
    code = "broker_unavailable"
    retryable = True


class SourceError(OverpaintError):
    code = "source"


class SourceEmpty(SourceError):
    code = "source_empty"


class SourceNotAPicture(SourceError):
    code = "source_not_a_picture"


class SourceTruncated(SourceError):
    code = "source_truncated"


class SourceTooLarge(SourceError):
    code = "source_too_large"


class SourceAnimated(SourceError):
    code = "source_animated"


class UnsafePicture(OverpaintError):
    code = "unsafe_picture"


class EngineError(OverpaintError):
    code = "engine"


class ModelLoadFailed(EngineError):
    code = "model_load_failed"


class ModelUnreachable(ModelLoadFailed):
    code = "model_unreachable"
    retryable = True


class PipelineFailed(EngineError):
    code = "pipeline_failed"
    retryable = True


class DeviceOutOfMemory(EngineError):
    code = "device_out_of_memory"
    retryable = True


class EngineDied(EngineError):
    code = "engine_died"
    retryable = True


class WorkerStopping(OverpaintError):
    code = "worker_stopping"
    retryable = True


class WorkerCrashed(OverpaintError):
    code = "worker_crashed"
    retryable = True


class LeaseLost(OverpaintError):
    code = "lease_lost"
    retryable = True


class InternalError(OverpaintError):
    code = "internal"
    retryable = True


class JobCancelled(OverpaintError):
    code = "cancelled"


class JobExpired(OverpaintError):
    code = "expired"


class JobFailed(OverpaintError):
    code = "job_failed"


class NotFinished(OverpaintError):
    code = "not_finished"


class WaitTimeout(OverpaintError):
    code = "wait_timeout"
