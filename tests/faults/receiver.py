"""A receiver of webhooks on loopback."""

from __future__ import annotations

import json
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Lock, Thread
from types import TracebackType
from typing import Any

SECRET = "whsec_dGhpcyBpcyBhIHNlY3JldCBmb3IgdGVzdHMgb25seSE="


class Receiver:
    """Remembers which jobs it was told of. `refusals` is how many of the next requests it answers with 503."""

    def __init__(self) -> None:
        self.refusals = 0
        self._told: list[str] = []
        self._lock = Lock()
        self._server = _Server(("127.0.0.1", 0), type("Handler", (_Handler,), {"receiver": self}))
        self._thread = Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True)
        self._thread.start()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self._server.server_port}"

    @property
    def told(self) -> list[str]:
        """Ids of the jobs, one for each request that was answered well."""
        with self._lock:
            return list(self._told)

    def take(self, body: bytes) -> int:
        """The status to answer a request with."""
        with self._lock:
            if self.refusals > 0:
                self.refusals -= 1
                return 503
            self._told.append(json.loads(body)["job_id"])
            return 204

    def __enter__(self) -> Receiver:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, tb: TracebackType | None) -> None:
        self._server.shutdown()
        self._thread.join()
        self._server.server_close()


class _Server(ThreadingHTTPServer):
    daemon_threads = True


class _Handler(BaseHTTPRequestHandler):
    receiver: Receiver

    def do_POST(self) -> None:
        status = self.receiver.take(self.rfile.read(int(self.headers["content-length"])))
        self.send_response(status)
        self.send_header("Content-Length", "0")
        self.end_headers()

    def log_message(self, *_: Any) -> None:
        """Nothing."""
