"""One try at one webhook over real sockets: which addresses, how long, over which TLS, and what an answer means."""

from __future__ import annotations

import socket
import time
from collections.abc import Callable, Iterator, Sequence
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from pathlib import Path
from threading import Event

import pytest
from pydantic import HttpUrl

from overpaint_common.webhooks import PendingWebhook, WebhookEvent
from overpaint_producer import verify_webhook
from overpaint_worker.keeper.sender import Outcome, Place, Sender, is_public, judge
from tests.support.tls import certificate
from tests.webhooks.conftest import KEY, SECRET
from tests.webhooks.receivers import Answer, Receiver, peer, receiver

EVENT = WebhookEvent(
    id="job-number-1_0123456789ab",
    type="job.succeeded",
    job_id="job-number-1",
    status="succeeded",
    finished_at=datetime(2026, 3, 1, 9, tzinfo=UTC),
)
ANY = ("*", "http://*")


def pending(url: str) -> PendingWebhook:
    return PendingWebhook(webhook=HttpUrl(url), event=EVENT, handed_over_at=datetime.now(UTC))


def at(*ports: int) -> Callable[[str, int], Sequence[Place]]:
    """A resolver by which every host is on loopback, on these ports."""
    return lambda _host, _port: [(socket.AF_INET, ("127.0.0.1", port)) for port in ports]


def sender(
    url: str = "",
    *,
    private: bool = True,
    deadline: float = 5.0,
    resolve: Callable[[str, int], Sequence[Place]] | None = None,
) -> Sender:
    """A sender that may send to `url`, or anywhere."""
    return Sender(
        (url,) if url else ("http://*:8000", *ANY), [KEY], private=private, deadline=deadline, resolve=resolve
    )


@pytest.fixture
def running() -> Iterator[Receiver]:
    with receiver() as started:
        yield started


def test_a_webhook_arrives_signed(running: Receiver) -> None:
    """Given a receiver, when a webhook is sent, then method, path, query, host and body arrive, and it verifies."""
    outcome = sender(running.url).send(pending(f"{running.url}/a%20b?token=1&x=%C3%A9"))
    arrived = running.took()
    assert outcome == Outcome("delivered")
    assert arrived.path == "/a%20b?token=1&x=%C3%A9"
    assert arrived.headers["Host"] == f"127.0.0.1:{running.port}"
    assert arrived.headers["Content-Type"] == "application/json"
    assert verify_webhook(arrived.headers, arrived.body, SECRET) == EVENT


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost", "0.0.0.0", "2130706433", "[::1]", "[::ffff:127.0.0.1]"])
def test_private_places_are_refused(running: Receiver, host: str) -> None:
    """Given hosts that lead to this machine, when a webhook is sent to one, then it is refused, naming the setting."""
    url = f"http://{host}:{running.port}"
    outcome = sender(str(HttpUrl(url)).rstrip("/"), private=False).send(pending(f"{url}/t0ken"))
    assert outcome.what == "failed"
    assert "which is no public address" in outcome.error
    assert "OVERPAINT_WEBHOOK_PRIVATE" in outcome.error
    assert "t0ken" not in outcome.error
    assert running.arrived.empty()


def test_private_places_may_be_allowed(running: Receiver) -> None:
    """Given a sender that may use private addresses, when a name leads to one, then the webhook is delivered."""
    url = f"http://localhost:{running.port}"
    assert sender(url).send(pending(url)) == Outcome("delivered")


def test_one_private_address_among_public_ones_is_enough(running: Receiver) -> None:
    """Given a name with a public and a private address, when a webhook is sent, then nothing is connected to."""

    def mixed(_host: str, port: int) -> Sequence[Place]:
        return [(socket.AF_INET, ("93.184.215.14", port)), (socket.AF_INET, ("127.0.0.1", port))]

    url = f"http://hooks.example.com:{running.port}"
    outcome = sender(url, private=False, resolve=mixed).send(pending(url))
    assert "leads to 127.0.0.1, which is no public address" in outcome.error
    assert running.arrived.empty()


def test_the_address_that_was_checked_is_the_one_used(running: Receiver) -> None:
    """Given a name that leads elsewhere when looked up again, when a webhook is sent, then it is looked up once."""
    looks: list[str] = []

    def once(host: str, port: int) -> Sequence[Place]:
        looks.append(host)
        return at(running.port)(host, port) if len(looks) == 1 else []

    url = f"http://hooks.example.com:{running.port}"
    assert sender(url, resolve=once).send(pending(url)) == Outcome("delivered")
    assert running.took().headers["Host"] == f"hooks.example.com:{running.port}"
    assert looks == ["hooks.example.com"]


