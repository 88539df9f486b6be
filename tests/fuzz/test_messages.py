"""The message consumer under anything that may lie in a queue, held against kombu's and Celery's own code.

What `check_message` lets pass goes the way of a worker's message: kombu's decoding, Celery's strategy, its trace of the
task, and kombu's copy for giving it back. None of them may raise, and the task must get what was sent.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from contextlib import suppress
from types import SimpleNamespace
from typing import Any

import pytest
from celery import Celery
from celery.app import trace
from celery.concurrency.solo import TaskPool
from celery.worker.strategy import default
from hypothesis import given
from hypothesis import strategies as st
from kombu import Connection
from kombu.utils import json as kombu_json
from pydantic import ValidationError

from overpaint_common import wire
from overpaint_common.errors import InvalidMessage
from overpaint_common.raw import RawMessage
from overpaint_common.tickets import message
from overpaint_worker.messages import check_message
from tests.fuzz.mutations import bounded, damaged, mutated, spelled, values
from tests.worker.envelopes import base64_of, envelope, wrong_messages

QUEUE = "overpaint.some-model.standard"
SUBMIT = wire.SUBMIT_QUEUE
JOB = {
    "id": "order-1234",
    "source": "s3://photos/cat.jpg",
    "deadline": None,
    "passes": [{"op": "img2img", "prompt": "é"}],
}
RIGHT = {
    QUEUE: [
        json.loads(message(wire.RUN_TASK, '["job-number-1", 1700000000000]', QUEUE)),
        envelope(QUEUE, wire.RUN_TASK, "job-number-1", 1_700_000_000_000),
    ],
    SUBMIT: [
        json.loads(message(wire.SUBMIT_TASK, json.dumps([JOB]), SUBMIT)),
        envelope(SUBMIT, wire.SUBMIT_TASK, JOB),
        envelope(SUBMIT, wire.SUBMIT_TASK, json.dumps(JOB), "0" * 64),
        envelope(SUBMIT, wire.SUBMIT_TASK, body=base64_of([[JOB], {}, {}]), properties={"body_encoding": "base64"}),
    ],
}
# The right ones count for more, so that some still are right when they are damaged.
FILES = {
    queue: [*map(spelled, right * 20), *(raw for raw in wrong_messages(queue).values() if len(raw) < 5000)]
    for queue, right in RIGHT.items()
}
Deliver = Callable[[bytes, str], None]


class _Consumer(SimpleNamespace):
    """Celery asks its signals who listens to a consumer, so it has to be hashable."""

    __hash__ = object.__hash__  # type: ignore[assignment]


@pytest.fixture(scope="module")
def deliver() -> Iterator[Deliver]:
    """Check a message as the transport does and, if it is let pass, take it the whole way through kombu and Celery."""
    app = Celery("test", broker="memory://", set_as_current=False, fixups=[])
    app.conf.update({**wire.celery_settings("memory://"), "broker_transport_options": {}})
    got: list[Any] = []
    ended: list[Any] = []
    pool = TaskPool(app=app)
    # A worker that ran in this process before would have its own app asked for tasks.
    trace.reset_worker_optimizations(app)
    app.set_current()

    def task(*arguments: Any) -> None:
        got.append(list(arguments))

    for name in (wire.RUN_TASK, wire.SUBMIT_TASK):
        app.task(name=name, shared=False)(task)
    consumer = _Consumer(
        app=app,
        hostname="test",
        connection_errors=(),
        event_dispatcher=None,
        timer=SimpleNamespace(call_at=None),
        apply_eta_task=None,
        disable_rate_limits=True,
        task_buckets={},
        pool=pool,
        on_task_request=lambda request: request.execute_using_pool(pool),
        _limit_task=None,
        _limit_post_eta=None,
        controller=SimpleNamespace(state=SimpleNamespace(revoked=set())),
    )
    strategies = {name: default(app.tasks[name], app, consumer) for name in (wire.RUN_TASK, wire.SUBMIT_TASK)}

    def go(raw: bytes, queue: str) -> None:
        got.clear()
        ended.clear()
        checked = check_message(raw, queue)
        assert check_message(json.dumps(checked).encode(), queue) == checked

        arrived = channel.Message(kombu_json.loads(json.dumps(checked)), channel=channel)
        assert not arrived.errors
        copy = kombu_json.loads(kombu_json.dumps([arrived._raw, "", queue]))
        assert copy == [checked, arrived.delivery_info["exchange"], arrived.delivery_info["routing_key"]]

        arrived.accept = {"application/json"}
        strategies[arrived.headers["task"]](arrived, None, lambda *_: ended.append("ack"), ended.append, [])
        assert repr(got) == repr([json.loads(checked["body"])[0]])
        assert ended == ["ack"]

    with Connection("memory://") as connection:
        channel = connection.default_channel
        yield go


@pytest.mark.parametrize("queue", RIGHT)
def test_right_messages_arrive(deliver: Deliver, queue: str) -> None:
    """Given messages as Overpaint and Celery write them, when they are checked, then they arrive as they were sent."""
    for right in RIGHT[queue]:
        deliver(spelled(right), queue)


@bounded(100)
@given(raw=st.binary(max_size=60) | values.map(spelled), queue=st.sampled_from([QUEUE, SUBMIT]))
def test_any_bytes_are_no_message(raw: bytes, queue: str) -> None:
    """Given bytes or JSON of any shape, when they are checked, then they are refused as no message of ours."""
    with pytest.raises(InvalidMessage):
        check_message(raw, queue)


@bounded(150)
@given(data=st.data(), queue=st.sampled_from([QUEUE, SUBMIT]))
def test_a_message_with_wrong_fields_is_refused_or_arrives(deliver: Deliver, data: st.DataObject, queue: str) -> None:
    """Given a message with values changed, removed and added, when checked, it is refused or passes everywhere."""
    with suppress(InvalidMessage):
        deliver(spelled(data.draw(mutated(data.draw(st.sampled_from(RIGHT[queue])), most=2))), queue)


@bounded(150)
@given(data=st.data(), queue=st.sampled_from([QUEUE, SUBMIT]))
def test_a_message_with_a_wrong_body_is_refused_or_arrives(deliver: Deliver, data: st.DataObject, queue: str) -> None:
    """Given a right envelope around a body changed inside, when checked, it is refused or passes everywhere."""
    arguments = ["job-number-1", 1_700_000_000_000] if queue == QUEUE else [JOB]
    embed = {"callbacks": None, "errbacks": None, "chain": None, "chord": None}
    changed = data.draw(mutated([arguments, {}, embed], most=2))
    task = wire.RUN_TASK if queue == QUEUE else wire.SUBMIT_TASK
    if data.draw(st.booleans()):
        raw = envelope(queue, task, body=base64_of(changed), properties={"body_encoding": "base64"})
    else:
        raw = envelope(queue, task, body=json.dumps(changed, ensure_ascii=data.draw(st.booleans())))
    with suppress(InvalidMessage):
        deliver(spelled(raw), queue)


@bounded(150)
@given(data=st.data(), queue=st.sampled_from([QUEUE, SUBMIT]))
def test_a_damaged_message_is_refused_or_arrives(deliver: Deliver, data: st.DataObject, queue: str) -> None:
    """Given a message whose bytes were flipped, cut and joined, when checked, it is refused or passes everywhere."""
    with suppress(InvalidMessage):
        deliver(data.draw(damaged(st.sampled_from(FILES[queue]), most=2)), queue)


@bounded(60)
@given(st.binary(max_size=40), st.text(max_size=20))
def test_any_refused_bytes_survive_their_entry(data: bytes, reason: str) -> None:
    """Given refused bytes, when their entry is written and read, then they are the same, byte for byte."""
    entry = RawMessage(queue=QUEUE, reason=reason, received_at="2030-01-01T00:00:00Z", data=data)
    assert RawMessage.model_validate_json(entry.model_dump_json()) == entry


@bounded(80)
@given(st.binary(max_size=40) | values.map(spelled))
def test_any_bytes_are_no_entry(entry: bytes) -> None:
    """Given bytes that no worker wrote, when they are read as an entry, then they are refused."""
    with pytest.raises(ValidationError):
        RawMessage.model_validate_json(entry)
