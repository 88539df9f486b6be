"""Urgent work on a worker that is full of patient work."""

from __future__ import annotations

from typing import Any

from overpaint_common import wire
from overpaint_common.live import connect
from overpaint_common.tickets import Tickets
from overpaint_producer import Img2Img
from tests.support.stack import Stack, eventually, job

LONG = (Img2Img(prompt="a blue square", steps=200, strength=1),)
SHORT = (Img2Img(prompt="a red circle", steps=2, strength=1),)


def told(redis: Any, job_id: str) -> list[tuple[int, str, int]]:
    """When (in Redis's milliseconds) a job told which phase and step."""
    entries = redis.xrange(wire.events_key(job_id))
    return [(int(at.split("-")[0]), fields["phase"], int(fields["step"])) for at, fields in entries]


def test_an_interactive_job_starts_within_one_step_of_a_worker_full_of_bulk(idle: Stack) -> None:
    """Given 200 bulk tickets and all the slots taken that bulk may have, when an interactive job comes, then it starts.

    From when it is ready for the device until it begins, the bulk job there makes no more than the step it is in.
    """
    with idle.producer() as producer, connect(idle.redis.url) as redis:
        bulk = [producer.submit(job(idle, priority="bulk", passes=LONG)) for _ in range(8)]
        for number in range(192):
            Tickets(redis).send_again(wire.queue_name("overpaint-mini", "bulk"), f"bulk-job-{number:04d}")
        with idle.worker(OVERPAINT_SLOTS="8"):
            eventually(lambda: any(handle.status().step > 3 for handle in bulk), "bulk on the device", 60)
            first = next(handle for handle in bulk if handle.status().step)
            urgent = producer.submit(job(idle, priority="interactive", passes=SHORT))
            assert urgent.wait(timeout=30).status == "succeeded"
            assert first.status().step < 150, "the bulk job is still under way"
            ready = next(at for at, phase, _ in told(redis, urgent.id) if phase == "wait")
            begun = next(at for at, phase, _ in told(redis, urgent.id) if phase == "denoise")
            steps = [step for at, phase, step in told(redis, first.id) if phase == "denoise" and ready < at < begun]
            assert len(steps) <= 1
            assert redis.llen(wire.queue_name("overpaint-mini", "bulk")) >= 190
            for handle in bulk:
                handle.cancel()