def test_the_next_address_is_tried(running: Receiver) -> None:
    """Given a host whose first address takes no connection, when a webhook is sent, then the second one gets it."""
    with socket.create_server(("127.0.0.1", 0)) as closed:
        port = closed.getsockname()[1]
    url = f"http://hooks.example.com:{running.port}"
    assert sender(url, resolve=at(port, running.port)).send(pending(url)) == Outcome("delivered")


def test_no_proxy_of_the_environment_is_used(running: Receiver, monkeypatch: pytest.MonkeyPatch) -> None:
    """Given a dead proxy in the environment, when a webhook is sent, then it is delivered all the same."""
    for name in ("http_proxy", "HTTP_PROXY", "ALL_PROXY"):
        monkeypatch.setenv(name, "http://127.0.0.1:1")
    assert sender(running.url).send(pending(running.url)) == Outcome("delivered")


def test_the_allowlist_is_asked_again(running: Receiver) -> None:
    """Given a receiver that was taken off the list meanwhile, when a webhook is sent, then nothing connects."""
    outcome = sender("hooks.example.com").send(pending(running.url))
    assert outcome.error.startswith(f"webhook to {running.url}: jobs may name hooks.example.com;")
    assert running.arrived.empty()


def test_redirects_are_not_followed(running: Receiver) -> None:
    """Given a receiver that redirects, when a webhook is sent, then it failed, and the other place hears nothing."""
    with receiver() as elsewhere:
        running.always = Answer(307, {"Location": elsewhere.url})
        outcome = sender(running.url).send(pending(running.url))
        assert outcome == Outcome(
            "failed", "answered 307: redirects are not followed, the job has to name the last URL"
        )
        assert elsewhere.arrived.empty()


def silence(_: socket.socket, ending: Event) -> None:
    ending.wait(10)


def drip_head(connection: socket.socket, ending: Event) -> None:
    connection.sendall(b"HTTP/1.1 200 OK\r\nX-Slow: ")
    while not ending.wait(0.05):
        connection.sendall(b"x")


@pytest.mark.parametrize("talk", [silence, drip_head])
def test_a_receiver_has_only_so_long(talk: Callable[[socket.socket, Event], None]) -> None:
    """Given a receiver that is silent, or whose head does not end, when sent to, then it fails at the deadline."""
    with peer(talk) as url:
        began = time.monotonic()
        outcome = sender(url, deadline=0.4).send(pending(url))
        assert outcome == Outcome("failed", "no answer within 0.4 s", answered=False)
        assert 0.4 <= time.monotonic() - began < 2


def endless_body(connection: socket.socket, ending: Event) -> None:
    connection.sendall(b"HTTP/1.1 200 OK\r\n\r\n")
    while not ending.is_set():
        connection.sendall(b"x" * 65536)


def dripping_body(connection: socket.socket, ending: Event) -> None:
    connection.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 1000\r\n\r\n")
    while not ending.wait(0.05):
        connection.sendall(b"x")


@pytest.mark.parametrize("talk", [endless_body, dripping_body])
def test_the_body_of_an_answer_is_not_waited_for(talk: Callable[[socket.socket, Event], None]) -> None:
    """Given an answer of 200 whose body does not end, when a webhook is sent, then it is delivered, and soon over."""
    with peer(talk) as url:
        began = time.monotonic()
        assert sender(url, deadline=0.5).send(pending(url)) == Outcome("delivered")
        assert time.monotonic() - began < 2


@pytest.mark.parametrize(
    "said", [b"", b"HTTP/9 t0ken\r\n\r\n", b"HTTP/1.1 200 OK\r\n" + b"X: t0ken\r\n" * 200 + b"\r\n"]
)
def test_an_answer_that_is_none_fails_and_is_not_repeated(said: bytes) -> None:
    """Given a peer that says no proper HTTP, when a webhook is sent, then it failed and nothing of it is quoted."""
    with peer(lambda connection, _: connection.sendall(said)) as url:
        outcome = sender(url).send(pending(f"{url}/t0ken"))
    assert (outcome.what, outcome.answered) == ("failed", False)
    assert outcome.error
    assert "t0ken" not in outcome.error


def test_a_host_that_does_not_exist_fails() -> None:
    """Given a name that nobody has, when a webhook is sent, then it failed, saying so."""
    outcome = sender().send(pending("http://nobody.invalid/"))
    assert outcome.error.startswith("its host is not found: ")


