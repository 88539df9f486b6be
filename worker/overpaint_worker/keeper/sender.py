"""One try at one webhook: which address, one POST within a time limit, and what its answer means."""

from __future__ import annotations

import ipaddress
import socket
import ssl
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from http.client import HTTPConnection, HTTPException, HTTPResponse
from threading import Timer
from typing import Literal

from pydantic import HttpUrl

from overpaint_common.errors import ForbiddenWebhook
from overpaint_common.receivers import check_webhook, host_of, origin
from overpaint_common.settings import AccessSettings
from overpaint_common.webhooks import PendingWebhook, signed_headers

DEADLINE = 10.0
"""Seconds for a whole request, from the connection to the last byte of the answer's head."""

ANSWER_BYTES = 64 * 1024
"""Of an answer's body that are read, and dropped."""

USER_AGENT = "overpaint-webhook/1"

Address = ipaddress.IPv4Address | ipaddress.IPv6Address
Place = tuple[socket.AddressFamily, tuple[str, int] | tuple[str, int, int, int]]
"""Where to connect to: a family, and an address in its form."""

_UNICAST = ipaddress.IPv6Network("2000::/3")
_NAT64 = ipaddress.IPv6Network("64:ff9b::/96")
_SPECIAL = tuple(map(ipaddress.ip_network, ("192.0.0.0/24", "192.88.99.0/24", "2001::/23", "2002::/16", "3fff::/20")))
"""Protocol assignments, tunnels and examples, which `ipaddress` counts as public in one Python or another."""


@dataclass(frozen=True, slots=True)
class Outcome:
    """What became of one try."""

    what: Literal["delivered", "gone", "failed"]
    error: str = ""
    """Why not, without anything of the URL but its origin, or of the answer but its status."""
    answered: bool = True
    """Whether the receiver answered in time."""
    retry_after: float | None = None
    """Seconds that the receiver asked to be left alone."""


class Sender:
    """Signs webhooks and posts them. Safe to share between threads; keeps no connection."""

    def __init__(
        self,
        allowed: Sequence[str],
        keys: Sequence[bytes],
        *,
        private: bool = False,
        deadline: float = DEADLINE,
        resolve: Callable[[str, int], Sequence[Place]] | None = None,
    ) -> None:
        """`allowed`: receivers as in OVERPAINT_WEBHOOKS; `keys`: what to sign with; `private`: whether addresses that
        are not public may be sent to; `resolve`: another way to look names up.

        The certificates to trust are the system's, or those that SSL_CERT_FILE names.
        """
        self._allowed = tuple(allowed)
        self._keys = tuple(keys)
        self._private = private
        self._deadline = deadline
        self._resolve = resolve or look_up
        self._tls = ssl.create_default_context()

    @classmethod
    def of(cls, settings: AccessSettings) -> Sender:
        return cls(settings.webhooks, settings.webhook_keys, private=settings.webhook_private)

    def send(self, pending: PendingWebhook) -> Outcome:
        """Try once; raises nothing."""
        began = time.monotonic()
        try:
            check_webhook(pending.webhook, self._allowed)
            status, retry_after = self._post(pending, began + self._deadline)
        except ForbiddenWebhook as error:
            return Outcome("failed", str(error), answered=False)
        except Exception as error:  # Whatever a receiver brings about must cost nobody but itself.
            late = time.monotonic() - began >= self._deadline
            text = f"no answer within {self._deadline:g} s" if late else _named(error)
            return Outcome("failed", text, answered=False)
        return judge(status, retry_after)

    def _post(self, pending: PendingWebhook, until: float) -> tuple[int, str | None]:
        url, body = pending.webhook, pending.event.body()
        headers = {
            "Host": origin(url).removeprefix("http://"),
            "Content-Type": "application/json",
            "User-Agent": USER_AGENT,
            "Connection": "close",
            **signed_headers(pending.event.id, int(time.time()), body, self._keys),
        }
        target = (url.path or "/") + (f"?{url.query}" if url.query else "")
        with self._connected(url, until) as connection:
            connection.request("POST", target, body, headers)
            with connection.getresponse() as response:
                if time.monotonic() >= until:  # Cut off within the head, which looks like its end.
                    raise TimeoutError
                _drop_body(response)
                return response.status, response.headers.get("Retry-After")

    @contextmanager
    def _connected(self, url: HttpUrl, until: float) -> Iterator[HTTPConnection]:
        host, port = host_of(url).strip("[]"), url.port or 443
        raw = _connect(self._places(origin(url), host, port), until)
        with raw, _cut_at(raw, until):
            connection = HTTPConnection(host, port)
            # http.client is given its socket, so it connects to nothing but the address that was checked.
            connection.sock = self._tls.wrap_socket(raw, server_hostname=host) if url.scheme == "https" else raw
            try:
                yield connection
            finally:
                connection.close()

    def _places(self, named: str, host: str, port: int) -> Sequence[Place]:
        places = self._resolve(host, port)
        refused = [] if self._private else [str(place[1][0]) for place in places if not is_public(place[1][0])]
        if refused:
            raise ForbiddenWebhook(
                f"webhook to {named}: leads to {', '.join(refused)}, which is no public address; have the operator set "
                "OVERPAINT_WEBHOOK_PRIVATE if that is meant"
            )
        return places


