"""What comes between Redis and Celery: no message stops a worker, none is lost, and no slot leaks."""

from __future__ import annotations

import json
import ssl
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from celery import Celery
from kombu import Connection, Consumer
from pydantic import ValidationError
from redis import Redis

from overpaint_common import failpoints, wire
from overpaint_common.errors import InternalError, InvalidMessage
from overpaint_common.live import connect
from overpaint_common.raw import RawMessage
from overpaint_common.tickets import Tickets, declaration
from overpaint_producer.local.child import Child
from overpaint_producer.local.redis import EmbeddedRedis
from overpaint_worker import transport
from overpaint_worker.messages import MAX_MESSAGE_BYTES, check_message
from tests.worker.envelopes import SECRET, base64_of, envelope, ticket, wrong_messages

QUEUE = "overpaint.some-model.standard"
WORKER = """
import sys
from celery import Celery
from redis import Redis
from overpaint_common import wire
from overpaint_common.tickets import declaration
from overpaint_worker import transport

url, queue = sys.argv[1:]
app = Celery("test", set_as_current=False, fixups=[])
app.conf.update(wire.celery_settings(url), broker_transport=transport.NAME, task_queues=[declaration(queue)])

def run(task, job_id, *_):
    Redis.from_url(url).rpush("ran", job_id)

app.task(name=wire.RUN_TASK, bind=True)(run)
app.Worker(
    hostname="test", pool="threads", concurrency=2, without_gossip=True, without_mingle=True, quiet=True
).start()
"""


@pytest.fixture(scope="module")
def redis(tmp_path_factory: pytest.TempPathFactory) -> Iterator[EmbeddedRedis]:
    with EmbeddedRedis(tmp_path_factory.mktemp("redis"), append_only=False) as running:
        yield running


@pytest.fixture
def client(redis: EmbeddedRedis) -> Iterator[Redis]:
    with Redis.from_url(redis.url, socket_timeout=60) as client:
        client.flushall()
        yield client


@pytest.fixture
def worker(redis: EmbeddedRedis, tmp_path: Path) -> Iterator[Child]:
    """A real Celery worker on this transport; it pushes the ids of the jobs it is given to the list `ran`."""
    child = Child([sys.executable, "-c", WORKER, redis.url, QUEUE], log=tmp_path / "worker.log")
    yield child
    child.stop(10)


def ran(client: Redis) -> str:
    """The next job that the worker was given."""
    popped: Any = client.blpop(["ran"], timeout=30)
    assert popped, "the worker was given nothing"
    return str(popped[1], "ascii")


def kept(client: Redis) -> list[RawMessage]:
    entries: Any = client.lrange(wire.RAW_KEY, 0, -1)
    return [RawMessage.model_validate_json(entry) for entry in entries]


def test_no_message_stops_a_worker_or_is_lost(client: Redis, worker: Child) -> None:
    """Given every wrong message and then a ticket, when a worker reads them, then it runs it and keeps the rest."""
    wrong = wrong_messages(QUEUE)
    started = datetime.now(UTC)
    client.lpush(QUEUE, *wrong.values())
    client.lpush(QUEUE, ticket(QUEUE, "job-number-2"))

    assert ran(client) == "job-number-2"
    assert worker.exit_code is None
    assert [entry.data for entry in kept(client)] == list(wrong.values())
    assert all(
        entry.queue == QUEUE and entry.received_at.timestamp() > started.timestamp() - 2 for entry in kept(client)
    )
    log = worker.log.read_text()
    assert log.count("message refused queue=") == len(wrong)
    assert all(f"sha256={entry.name}: {entry.reason}" in log for entry in kept(client))
    assert SECRET not in "".join(line for line in log.splitlines() if "refused" in line)


def test_a_worker_goes_on_where_a_wrong_message_cannot_be_kept(client: Redis, worker: Child) -> None:
    """Given a Redis that takes no refused message, when one comes, then the worker still runs the next ticket."""
    client.set(wire.RAW_KEY, "no list")
    client.lpush(QUEUE, b"no JSON", ticket(QUEUE, "job-number-3"))

    assert ran(client) == "job-number-3"
    assert worker.exit_code is None