@pytest.mark.parametrize(
    ("status", "header", "what", "after"),
    [
        (200, None, "delivered", None),
        (204, None, "delivered", None),
        (299, "60", "delivered", None),
        (302, None, "failed", None),
        (400, None, "failed", None),
        (401, "60", "failed", None),
        (410, None, "gone", None),
        (429, "60", "failed", 60),
        (429, "soon", "failed", None),
        (429, "-5", "failed", None),
        (500, None, "failed", None),
        (503, " 7 ", "failed", 7),
        (503, "Mon, 05 Jan 2026 06:00:00 GMT", "failed", 0),
    ],
)
def test_what_an_answer_means(status: int, header: str | None, what: str, after: float | None) -> None:
    """Given a status and a Retry-After, when they are judged, then delivered, gone or failed comes out."""
    outcome = judge(status, header)
    assert (outcome.what, outcome.retry_after, outcome.answered) == (what, after, True)
    assert (outcome.error == "") == (what == "delivered")


def test_a_date_to_come_back_at() -> None:
    """Given a Retry-After with a date, when it is judged, then it is in seconds from now."""
    after = judge(503, format_datetime(datetime.now(UTC) + timedelta(seconds=90), usegmt=True)).retry_after
    assert after == pytest.approx(90, abs=5)


@pytest.mark.parametrize(
    "address",
    [
        *(
            "127.0.0.1",
            "127.8.8.8",
            "10.0.0.1",
            "172.16.0.1",
            "192.168.1.1",
            "169.254.169.254",
            "100.64.0.1",
            "0.0.0.0",
        ),
        *("192.0.0.8", "192.0.2.1", "192.88.99.1", "198.18.0.1", "203.0.113.7", "224.0.0.1", "240.0.0.1"),
        *("255.255.255.255", "::", "::1", "::127.0.0.1", "::ffff:10.0.0.1", "64:ff9b::a00:1", "64:ff9b:1::1", "100::1"),
        *("2001:0:1::", "2001:db8::1", "2002:7f00:1::", "2002:808:808::", "3fff::1", "fc00::1", "fe80::1", "fec0::1"),
        *("ff0e::1", "fe80::1%eth0"),
    ],
)
def test_addresses_that_are_not_public(address: str) -> None:
    """Given an address that is private, local, shared, reserved, a group's or a tunnel's, then it is not public."""
    assert not is_public(address)


@pytest.mark.parametrize(
    "address", ["93.184.215.14", "8.8.8.8", "2606:4700::1111", "::ffff:8.8.8.8", "64:ff9b::808:808"]
)
def test_addresses_that_are_public(address: str) -> None:
    """Given an address of the internet, also one mapped into IPv6 or behind NAT64, then it is public."""
    assert is_public(address)


@pytest.mark.parametrize(
    ("host", "trusted", "error"),
    [
        ("hooks.example.com", True, ""),
        ("hooks.example.com", False, "its certificate is not trusted: self-signed certificate"),
        ("other.example.com", True, "its certificate is not trusted: Hostname mismatch"),
    ],
)
def test_certificates_are_checked_against_the_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, host: str, trusted: bool, error: str
) -> None:
    """Given a receiver with TLS, when a webhook is sent, then only a trusted certificate for its name is accepted."""
    file, context = certificate(tmp_path, "hooks.example.com")
    if trusted:
        monkeypatch.setenv("SSL_CERT_FILE", str(file))
    with receiver(context) as running:
        url = f"https://{host}:{running.port}"
        outcome = sender(url.removeprefix("https://"), resolve=at(running.port)).send(pending(url))
        assert outcome.error.startswith(error)
        assert outcome.what == ("failed" if error else "delivered")
        assert running.arrived.empty() == bool(error)


def test_tls_with_whoever_speaks_none_fails(running: Receiver) -> None:
    """Given a receiver without TLS, when a webhook is sent to it over https, then it failed, saying so."""
    url = f"https://hooks.example.com:{running.port}"
    outcome = sender(url, resolve=at(running.port)).send(pending(url))
    assert outcome.error == "TLS failed: WRONG_VERSION_NUMBER"


def test_a_handshake_has_no_longer_either() -> None:
    """Given a peer that says nothing to a TLS handshake, when a webhook is sent, then it fails at the deadline."""
    with peer(silence) as plain:
        url = plain.replace("http://", "https://")
        outcome = sender(url, deadline=0.4).send(pending(url))
    assert outcome == Outcome("failed", "no answer within 0.4 s", answered=False)
