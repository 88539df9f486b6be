from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.faults.crew import Crew
from tests.faults.stage import Stage, require_all_slots, stage
from tests.support.s3 import S3Server


@pytest.fixture(scope="module")
def shared_stage(server: S3Server, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stage]:
    with stage(server, tmp_path_factory.mktemp("stage")) as built:
        yield built


@pytest.fixture(scope="module")
def shared_crews(shared_stage: Stage) -> Iterator[list[Crew]]:
    with shared_stage.crews(2) as crews:
        yield crews
        if not shared_stage.broken:
            require_all_slots(shared_stage, crews)


@pytest.fixture
def crews(shared_stage: Stage, shared_crews: list[Crew]) -> list[Crew]:
    """Two crews that serve the shared stage, both with a living worker."""
    for crew in shared_crews:
        shared_stage.wait_for(crew)
    return shared_crews


@pytest.fixture
def play(shared_stage: Stage) -> Iterator[Stage]:
    """The stage of a module's tests; no fault outlives the test that made it."""
    assert not shared_stage.broken, "an earlier test has left this stage in disorder; look at the first one that failed"
    yield shared_stage
    shared_stage.heal()