@pytest.mark.parametrize("wrong", wrong_messages(QUEUE).items(), ids=lambda item: item[0])
def test_a_wrong_message_is_refused_without_being_repeated(wrong: tuple[str, bytes]) -> None:
    """Given a wrong message, when it is checked, then the error tells the place and nothing of the content."""
    with pytest.raises(InvalidMessage) as raised:
        check_message(wrong[1], QUEUE)
    assert SECRET not in str(raised.value)


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"headers": {"task": "x"}}, r"^headers\.task: only overpaint\.run is served in this queue$"),
        ({"headers": {"id": 7}, "content_type": 8}, r"^content-type: Input should be a .*; headers\.id: Input"),
        ({"body": "[[], {"}, r"^body: Invalid JSON: EOF .* at line 1 column 6$"),
        ({"body": "[[], {}, {}]"}, r"^body\.0\.0: Field required$"),
        ({"body": '[[], {"a": 1}, {}]'}, r"^body\.1: Dictionary should have at most 0 items"),
        ({"headers": {"eta": "x"}}, r"^headers\.eta: Input should be null$"),
        ({"headers": {"x": "x" * MAX_MESSAGE_BYTES}}, rf"^message: \d+ bytes; at most {MAX_MESSAGE_BYTES} are taken$"),
    ],
)
def test_what_is_wrong_is_said(changes: dict[str, Any], says: str) -> None:
    """Given a wrong field, when the message is checked, then the error names it and what is wanted."""
    with pytest.raises(InvalidMessage, match=says):
        check_message(ticket(QUEUE, "job-number-1", **changes), QUEUE)


def test_a_right_message_keeps_what_celery_needs_and_nothing_else() -> None:
    """Given a message with more fields, when it is checked, then only ours are passed on, routed to the queue."""
    raw = ticket(
        QUEUE,
        "job-number-1",
        headers={"id": "message-1", "custom": {"__type__": "x", "__value__": 1}, "stamps": {"a": 1}},
        properties={"delivery_tag": "tag-1", "delivery_info": {"exchange": "elsewhere", "routing_key": "x"}},
    )
    assert check_message(raw, QUEUE) == {
        "body": json.loads(raw)["body"],
        "content-type": "application/json",
        "content-encoding": "utf-8",
        "headers": {"task": "overpaint.run", "id": "message-1"},
        "properties": {
            "correlation_id": "message-1",
            "delivery_tag": "tag-1",
            "delivery_info": {"exchange": "", "routing_key": QUEUE, "redelivered": False},
            "body_encoding": "utf-8",
            "priority": 0,
        },
    }


def test_what_others_send_is_taken(redis: EmbeddedRedis, client: Redis) -> None:
    """Given messages of a plain Celery client and of our own producers, when they are checked, then they pass."""
    with Celery("elsewhere", broker=redis.url, set_as_current=False) as app:
        app.send_task(wire.SUBMIT_TASK, args=[{"id": "job-number-1"}], queue=wire.SUBMIT_QUEUE, priority=6)
    sent: Any = client.rpop(f"{wire.SUBMIT_QUEUE}\x06\x166")
    checked = check_message(sent, wire.SUBMIT_QUEUE)
    assert json.loads(checked["body"])[0] == [{"id": "job-number-1"}]
    assert checked["properties"]["priority"] == 6

    Tickets(connect(redis.url)).send_again(QUEUE, "job-number-1")
    sent = client.rpop(QUEUE)
    assert json.loads(check_message(sent, QUEUE)["body"])[0][0] == "job-number-1"


