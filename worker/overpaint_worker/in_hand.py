"""Which jobs this process works on."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager


class InHand:
    """Keeps two tickets of one job from being worked on side by side in one process."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._jobs: set[str] = set()

    @contextmanager
    def claim(self, job_id: str) -> Iterator[bool]:
        """Yields whether the job is the caller's, until the block ends."""
        with self._lock:
            free = job_id not in self._jobs
            self._jobs.add(job_id)
        try:
            yield free
        finally:
            if free:
                with self._lock:
                    self._jobs.discard(job_id)
