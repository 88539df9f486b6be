"""Publishes progress and previews to Redis from a thread of its own, so that nobody who makes them waits for Redis."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Mapping

from overpaint_common.errors import BrokerUnavailable
from overpaint_common.live import Live, Progress

log = logging.getLogger(__name__)

MAX_KEPT = 1000
"""Moments of one job kept while Redis is down; older ones are forgotten."""


MakePreview = Callable[[], bytes]


class Reporter:
    """Collects moments and sends them in batches, each job's newest preview with them; learns on the way which jobs are
    to be cancelled."""

    def __init__(self, live: Live) -> None:
        self._live = live
        lock = threading.RLock()
        self._lock = threading.Condition(lock)
        self._sent = threading.Condition(lock)
        self._moments: dict[str, list[Progress]] = {}
        self._sending: dict[str, list[Progress]] = {}
        self._previews: dict[str, MakePreview] = {}
        self._watched: dict[str, threading.Event] = {}
        self._stopping = False
        self._thread = threading.Thread(target=self._loop, name="reporter", daemon=True)

    def start(self) -> None:
        self._thread.start()

    def stop(self) -> None:
        """Send what is left, if Redis answers, and end the thread."""
        with self._lock:
            self._stopping = True
            self._lock.notify()
        self._thread.join()

    def watch(self, job_id: str, cancelled: threading.Event) -> None:
        """Set `cancelled` when somebody cancels the job, and take its previews; `forget` the job afterwards."""
        with self._lock:
            self._watched[job_id] = cancelled

    def forget(self, job_id: str) -> None:
        with self._lock:
            self._watched.pop(job_id, None)
            self._previews.pop(job_id, None)

    def post(self, job_id: str, moment: Progress) -> None:
        """Publish one moment soon; never blocks on Redis."""
        with self._lock:
            moments = self._moments.setdefault(job_id, [])
            moments.append(moment)
            del moments[:-MAX_KEPT]
            self._lock.notify()

    def show(self, job_id: str, preview: MakePreview) -> None:
        """Publish the file that `preview` makes, soon and on another thread, unless a newer one comes before.

        Only of a job that is watched: an abandoned one may still be painting. What `preview` raises costs the preview.
        """
        with self._lock:
            if job_id in self._watched:
                self._previews[job_id] = preview
                self._lock.notify()

    def flush(self, job_id: str, patience: float) -> None:
        """Wait until Redis has what was posted of a job, for up to `patience` seconds."""
        with self._lock:
            self._sent.wait_for(lambda: job_id not in self._moments and job_id not in self._sending, patience)

    def _loop(self) -> None:
        while True:
            with self._lock:
                while not self._moments and not self._previews and not self._stopping:
                    self._lock.wait()
                batch, self._moments = self._moments, {}
                previews, self._previews = self._previews, {}
                self._sending, stopping = batch, self._stopping
            if not batch or self._send(batch):
                self._send_previews(previews)
            elif stopping:
                return
            else:
                threading.Event().wait(1.0)
            if stopping and not batch:
                return

    def _send_previews(self, previews: Mapping[str, MakePreview]) -> None:
        """Make and send them; those that cannot be sent are forgotten, for newer ones will come."""
        files = {}
        for job_id, make in previews.items():
            try:
                files[job_id] = make()
            except Exception:
                log.exception("preview forgotten job=%s", job_id)
        try:
            if files:
                self._live.show(files)
        except BrokerUnavailable as error:
            log.warning("previews forgotten jobs=%d: %s", len(files), error)
        except Exception:
            log.exception("previews forgotten jobs=%d", len(files))

    def _send(self, batch: dict[str, list[Progress]]) -> bool:
        cancelled: set[str] = set()
        try:
            cancelled = self._live.report(batch)
        except BrokerUnavailable as error:
            log.warning("progress not published: %s", error)
            with self._lock:
                self._sending = {}
                for job_id, moments in batch.items():
                    self._moments[job_id] = (moments + self._moments.get(job_id, []))[-MAX_KEPT:]
            return False
        except Exception:
            log.exception("progress forgotten jobs=%d", len(batch))
        with self._lock:
            self._sending = {}
            self._sent.notify_all()
            for job_id in cancelled & self._watched.keys():
                self._watched[job_id].set()
        return True