def test_a_body_in_base64_is_read_also_with_broken_lines() -> None:
    """Given base64 as some encoders break it, when the message is checked, then its body is plain JSON."""
    encoded = base64_of([[{"id": "x" * 100}], {}, {}])
    raw = envelope(wire.SUBMIT_QUEUE, wire.SUBMIT_TASK, body="\n".join([encoded[:60], encoded[60:]]) + "\n")
    raw["properties"]["body_encoding"] = "base64"
    checked = check_message(json.dumps(raw).encode(), wire.SUBMIT_QUEUE)
    assert json.loads(checked["body"]) == [[{"id": "x" * 100}], {}, {}]
    assert checked["properties"]["body_encoding"] == "utf-8"


def test_a_ticket_does_not_belong_among_whole_jobs() -> None:
    """Given a ticket in the queue of whole jobs, when it is checked, then it is refused."""
    with pytest.raises(InvalidMessage, match=r"only overpaint\.submit"):
        check_message(ticket(wire.SUBMIT_QUEUE, "job-number-1"), wire.SUBMIT_QUEUE)


def test_an_entry_survives_its_own_json() -> None:
    """Given a refused message of any bytes, when its entry is written and read, then it is the same; others raise."""
    entry = RawMessage(queue=QUEUE, reason="r", received_at=datetime.now(UTC), data=bytes(range(256)))
    assert RawMessage.model_validate_json(entry.model_dump_json()) == entry
    assert entry.name == "40aff2e9d2d8922e"  # of `printf` and sha256sum
    for wrong in (b"", b"{}", entry.model_dump_json().replace('"data":"', '"data":"!')):
        with pytest.raises(ValidationError):
            RawMessage.model_validate_json(wrong)


@pytest.mark.parametrize("url", ["redis://user:secret@localhost:6380/3", "rediss://localhost:6380/3"])
def test_celery_takes_this_transport_whatever_the_scheme(url: str) -> None:
    """Given either scheme, when a Celery application connects, then it is by this transport, with all the URL says."""
    app = Celery("test", set_as_current=False, fixups=[])
    app.conf.update(wire.celery_settings(url), broker_transport=transport.NAME)
    for connection in (app.connection_for_read(), app.connection_for_read().clone()):
        assert type(connection.transport) is transport.Transport
        assert (connection.hostname, connection.port, connection.virtual_host) == ("localhost", 6380, "3")
        assert connection.ssl == ({"ssl_cert_reqs": ssl.CERT_REQUIRED} if url.startswith("rediss") else False)


@contextmanager
def consuming(redis: EmbeddedRedis, *, prefetch: int = 0, **options: Any) -> Iterator[tuple[Connection, list[Any]]]:
    """A connection as a worker holds it, and the messages that came through it."""
    options = {**wire.celery_settings(redis.url)["broker_transport_options"], **options}
    connection = Connection(redis.url, transport=transport.NAME, transport_options=options)
    received: list[Any] = []
    try:
        connection.default_channel.basic_qos(prefetch_count=prefetch)
        with Consumer(connection.default_channel, [declaration(QUEUE)], on_message=received.append):
            yield connection, received
    finally:
        connection.collect()


@pytest.mark.parametrize("end", ["ack", "reject", "requeue"])
def test_a_slot_comes_back_though_redis_did_not_hear_of_it(tmp_path: Path, end: str) -> None:
    """Given the last slot taken, when Redis dies before the message ends, then the next one can be fetched."""
    with EmbeddedRedis(tmp_path, append_only=False) as redis, consuming(redis, prefetch=1) as (connection, received):
        with Redis.from_url(redis.url) as client:
            client.lpush(QUEUE, ticket(QUEUE, "job-number-1"))
        connection.drain_events(timeout=10)
        qos = connection.default_channel.qos
        assert not qos.can_consume()
        redis.kill()
        with pytest.raises(connection.connection_errors):
            getattr(received[0], end)()
        assert qos.can_consume()


