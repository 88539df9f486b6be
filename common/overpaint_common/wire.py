"""Names on the wire: queues, tasks, Redis keys, and the Celery settings both sides share."""

from __future__ import annotations

import ssl
from typing import Any

from overpaint_common.job import PRIORITIES, Priority

RUN_TASK = "overpaint.run"
"""A ticket: args are `[job id, Redis's time in milliseconds at which it was queued]`."""

SUBMIT_TASK = "overpaint.submit"
"""A whole job, for clients in other languages: args are `[job]` with the job as a JSON object.

A job without an id takes the message's own."""

SUBMIT_QUEUE = "overpaint.submit"

MODELS_KEY = "overpaint:models"
"""Hash of model name to its card; stays when the last worker leaves, so that jobs can wait for one."""

QUEUES_KEY = "overpaint:queues"
"""Set of all queues that ever got a ticket."""

LEASES_KEY = "overpaint:leases"
"""Sorted set of claimed jobs by the Redis time in milliseconds at which their lease lapses."""

DELAYED_KEY = "overpaint:delayed"
"""Sorted set of `<queue> <job id>` by the Redis time in milliseconds at which the job is to be queued again."""

DEADLINES_KEY = "overpaint:deadlines"
"""Sorted set of open jobs that have a deadline, by it, in milliseconds."""

ENDED_KEY = "overpaint:ended"
"""Sorted set of jobs whose end was decided outside a worker, for the keeper to finish, by time in milliseconds."""

WEBHOOKS_KEY = "overpaint:webhooks"
"""Sorted set of jobs whose webhook is to be delivered, by the Redis time in milliseconds of the next try."""

RAW_KEY = "overpaint:raw"
"""List of messages that could not be understood, for the keeper to put into the ledger."""

EPOCH_KEY = "overpaint:epoch"
"""Missing after Redis lost its data."""

JOBS_KEY = "overpaint:jobs"
"""Sorted set of all jobs queued lately by the Redis time in milliseconds at which they first were, for listing."""

KEEPER_KEY = "overpaint:keeper"
"""Who leads the keepers; expires unless renewed."""

FLEET_KEY = "overpaint:fleet"
"""Sorted set of worker names by the Redis time in seconds at which they were last seen."""


def queue_name(model: str, priority: Priority) -> str:
    """One queue per model and priority, so that jobs meet workers that are warm."""
    return f"overpaint.{model}.{priority}"


def model_of(queue: str) -> str:
    """The model that a queue named by `queue_name` is for."""
    return queue.removeprefix("overpaint.").rpartition(".")[0]


def priority_of(queue: str) -> Priority | None:
    """The priority of a queue named by `queue_name`; None for any other."""
    return next((priority for priority in PRIORITIES if queue.endswith(f".{priority}")), None)


def queued_key(queue: str) -> str:
    """Sorted set: the jobs with a ticket in `queue` that nobody has claimed yet, by ticket time in milliseconds."""
    return f"overpaint:queued:{queue}"


def newest_key(queue: str) -> str:
    """The newest ticket time of `queue` that was claimed, in milliseconds: what is older should be gone from it."""
    return f"overpaint:newest:{queue}"


def solo_key(model: str) -> str:
    """Sorted set: suspects of a model, each to be run alone, by the Redis time in milliseconds from which on."""
    return f"overpaint:solo:{model}"


def lease_key(job_id: str) -> str:
    """Hash: who holds the job: `attempt`, `worker`, `queue`."""
    return f"overpaint:lease:{job_id}"


def status_key(job_id: str) -> str:
    """Hash: the live status."""
    return f"overpaint:status:{job_id}"


def events_key(job_id: str) -> str:
    """Stream: every change of the live status, for those who watch."""
    return f"overpaint:events:{job_id}"


def preview_key(job_id: str) -> str:
    """The newest preview of a job that is being painted: a small WebP file, gone when the job ends."""
    return f"overpaint:preview:{job_id}"


def attempts_key(job_id: str) -> str:
    """Hash: attempts started, and how many of them an outage cost."""
    return f"overpaint:attempts:{job_id}"


def worker_key(name: str) -> str:
    """A worker's card; expires unless renewed."""
    return f"overpaint:worker:{name}"


def celery_settings(redis_url: str) -> dict[str, Any]:
    """Settings for producers and workers alike.

    There is no result backend: an unreachable one leaks a slot for every job that ends meanwhile. kombu sends a ticket
    again that is not acknowledged within the visibility timeout; as its job is held by then, that costs a look.
    """
    # kombu does not verify the server's certificate unless it is told to.
    tls = {"broker_use_ssl": {"ssl_cert_reqs": ssl.CERT_REQUIRED}} if redis_url.startswith("rediss://") else {}
    return {
        **tls,
        "broker_url": redis_url,
        "result_backend": None,
        "task_ignore_result": True,
        "task_serializer": "json",
        "accept_content": ["json"],
        "task_acks_late": True,
        "task_create_missing_queues": False,
        "task_queues": {},
        "worker_prefetch_multiplier": 1,
        "worker_send_task_events": False,
        "worker_enable_remote_control": False,
        "worker_hijack_root_logger": False,
        "worker_pool": "threads",
        "broker_connection_retry_on_startup": True,
        "broker_connection_max_retries": None,
        "broker_channel_error_retry": True,
        "broker_transport_options": {
            "visibility_timeout": 600,
            "unacked_restore_interval": 10,
            "unacked_restore_throttle": 1,
            "queue_order_strategy": "priority",
            "health_check_interval": 5,
            "socket_timeout": 15,
            "socket_connect_timeout": 5,
            "socket_keepalive": True,
            "body_encoding": "utf-8",
        },
    }
