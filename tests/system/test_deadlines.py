"""Deadlines and webhooks through the whole system: a real worker, its keeper, a real receiver."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest

from overpaint_common.errors import InvalidJob, JobExpired
from overpaint_producer import Img2Img, verify_webhook
from tests.support.stack import LIGHT_WORKER, Stack, eventually, job
from tests.webhooks.receivers import receiver

SECRET = "whsec_dGhpcyBpcyBhIHNlY3JldCBmb3IgdGVzdHMgb25seSE="


def test_a_running_job_ends_at_its_deadline_and_its_receiver_is_told(idle: Stack) -> None:
    """Given a job that takes longer than its deadline allows, when that passes, then it stops, is recorded and told.

    The worker takes the next job at once, and nothing of the expired one is left but its record.
    """
    with receiver() as hooks, idle.producer() as producer:
        environment = {
            "OVERPAINT_WEBHOOKS": hooks.url,
            "OVERPAINT_WEBHOOK_PRIVATE": "true",
            "OVERPAINT_WEBHOOK_SECRET": SECRET,
        }
        with idle.worker(LIGHT_WORKER, OVERPAINT_TEST_STEP="0.05", **environment):
            deadline = datetime.now(UTC) + timedelta(seconds=4)
            long = (Img2Img(prompt="a blue square", steps=200, strength=1),)
            handle = producer.submit(
                job(idle, passes=long, deadline=deadline, webhook=f"{hooks.url}/done?token=secret")
            )
            eventually(lambda: handle.status().step > 0, "painting", 4)
            record = handle.wait(timeout=30)
            assert record.status == "expired"
            assert record.finished_at >= deadline
            with pytest.raises(JobExpired, match="not done before its deadline"):
                handle.pictures()

            arrived = hooks.took(20)
            event = verify_webhook(arrived.headers, arrived.body, SECRET)
            assert (arrived.path, event.type, event.job_id) == ("/done?token=secret", "job.expired", handle.id)
            eventually(lambda: not idle.keys("ledger", "open") and not idle.keys("ledger", "webhooks"), "all tidied")
            assert idle.keys("out", handle.id) == ["result.json"]
            assert b"token" not in idle.body(str(idle.at("ledger", "jobs", handle.id, "record.json")))
            assert producer.submit(job(idle)).wait(timeout=30).status == "succeeded"


def test_a_deadline_that_has_passed_is_refused_at_submission(idle: Stack) -> None:
    """Given a deadline in the past, when a job is submitted, then the error names it and nothing is accepted."""
    with idle.producer() as producer, pytest.raises(InvalidJob, match="has passed already"):
        producer.submit(job(idle, deadline=datetime.now(UTC) - timedelta(seconds=1)))
    assert not idle.keys("ledger")