def judge(status: int, retry_after: str | None = None) -> Outcome:
    """What an answer means: 2xx is delivered, 410 is not to be tried again, all others are."""
    if 200 <= status < 300:
        return Outcome("delivered")
    if status == 410:
        return Outcome("gone", "answered 410: there is no such receiver any more")
    if 300 <= status < 400:
        return Outcome("failed", f"answered {status}: redirects are not followed, the job has to name the last URL")
    pause = _seconds(retry_after) if status in (429, 503) else None
    return Outcome("failed", f"answered {status}", retry_after=pause)


def look_up(host: str, port: int) -> list[Place]:
    """Where a host is, in the order in which to try; raises OSError."""
    found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
    return [(family, address) for family, _, _, _, address in found]  # type: ignore[misc]


def is_public(text: str) -> bool:
    """Whether an IP address belongs to one machine of the public internet."""
    address: Address = ipaddress.ip_address(text)
    if isinstance(address, ipaddress.IPv6Address):
        inner = _inner(address)
        if inner is not None:
            return is_public(str(inner))
        if address not in _UNICAST:
            return False
    special = address.is_multicast or address.is_reserved or any(address in network for network in _SPECIAL)
    return address.is_global and not special


def _inner(address: ipaddress.IPv6Address) -> ipaddress.IPv4Address | None:
    """The IPv4 address that is meant by a mapped one, or by one of NAT64."""
    if address in _NAT64:
        return ipaddress.IPv4Address(int(address) & 0xFFFFFFFF)
    return address.ipv4_mapped


def _connect(places: Sequence[Place], until: float) -> socket.socket:
    """A connection to the first place that takes one; its operations time out at `until` at the latest."""
    error: OSError = OSError("no address")
    for left, (family, address) in zip(range(len(places), 0, -1), places, strict=True):
        connection = socket.socket(family, socket.SOCK_STREAM)
        try:
            # Those that come later in the list have their share of the time too.
            connection.settimeout(max(until - time.monotonic(), 0.001) / left)
            connection.connect(address)
            connection.settimeout(max(until - time.monotonic(), 0.001))
            return connection
        except OSError as refused:
            connection.close()
            error = refused
    raise error


@contextmanager
def _cut_at(connection: socket.socket, until: float) -> Iterator[None]:
    """Shut the connection down at that time, so that a receiver cannot win more by sending a byte now and then."""

    def cut() -> None:
        with suppress(OSError):
            handle.shutdown(socket.SHUT_RDWR)

    # A second handle: TLS takes the first one over.
    with connection.dup() as handle:
        timer = Timer(max(until - time.monotonic(), 0), cut)
        timer.daemon = True
        timer.start()
        try:
            yield
        finally:
            timer.cancel()
            timer.join()


def _drop_body(response: HTTPResponse) -> None:
    """Take some of the body in, since many receivers report an error if nobody does; the status has told all."""
    with suppress(OSError, HTTPException, ValueError):
        response.read(ANSWER_BYTES)


def _named(error: Exception) -> str:
    """An error without what it may quote of the URL or of the answer."""
    if isinstance(error, ssl.SSLCertVerificationError):
        return f"its certificate is not trusted: {error.verify_message}"
    if isinstance(error, socket.gaierror):
        return f"its host is not found: {error.strerror}"
    if isinstance(error, ssl.SSLError):
        return f"TLS failed: {error.reason or type(error).__name__}"
    if isinstance(error, TimeoutError):
        return "no answer in time"
    if isinstance(error, OSError) and error.strerror:
        return error.strerror
    return type(error).__name__


def _seconds(retry_after: str | None) -> float | None:
    """A Retry-After header as seconds from now."""
    text = (retry_after or "").strip()
    if text.isascii() and text.isdecimal():
        return float(text)
    with suppress(ValueError, OverflowError):
        moment = parsedate_to_datetime(text)
        if moment.tzinfo is not None:
            return max((moment - datetime.now(UTC)).total_seconds(), 0.0)
    return None
