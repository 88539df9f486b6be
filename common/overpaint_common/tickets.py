"""Tickets: the Celery messages that tell a worker to look at a job."""

from __future__ import annotations

import time

from celery import Celery
from kombu.entity import Exchange, Queue
from kombu.exceptions import OperationalError
from redis.exceptions import RedisError

from overpaint_common import wire
from overpaint_common.errors import BrokerUnavailable
from overpaint_common.job import Job


def client_app(redis_url: str) -> Celery:
    """A Celery application that only sends; it gives up on a dead Redis within seconds."""
    app = Celery("overpaint", set_as_current=False, fixups=[])
    app.conf.update(wire.celery_settings(redis_url))
    app.conf.broker_transport_options = {
        **app.conf.broker_transport_options,
        "socket_timeout": 3,
        "socket_connect_timeout": 3,
        "max_retries": 1,
        "interval_start": 0,
        "interval_step": 0.1,
        "interval_max": 0.2,
    }
    return app


def declaration(name: str) -> Queue:
    """A queue on the default exchange, which routes straight to the queue of that name: one round trip a ticket."""
    return Queue(name, Exchange(""), routing_key=name)


class Tickets:
    """Sends tickets. A ticket is a hint: it may vanish or come twice, and the ledger makes up for both."""

    def __init__(self, app: Celery) -> None:
        self._app = app

    def send(self, job: Job) -> None:
        """Queue a job; raises BrokerUnavailable if Redis did not take the ticket."""
        self.send_to(wire.queue_name(job.model, job.priority), job.id)

    def send_to(self, queue: str, job_id: str) -> None:
        """Put a ticket of `job_id` into `queue`; raises BrokerUnavailable if Redis did not take it."""
        try:
            # Named by a string, or by exchange and routing key alone, Celery would send it to its own default queue.
            self._app.send_task(
                wire.RUN_TASK,
                args=[job_id, int(time.time() * 1000)],
                argsrepr="-",
                kwargsrepr="-",
                queue=declaration(queue),
                declare=[],
                retry=True,
                retry_policy={"max_retries": 1, "interval_start": 0, "interval_step": 0.1, "interval_max": 0.2},
            )
        except (OperationalError, RedisError, OSError) as error:
            raise BrokerUnavailable(
                f"Redis did not take the ticket of job {job_id} ({error}); check that it runs and OVERPAINT_REDIS_URL"
            ) from error

    def close(self) -> None:
        self._app.close()
