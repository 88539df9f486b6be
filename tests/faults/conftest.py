from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.faults.crew import Crew
from tests.faults.stage import Stage, require_all_slots, stage
from tests.support.s3 import S3Server


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """All tests of this folder are run by `make faults`, and not by `make test`."""
    for item in items:
        if item.path.is_relative_to(Path(__file__).parent):
            item.add_marker(pytest.mark.faults)


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
