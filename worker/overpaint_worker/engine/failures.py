"""What the one who waits for a call is told when something raises."""

from __future__ import annotations

import logging

from overpaint_common.errors import DeviceOutOfMemory, ModelLoadFailed, OverpaintError, PipelineFailed

log = logging.getLogger(__name__)


def poisons_device(error: BaseException) -> bool:
    """Whether every later call on the device will fail too, as after a failed kernel on CUDA."""
    # The class is looked up by name because this module stays free of torch.
    return type(error).__name__ == "AcceleratorError" or "CUDA error" in str(error)


def out_of_memory(error: BaseException) -> bool:
    """Whether the device had no memory for it."""
    return type(error).__name__ == "OutOfMemoryError"


def as_outcome(error: Exception) -> OverpaintError:
    """The error for the one who waits; bare, because the frames of a traceback hold tensors.

    Raises `error` itself where the device is beyond repair.
    """
    reason = error.__cause__ if isinstance(error, ModelLoadFailed) and error.__cause__ else error
    if poisons_device(reason):
        raise error
    message = describe(reason)[:1000]
    if out_of_memory(reason):
        log.warning("device out of memory: %s", message)
        return DeviceOutOfMemory(f"the device ran out of memory ({message}); use a smaller size, or a larger device")
    if isinstance(error, OverpaintError):
        if error is not reason:
            log.error("model not loaded", exc_info=error)
        error.__cause__ = error.__context__ = None
        return error.with_traceback(None)
    log.error("pipeline failed", exc_info=error)
    return PipelineFailed(f"the pipeline raised {message}")


def describe(error: BaseException) -> str:
    return f"{type(error).__name__}: {error}".removesuffix(": ")
