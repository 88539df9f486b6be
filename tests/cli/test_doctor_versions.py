"""What `overpaint doctor` says of packages that do not fit together, and of a disk without room."""

from __future__ import annotations

import shutil
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path

import pytest

from overpaint_common.fleet import WorkerCard
from overpaint_common.room import check_room, existing
from overpaint_producer.cli.checks.fleet import disagreements
from overpaint_producer.cli.checks.versions import unmet

PYTHON = ">=3.11"


@pytest.mark.parametrize(
    ("requirement", "state", "says"),
    [
        ("click<2", "warn", f"click {version('click')} does not fit: overpaint wants <2"),
        ("no-such-package>=1", "fail", "no-such-package is not installed"),
        ("no-such-package; extra == 'worker'", "fail", "no-such-package is not installed"),
    ],
)
def test_a_requirement_that_is_not_met_is_named_with_what_to_install(requirement: str, state: str, says: str) -> None:
    (found,) = unmet([requirement], PYTHON)
    assert (found.state, found.message) == (state, says)
    assert "pip install" in found.remedy
    assert ("overpaint[worker]" in found.remedy) == ("extra" in requirement)


@pytest.mark.parametrize("requirement", ["click>=8", "no-such-package; extra == 'dev'", "winsys; os_name == 'nt'"])
def test_what_is_met_or_not_wanted_here_is_no_finding(requirement: str) -> None:
    assert list(unmet([requirement], PYTHON)) == []


def test_another_python_than_the_release_was_made_for_fails() -> None:
    (found,) = unmet([], "<3")
    assert (found.state, found.remedy) == ("fail", "use Python <3")


def _worker(name: str, model: str = "mini", **versions: str) -> WorkerCard:
    at = datetime.now(UTC)
    return WorkerCard(name=name, device="cpu", models=(model,), slots=1, pid=1, started_at=at, versions=versions)


def test_workers_of_one_model_on_several_versions_are_named_with_them() -> None:
    """Given three workers, when two of one model differ, then the package is named, and not what other models run."""
    workers = [_worker("a", torch="2.12"), _worker("b", torch="2.13"), _worker("c", "other", torch="2.11")]

    (found,) = disagreements(workers, "1.0")

    assert found.state == "warn"
    assert found.message == "the workers of mini have several versions of torch: 2.12 on a, 2.13 on b"
    assert "one image" in found.remedy


def test_workers_of_another_release_than_this_are_told() -> None:
    (found,) = disagreements([_worker("a", overpaint="0.9"), _worker("b", overpaint="0.9"), _worker("old")], "1.0")

    assert found.message == "overpaint is 1.0 here and 0.9 on workers"


def test_workers_that_agree_and_those_that_do_not_tell_are_no_finding() -> None:
    workers = [_worker("a", overpaint="1.0", torch="2.13"), _worker("b", overpaint="1.0", torch="2.13"), _worker("old")]

    assert list(disagreements(workers, "1.0")) == []
    assert list(disagreements(workers, None)) == []


@pytest.mark.parametrize(("share", "state"), [(0.5, "ok"), (2.0, "warn")])
def test_less_room_than_is_comfortable_is_warned_of(tmp_path: Path, share: float, state: str) -> None:
    free = shutil.disk_usage(tmp_path).free
    found = check_room("pictures", tmp_path, int(free * share), "buy a disk")
    assert found.state == state
    assert str(tmp_path) in found.message
    assert ("buy a disk" in found.remedy) == (state == "warn")


def test_room_for_a_folder_that_is_not_there_yet_is_that_of_the_one_above(tmp_path: Path) -> None:
    assert existing(tmp_path / "not" / "yet") == tmp_path
