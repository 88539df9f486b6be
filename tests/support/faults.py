"""What `faulty_http` can do to one HTTP exchange."""

from __future__ import annotations

import socket
import struct
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler
from threading import Event

HOP_BY_HOP = {"connection", "keep-alive", "transfer-encoding", "expect", "te", "upgrade"}


@dataclass(frozen=True)
class Request:
    method: str
    path: str
    """With its query string."""
    headers: dict[str, str]
    """Names in lower case."""
    body: bytes


@dataclass(frozen=True)
class Answer:
    status: int
    headers: list[tuple[str, str]]
    body: bytes


class Exchange:
    """One request on its way: what a fault may do with it."""

    def __init__(
        self, request: Request, handler: BaseHTTPRequestHandler, ask: Callable[[Request], Answer], closing: Event
    ) -> None:
        self.request = request
        self._handler = handler
        self._ask = ask
        self._closing = closing

    def forward(self) -> Answer:
        """Pass the request on; when this returns the server has acted on it."""
        return self._ask(self.request)

    def reply(self, answer: Answer, *, body_bytes: int | None = None) -> None:
        """Answer the client; only the first `body_bytes` of the body are sent, though all are announced."""
        handler = self._handler
        handler.send_response_only(answer.status)
        for name, value in answer.headers:
            if name.lower() not in HOP_BY_HOP:
                handler.send_header(name, value)
        if not any(name.lower() == "content-length" for name, _ in answer.headers):
            handler.send_header("Content-Length", str(len(answer.body)))
        handler.end_headers()
        if self.request.method != "HEAD":
            handler.wfile.write(answer.body[:body_bytes])
        handler.wfile.flush()

    def hang_up(self) -> None:
        """Close the connection, after what was sent so far."""
        self._handler.close_connection = True
        with suppress(OSError):
            self._handler.connection.shutdown(socket.SHUT_RDWR)

    def reset(self) -> None:
        """Abort the connection with a TCP reset."""
        self._handler.close_connection = True
        self._handler.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self._handler.connection.close()

    def wait(self, seconds: float) -> None:
        """Do nothing for a while; ends early when the proxy closes."""
        self._closing.wait(seconds)


Fault = Callable[[Exchange], None]
Predicate = Callable[[Request], bool]


def requests(method: str | None = None, path_part: str = "") -> Predicate:
    """Requests of that method (any by default) whose path and query contain `path_part`."""
    return lambda request: method in (None, request.method) and path_part in request.path


def delay(seconds: float) -> Fault:
    """Latency: answer correctly, but later."""

    def fault(exchange: Exchange) -> None:
        exchange.wait(seconds)
        exchange.reply(exchange.forward())

    return fault


def drop_response() -> Fault:
    """The server acts on the request, and its answer is lost."""

    def fault(exchange: Exchange) -> None:
        exchange.forward()
        exchange.hang_up()

    return fault


def reset() -> Fault:
    """The connection is reset before the server sees the request. For a refused connection: `FaultyProxy.down()`."""
    return Exchange.reset


def answer(status: int, code: str) -> Fault:
    """An S3 error answer; the server never sees the request."""
    xml = f"<Error><Code>{code}</Code><Message>a fault on purpose</Message></Error>"
    reply = Answer(status, [("Content-Type", "application/xml")], xml.encode())
    return lambda exchange: exchange.reply(reply)


def truncate(keep: int) -> Fault:
    """The answer's body breaks off after `keep` bytes."""

    def fault(exchange: Exchange) -> None:
        exchange.reply(exchange.forward(), body_bytes=keep)
        exchange.hang_up()

    return fault


def corrupt(position: int = 0) -> Fault:
    """One byte of the answer's body is another one, its length unchanged."""

    def fault(exchange: Exchange) -> None:
        true = exchange.forward()
        body = bytearray(true.body)
        body[position] ^= 0xFF
        exchange.reply(Answer(true.status, true.headers, bytes(body)))

    return fault


def hang(seconds: float) -> Fault:
    """No answer for `seconds`, then a closed connection; the server never sees the request."""

    def fault(exchange: Exchange) -> None:
        exchange.wait(seconds)
        exchange.hang_up()

    return fault
