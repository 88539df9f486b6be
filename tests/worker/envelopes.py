"""Celery messages as they lie in Redis: a right one, and wrong ones of every kind that is known to hurt Celery."""

from __future__ import annotations

import base64
import json
from typing import Any

from overpaint_common import wire

SECRET = "fox-and-hedgehog"
"""In every wrong message, and never to be seen in a log."""


def envelope(queue: str, task: str, *args: object, **changes: Any) -> dict[str, Any]:
    """A message; `changes` are laid over its fields, and over those of its headers and properties one by one."""
    message: dict[str, Any] = {
        "body": json.dumps([args, {}, {"callbacks": None, "errbacks": None, "chain": None, "chord": None}]),
        "content-type": "application/json",
        "content-encoding": "utf-8",
        "headers": {
            "lang": "py",
            "task": task,
            "id": SECRET,
            "eta": None,
            "expires": None,
            "retries": 0,
            "timelimit": [None, None],
            "argsrepr": "-",
        },
        "properties": {
            "correlation_id": SECRET,
            "delivery_tag": SECRET,
            "delivery_info": {"exchange": "", "routing_key": queue},
            "priority": 0,
            "body_encoding": "utf-8",
        },
    }
    for name, value in changes.items():
        field = name.replace("_", "-") if name.startswith("content") else name
        message[field] = {**message[field], **value} if isinstance(value, dict) else value
    return message


def without(message: dict[str, Any], *path: str) -> dict[str, Any]:
    """The message without the field that `path` leads to."""
    first, *rest = path
    kept = {name: value for name, value in message.items() if name != first}
    return {**kept, first: without(message[first], *rest)} if rest else kept


def base64_of(body: object) -> str:
    return base64.b64encode(json.dumps(body).encode()).decode()


def ticket(queue: str, job_id: str, **changes: Any) -> bytes:
    """The message of a job's ticket."""
    return json.dumps(envelope(queue, wire.RUN_TASK, job_id, 1_700_000_000_000, **changes)).encode()


def wrong_messages(queue: str) -> dict[str, bytes]:
    """What must not reach Celery, by what is wrong with it."""
    right = envelope(queue, wire.RUN_TASK, "job-number-1", 1)

    def changed(**changes: Any) -> dict[str, Any]:
        return envelope(queue, wire.RUN_TASK, "job-number-1", 1, **changes)

    def body(text: object) -> dict[str, Any]:
        return changed(body=text if isinstance(text, str) else json.dumps(text))

    args = ["job-number-1", 1]
    messages: dict[str, Any] = {
        "unknown task": changed(headers={"task": f"elsewhere.{SECRET}"}),
        "whole job in a queue of tickets": envelope(queue, wire.SUBMIT_TASK, {"source": SECRET}),
        "body that is no JSON": body(f"{{{SECRET}"),
        "empty body": body(""),
        "body of another type": {**right, "body": {"x": SECRET}},
        "pickled body": changed(content_type="application/x-python-serialize"),
        "unknown content type": changed(content_type=f"text/{SECRET}"),
        "unknown content encoding": changed(content_encoding="utf-16"),
        "compressed body": changed(headers={"compression": "application/x-gzip"}),
        "no headers": without(right, "headers"),
        "headers of another type": {**right, "headers": [SECRET]},
        "no task": without(right, "headers", "task"),
        "no id": without(right, "headers", "id"),
        "id of another type": changed(headers={"id": 7}),
        "id of two lines": changed(headers={"id": "x\ny"}),
        "no properties": without(right, "properties"),
        "no delivery tag": without(right, "properties", "delivery_tag"),
        "delivery tag of another type": changed(properties={"delivery_tag": [SECRET]}),
        "no delivery info": without(right, "properties", "delivery_info"),
        "delivery info of another type": changed(properties={"delivery_info": SECRET}),
        "delivery info without an exchange": without(right, "properties", "delivery_info", "exchange"),
        "priority of another type": changed(properties={"priority": SECRET}),
        "body that is not base64": changed(properties={"body_encoding": "base64"}),
        "base64 that ends early": changed(properties={"body_encoding": "base64"}, body=base64_of([args, {}, {}])[:-3]),
        "unknown body encoding": changed(properties={"body_encoding": f"rot-{SECRET}"}),
        "args alone": body(args),
        "args that are no list": body([SECRET, {}, {}]),
        "kwargs that are no object": body([args, [SECRET], {}]),
        "kwargs": body([args, {SECRET: 1}, {}]),
        "embed of another type": body([args, {}, SECRET]),
        "one part too many": body([args, {}, {}, SECRET]),
        "unknown embed": body([args, {}, {SECRET: 1}]),
        "callbacks": body([args, {}, {"callbacks": [{"task": SECRET}]}]),
        "chain": body([args, {}, {"chain": [{"task": SECRET}]}]),
        "chord": body([args, {}, {"chord": {"task": SECRET}}]),
        "protocol 1": {**body({"task": wire.RUN_TASK, "id": SECRET, "args": args, "kwargs": {}}), "headers": {}},
        "eta": changed(headers={"eta": "2999-01-01T00:00:00"}),
        "eta that is none": changed(headers={"eta": SECRET}),
        "expiry": changed(headers={"expires": "2001-01-01T00:00:00"}),
        "retries": changed(headers={"retries": 3}),
        "time limit": changed(headers={"timelimit": [1, None]}),
        "group": changed(headers={"group": SECRET}),
        "ticket of no job": body([[SECRET + "/../x", 1], {}, {}]),
        "ticket without arguments": body([[], {}, {}]),
        "Celery's spelling of an unknown type": body([[{"__type__": SECRET, "__value__": 1}], {}, {}]),
        "Celery's spelling of a broken date": body([[{"__type__": "date", "__value__": SECRET}], {}, {}]),
        "no object": [SECRET],
        "null": None,
        "text": SECRET,
        "empty object": {},
    }
    lone = json.dumps(changed(headers={"id": SECRET})).replace(f'"id": "{SECRET}"', '"id": "\\ud800"')
    return {
        **{name: json.dumps(message).encode() for name, message in messages.items()},
        "no JSON": f"<{SECRET}>".encode(),
        "nothing": b"",
        "no Unicode": ticket(queue, "job-number-1").replace(SECRET.encode(), b"\xff\xfe"),
        "half a character": lone.encode(),
        "not a number": ticket(queue, "job-number-1").replace(b'"priority": 0', b'"priority": NaN'),
        "a number without end": ticket(queue, "job-number-1").replace(b'"priority": 0', b'"priority": ' + b"9" * 9000),
        "cut short": ticket(queue, "job-number-1")[:-20],
        "a thousand brackets": b"[" * 1000 + b"]" * 1000,
        "a thousand brackets in the body": json.dumps(body("[" * 1000 + "]" * 1000)).encode(),
        "two megabytes": ticket(queue, "job-number-1", headers={"padding": "x" * (2 << 20)}),
    }
