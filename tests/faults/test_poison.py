"""Jobs that take their worker along."""

from __future__ import annotations

import pytest

from tests.faults.stage import Stage


@pytest.mark.usefixtures("crews")
@pytest.mark.parametrize(
    ("poison", "code"),
    [
        ("kill", "worker_crashed"),
        pytest.param("segv", "worker_crashed", marks=pytest.mark.long),
        ("hang", "engine_died"),
        ("oom", "device_out_of_memory"),
        ("broken", "pipeline_failed"),
    ],
)
def test_a_poisoned_job_is_given_up_and_takes_nobody_along(play: Stage, poison: str, code: str) -> None:
    """Given a job that kills, hangs or fails its worker, when it is tried again and again among others, then it is
    recorded as failed and kept as a dead letter, and all the others succeed."""
    tries = 1 if poison in ("oom", "broken") else 3  # Their pauses are long; how they grow is tested elsewhere.
    before = play.submit_many(6)
    poisoned = play.submit(play.job(f"poison:{poison}", max_attempts=tries))
    after = play.submit_many(6)

    verdict = play.judge(within=90).require()

    record = verdict.records[poisoned.id]
    assert (record["status"], record["failure"]["code"]) == ("failed", code)
    assert {verdict.records[handle.id]["status"] for handle in (*before, *after)} == {"succeeded"}
    assert any(poisoned.id in key for key in play.keys("ledger", "dead")), "no dead letter"
