"""A recording reverse proxy on loopback that misbehaves on request, to stand in front of an HTTP server.

    with FaultyProxy(upstream) as proxy:
        rule = proxy.on(requests("PUT", "/record.json"), drop_response(), times=1)
        ...                       # talk to proxy.url instead of the upstream
        assert rule.hits == 1

The newest rule that matches and is not used up decides what happens to a request; without one it passes untouched.
The Host header passes untouched too, so signatures stay valid where the server does not care for its own name.
"""

from __future__ import annotations

import http.client
import socket
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Event, Lock, Thread
from types import TracebackType
from typing import Any
from urllib.parse import urlsplit

from tests.support.faults import (
    HOP_BY_HOP,
    Answer,
    Exchange,
    Fault,
    Predicate,
    Request,
    answer,
    corrupt,
    delay,
    drop_response,
    hang,
    requests,
    reset,
    truncate,
)
from tests.support.rules import Rule, Rules

__all__ = [
    "Answer",
    "Exchange",
    "Fault",
    "FaultyProxy",
    "Predicate",
    "Request",
    "Rule",
    "answer",
    "corrupt",
    "delay",
    "drop_response",
    "hang",
    "requests",
    "reset",
    "truncate",
]


class FaultyProxy:
    """See the top of this file. Safe to use from several threads; reachable from other processes."""

    def __init__(self, upstream: str) -> None:
        address = urlsplit(upstream)
        if address.scheme != "http" or not address.hostname:
            raise ValueError(f"upstream {upstream!r}: only http:// servers can be proxied")
        self._upstream = (address.hostname, address.port or 80)
        self._rules: Rules[Request, Fault] = Rules()
        self._recorded: list[Request] = []
        self._lock = Lock()
        self._connections: set[socket.socket] = set()
        self.closing = Event()
        self._server, self._thread = self._listen(0)
        self._port = self._server.server_port

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self._port}"

    @property
    def recorded(self) -> list[Request]:
        """All requests so far, in the order of their arrival."""
        with self._lock:
            return list(self._recorded)

    def on(self, matches: Predicate, fault: Fault, *, times: int | None = None) -> Rule[Request, Fault]:
        """Apply `fault` to matching requests, `times` of them or (None) all."""
        return self._rules.add(matches, fault, times)

    def clear(self) -> None:
        """Forget all rules and recorded requests."""
        self._rules.clear()
        with self._lock:
            self._recorded.clear()

    @contextmanager
    def down(self) -> Iterator[None]:
        """Inside, connections are refused and open ones are closed; afterwards the proxy serves the same port again."""
        self._stop()
        try:
            yield
        finally:
            self._server, self._thread = self._listen(self._port)

    def __enter__(self) -> FaultyProxy:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, tb: TracebackType | None) -> None:
        self.closing.set()
        self._stop()

    def ask_upstream(self, request: Request) -> Answer:
        connection = http.client.HTTPConnection(*self._upstream, timeout=60)
        try:
            connection.putrequest(request.method, request.path, skip_host=True, skip_accept_encoding=True)
            for name, value in request.headers.items():
                if name not in HOP_BY_HOP and name != "content-length":
                    connection.putheader(name, value)
            connection.putheader("Content-Length", str(len(request.body)))
            connection.endheaders(request.body)
            response = connection.getresponse()
            return Answer(response.status, response.getheaders(), response.read())
        finally:
            connection.close()

    def handle(self, exchange: Exchange) -> None:
        with self._lock:
            self._recorded.append(exchange.request)
        rule = self._rules.meet(exchange.request)
        if rule:
            rule.fault(exchange)
        else:
            exchange.reply(exchange.forward())

    def track(self, connection: socket.socket, *, opened: bool) -> None:
        with self._lock:
            (self._connections.add if opened else self._connections.discard)(connection)

    def _listen(self, port: int) -> tuple[ThreadingHTTPServer, Thread]:
        server = _Server(("127.0.0.1", port), type("Handler", (_Handler,), {"proxy": self}))
        thread = Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02}, name="faulty-proxy", daemon=True)
        thread.start()
        return server, thread

    def _stop(self) -> None:
        self._server.shutdown()
        self._thread.join()
        self._server.server_close()
        with self._lock:
            connections = list(self._connections)
        for connection in connections:
            with suppress(OSError):
                connection.shutdown(socket.SHUT_RDWR)


class _Server(ThreadingHTTPServer):
    request_queue_size = 128
    daemon_threads = True

    def handle_error(self, *_: Any) -> None:
        """A client that went away, or a connection cut on purpose, is no news."""


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True
    proxy: FaultyProxy

    def setup(self) -> None:
        super().setup()
        self.proxy.track(self.connection, opened=True)

    def finish(self) -> None:
        self.proxy.track(self.connection, opened=False)
        with suppress(OSError, ValueError):
            super().finish()

    def log_message(self, *_: Any) -> None:
        """The proxy records requests instead of printing them."""

    def _serve(self) -> None:
        headers = {name.lower(): value for name, value in self.headers.items()}
        request = Request(self.command, self.path, headers, self._body(headers))
        self.proxy.handle(Exchange(request, self, self.proxy.ask_upstream, self.proxy.closing))

    do_GET = do_HEAD = do_PUT = do_POST = do_DELETE = _serve

    def _body(self, headers: dict[str, str]) -> bytes:
        if "chunked" not in headers.get("transfer-encoding", ""):
            return self.rfile.read(int(headers.get("content-length", 0)))
        parts = []
        while size := int(self.rfile.readline().split(b";")[0], 16):
            parts.append(self.rfile.read(size))
            self.rfile.readline()
        while self.rfile.readline().strip():
            pass
        return b"".join(parts)