def test_a_full_redis_loses_no_message(redis: EmbeddedRedis, client: Redis) -> None:
    """Given a Redis without room for a copy, when a message is fetched, then it arrives and can be acknowledged."""
    with consuming(redis, prefetch=1) as (connection, received):
        client.lpush(QUEUE, ticket(QUEUE, "job-number-1"))
        client.config_set("maxmemory", "1")
        try:
            connection.drain_events(timeout=10)
            received[0].ack()
        finally:
            client.config_set("maxmemory", "0")
        assert received[0].payload[0][0] == "job-number-1"
        assert connection.default_channel.qos.can_consume()


def test_a_redis_that_dies_after_the_pop_loses_no_message(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Given a message just popped, when Redis dies before it has a copy, then the message arrives all the same."""
    with EmbeddedRedis(tmp_path, append_only=False) as redis, consuming(redis) as (connection, received):
        with Redis.from_url(redis.url) as client:
            client.lpush(QUEUE, ticket(QUEUE, "job-number-1"))
        monkeypatch.setattr(failpoints, "hit", lambda name: redis.kill() if name == "popped" else None)
        connection.drain_events(timeout=10)
        assert received[0].payload[0][0] == "job-number-1"


def test_a_broken_copy_ends_no_worker(redis: EmbeddedRedis, client: Redis) -> None:
    """Given copies that kombu did not write, when they are due again, then they are kept raw and the others come."""
    client.zadd("unacked_index", {"not-json": 1, "no-triple": 2, "right": 3})
    right = json.dumps([json.loads(ticket(QUEUE, "job-number-1")), "", QUEUE])
    client.hset("unacked", mapping={"not-json": b"<\xff", "no-triple": "[1]", "right": right})
    with consuming(redis) as (connection, received):
        connection.default_channel.qos.restore_visible(num=None, interval=1)
        connection.drain_events(timeout=10)
        received[0].ack()
    assert received[0].payload[0][0] == "job-number-1"
    assert sorted(entry.data for entry in kept(client)) == [b"<\xff", b"[1]"]
    assert not client.exists("unacked", "unacked_index")


def test_messages_that_share_a_tag_do_not_acknowledge_each_other(redis: EmbeddedRedis, client: Redis) -> None:
    """Given two messages of one delivery tag, when one is acknowledged, then the other still waits for its own."""
    with consuming(redis) as (connection, received):
        client.lpush(QUEUE, ticket(QUEUE, "job-number-1"), ticket(QUEUE, "job-number-2"))
        for _ in range(2):
            connection.drain_events(timeout=10)
        received[0].ack()
        left: Any = client.hvals("unacked")
        assert [json.loads(json.loads(entry)[0]["body"])[0][0] for entry in left] == ["job-number-2"]
        received[1].ack()
        assert not client.exists("unacked")


def test_a_message_goes_back_to_where_it_came_from(redis: EmbeddedRedis, client: Redis) -> None:
    """Given a message that names a route of its own, when it is given back, then it is in its queue again, whole."""
    raw = ticket(QUEUE, "job-number-1", properties={"delivery_info": {"exchange": "no", "routing_key": "where"}})
    with consuming(redis) as (connection, received):
        client.lpush(QUEUE, raw)
        connection.drain_events(timeout=10)
        received.pop().requeue()
        connection.drain_events(timeout=10)
        assert received[0].payload[0] == ["job-number-1", 1_700_000_000_000]
        assert received[0].delivery_info == {"exchange": "", "routing_key": QUEUE, "redelivered": True}
        received[0].ack()


@pytest.mark.parametrize(("point", "copies"), [("popped", 0), ("appended", 1)])
def test_the_fail_points_lie_around_the_copy(
    redis: EmbeddedRedis, client: Redis, point: str, copies: int, request: pytest.FixtureRequest
) -> None:
    """Given a fail point, when a message is fetched, then it is hit before or after Redis has the copy."""
    request.addfinalizer(partial(failpoints.arm, ""))
    failpoints.arm(f"{point}=raise")
    with consuming(redis) as (connection, _):
        client.lpush(QUEUE, ticket(QUEUE, "job-number-1"))
        with pytest.raises(InternalError):
            connection.drain_events(timeout=10)
        assert client.hlen("unacked") == copies
