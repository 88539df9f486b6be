"""Trying again what an outage interrupts, while it would be a waste to start the job anew."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable
from typing import TypeVar

from overpaint_common.errors import OverpaintError

log = logging.getLogger(__name__)

FIRST_PAUSE = 0.5
LONGEST_PAUSE = 15.0

_Result = TypeVar("_Result")


def insist(
    action: Callable[[], _Result],
    *,
    on: type[OverpaintError],
    seconds: float,
    leaving: threading.Event | None = None,
) -> _Result:
    """Repeat `action` with growing pauses while it raises `on`, for about `seconds`, then let the error through.

    Stops early, with the error, once `leaving` is set.
    """
    deadline, wait = time.monotonic() + seconds, FIRST_PAUSE
    leaving = leaving or threading.Event()
    while True:
        try:
            return action()
        except on as error:
            if time.monotonic() + wait > deadline or leaving.is_set():
                raise
            log.warning("trying again in %.1f s code=%s: %s", wait, error.code, error)
            leaving.wait(wait)
            wait = min(wait * 2, LONGEST_PAUSE)
