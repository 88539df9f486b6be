"""Tells producers, every few seconds, that this worker is alive and what it serves."""

from __future__ import annotations

import logging
import threading

from overpaint_common.errors import BrokerUnavailable
from overpaint_common.fleet import ModelCard, WorkerCard
from overpaint_common.live import WORKER_TTL, Live

log = logging.getLogger(__name__)


class Announcer:
    """Renews the worker's card until stopped, then withdraws it."""

    def __init__(self, live: Live, worker: WorkerCard, cards: list[ModelCard]) -> None:
        self._live = live
        self._worker = worker
        self._cards = cards
        self._stopped = threading.Event()
        self._thread = threading.Thread(target=self._loop, name="announcer", daemon=True)

    def start(self) -> None:
        self._thread.start()

    def stop(self) -> None:
        self._stopped.set()
        self._thread.join()

    def _loop(self) -> None:
        while not self._stopped.is_set():
            try:
                self._live.announce(self._worker, self._cards)
            except BrokerUnavailable as error:
                log.warning("not announced: %s", error)
            except Exception:
                log.exception("not announced")
            self._stopped.wait(WORKER_TTL / 3)
        try:
            self._live.withdraw(self._worker.name)
        except BrokerUnavailable as error:
            log.warning("not withdrawn, the card expires by itself: %s", error)
