from __future__ import annotations

import pytest

from overpaint_common.failpoints import NAMES
from tests.faults.stage import Stage


@pytest.mark.parametrize("point", NAMES)
@pytest.mark.usefixtures("crews")
def test_a_worker_killed_at_any_point_costs_nobody_a_job(play: Stage, point: str) -> None:
    """Given two workers with jobs, when one is killed at a named point, then every job ends once and nothing stays."""
    once = play.once()
    play.arm(f"{point}=kill{once}")

    handles = play.submit_many(6, variants=2, output=play.publishing, webhook=f"{play.receiver.url}/done")

    verdict = play.judge().require()
    assert play.acted(once), f"nobody was killed at {point}"
    assert {verdict.records[handle.id]["status"] for handle in handles} == {"succeeded"}
