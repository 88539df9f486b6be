"""What an S3 server did, as seen on its way back: the one account of a run that none of our code has written."""

from __future__ import annotations

import time
from dataclasses import dataclass
from urllib.parse import unquote, urlsplit

from tests.support.faults import Answer, Exchange, Request
from tests.support.faulty_http import FaultyProxy

SUCCEEDED = range(200, 300)


@dataclass(frozen=True, slots=True)
class Write:
    """A request that changes the store, and what the server said to it, whether or not the client heard it."""

    at: float
    """Monotonic time in seconds, when the server had answered."""
    method: str
    key: str
    """Without its bucket."""
    status: int
    etag: str
    """Of a PUT that succeeded, else empty."""

    @property
    def succeeded(self) -> bool:
        return self.status in SUCCEEDED


class RecordingProxy(FaultyProxy):
    """A FaultyProxy for path-style S3 that remembers writes in place of requests, so that it can run for long."""

    def __init__(self, upstream: str) -> None:
        self._writes: list[Write] = []
        self.records = 0
        """Records that were put."""
        super().__init__(upstream)

    @property
    def writes(self) -> list[Write]:
        """All PUT, POST and DELETE that the server has answered, in that order."""
        with self._lock:
            return list(self._writes)

    def forget_writes(self, *, after: int) -> None:
        """Keep only the first `after` writes."""
        with self._lock:
            del self._writes[after:]

    def clear_rules(self) -> None:
        """No faults any more; what was recorded stays."""
        self._rules.clear()

    def handle(self, exchange: Exchange) -> None:
        rule = self._rules.meet(exchange.request)
        if rule:
            rule.fault(exchange)
        else:
            exchange.reply(exchange.forward())

    def ask_upstream(self, request: Request) -> Answer:
        answer = super().ask_upstream(request)
        if request.method in ("PUT", "POST", "DELETE"):
            key = unquote(urlsplit(request.path).path).removeprefix("/").partition("/")[2]
            headers = {name.lower(): value for name, value in answer.headers}
            etag = headers.get("etag", "") if answer.status in SUCCEEDED else ""
            with self._lock:
                self.records += request.method == "PUT" and key.endswith("/record.json") and bool(etag)
                self._writes.append(Write(time.monotonic(), request.method, key, answer.status, etag.strip('"')))
        return answer
