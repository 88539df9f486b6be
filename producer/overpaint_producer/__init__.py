"""What a backend imports to submit image-to-image jobs and get pictures back. Imports no torch.

Names are loaded when first used: the command line imports this package too, and must not wait for boto3 and Celery to
print its help.
"""

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from overpaint_common.errors import (
        ForbiddenReference,
        IdempotencyConflict,
        InvalidJob,
        InvalidSignature,
        JobCancelled,
        JobExpired,
        JobFailed,
        JobsRefused,
        NotFinished,
        OverpaintError,
        PartlySubmitted,
        WaitTimeout,
    )
    from overpaint_common.job import Job, Output, Prepare
    from overpaint_common.live import Progress
    from overpaint_common.passes import Control, Edit, Img2Img, Inpaint, Lora, MatchColor, Upscale
    from overpaint_common.result import Result
    from overpaint_common.webhooks import WebhookEvent, verify_webhook
    from overpaint_producer.aio import AsyncJobHandle, AsyncProducer
    from overpaint_producer.handle import JobHandle
    from overpaint_producer.producer import Producer

__all__ = [
    "AsyncJobHandle",
    "AsyncProducer",
    "Control",
    "Edit",
    "ForbiddenReference",
    "IdempotencyConflict",
    "Img2Img",
    "Inpaint",
    "InvalidJob",
    "InvalidSignature",
    "Job",
    "JobCancelled",
    "JobExpired",
    "JobFailed",
    "JobHandle",
    "JobsRefused",
    "Lora",
    "MatchColor",
    "NotFinished",
    "Output",
    "OverpaintError",
    "PartlySubmitted",
    "Prepare",
    "Producer",
    "Progress",
    "Result",
    "Upscale",
    "WaitTimeout",
    "WebhookEvent",
    "verify_webhook",
]

_HOMES = {
    "overpaint_common.errors": (
        "ForbiddenReference",
        "IdempotencyConflict",
        "InvalidJob",
        "InvalidSignature",
        "JobCancelled",
        "JobExpired",
        "JobFailed",
        "JobsRefused",
        "NotFinished",
        "OverpaintError",
        "PartlySubmitted",
        "WaitTimeout",
    ),
    "overpaint_common.job": ("Job", "Output", "Prepare"),
    "overpaint_common.live": ("Progress",),
    "overpaint_common.passes": ("Control", "Edit", "Img2Img", "Inpaint", "Lora", "MatchColor", "Upscale"),
    "overpaint_common.result": ("Result",),
    "overpaint_common.webhooks": ("WebhookEvent", "verify_webhook"),
    "overpaint_producer.aio": ("AsyncJobHandle", "AsyncProducer"),
    "overpaint_producer.handle": ("JobHandle",),
    "overpaint_producer.producer": ("Producer",),
}


def __getattr__(name: str) -> object:
    home = next((module for module, names in _HOMES.items() if name in names), None)
    if home is None:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value: object = getattr(import_module(home), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return __all__
