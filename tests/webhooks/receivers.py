"""Receivers of webhooks for tests: real HTTP servers on loopback that answer as they are told."""

from __future__ import annotations

import queue
import socket
import ssl
import threading
from collections import deque
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Event, Thread


@dataclass(frozen=True)
class Arrived:
    """One request as it came."""

    path: str
    headers: Mapping[str, str]
    body: bytes


@dataclass(frozen=True)
class Answer:
    status: int = 204
    headers: Mapping[str, str] = field(default_factory=dict)
    after: Event | None = None
    """Answer only once this is set."""


class Receiver:
    """A running receiver: what came, and what it is to answer; without orders it answers 204."""

    def __init__(self, server: ThreadingHTTPServer, scheme: str) -> None:
        self.port: int = server.server_address[1]
        self.scheme = scheme
        self.arrived: queue.Queue[Arrived] = queue.Queue()
        self.answers: deque[Answer] = deque()
        self.always = Answer()

    @property
    def url(self) -> str:
        return f"{self.scheme}://127.0.0.1:{self.port}"

    def took(self, seconds: float = 10.0) -> Arrived:
        """The next request; fails unless one comes in time."""
        return self.arrived.get(timeout=seconds)

    def answer(self) -> Answer:
        try:
            return self.answers.popleft()
        except IndexError:
            return self.always


@contextmanager
def receiver(tls: ssl.SSLContext | None = None) -> Iterator[Receiver]:
    """An HTTP receiver on a free loopback port, over TLS where a context is given."""

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["Content-Length"]))
            answer = running.answer()
            running.arrived.put(Arrived(self.path, dict(self.headers.items()), body))
            if answer.after is not None:
                answer.after.wait(30)
            self.send_response(answer.status)
            for name, value in answer.headers.items():
                self.send_header(name, value)
            self.end_headers()

        def log_message(self, *_: object) -> None:
            pass

    class Server(ThreadingHTTPServer):
        daemon_threads = True
        request_queue_size = 128

        def handle_error(self, *_: object) -> None:
            """A sender that hangs up is no error of the test."""

    server = Server(("127.0.0.1", 0), Handler)
    if tls is not None:
        server.socket = tls.wrap_socket(server.socket, server_side=True, do_handshake_on_connect=False)
    running = Receiver(server, "https" if tls else "http")
    thread = Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True)
    thread.start()
    try:
        yield running
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


@contextmanager
def peer(talk: Callable[[socket.socket, Event], None]) -> Iterator[str]:
    """A server that reads one request's first bytes and then does `talk` until told to end; yields its URL."""
    ending = threading.Event()

    def serve() -> None:
        connection, _ = listener.accept()
        with connection, suppress(OSError):  # The sender may hang up first.
            connection.recv(65536)
            talk(connection, ending)

    with socket.create_server(("127.0.0.1", 0)) as listener:
        thread = Thread(target=serve, daemon=True)
        thread.start()
        try:
            yield f"http://127.0.0.1:{listener.getsockname()[1]}"
        finally:
            ending.set()
            thread.join(5)
