"""All faults at once, at random, with a seed; `python -m tests.faults` plays it for longer."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.faults.chaos import Plan, play
from tests.faults.report import write_report
from tests.support.s3 import S3Server


@pytest.mark.timeout(300)
def test_a_short_storm(server: S3Server, tmp_path: Path) -> None:
    """Given a fleet under load, when workers, Redis, store and users misbehave at random, then every promise holds,
    and the report says what was done."""
    run = play(Plan(seed=7, seconds=15, workers=2), server)

    page = write_report(run, tmp_path)
    assert run.ok, page.read_text()
    numbers = json.loads((tmp_path / "report.json").read_text())
    assert numbers["accepted"] == numbers["finished"] > 0
    assert numbers["faults"]


@pytest.mark.long
@pytest.mark.timeout(1500)
@pytest.mark.parametrize("seed", [1, 2])
def test_a_long_storm(server: S3Server, tmp_path: Path, seed: int) -> None:
    """Given a fleet under load, when everything fails at random for ten minutes, then every promise holds."""
    run = play(Plan(seed=seed, seconds=600), server, logs=tmp_path / "logs")

    assert run.ok, write_report(run, tmp_path).read_text()


@pytest.mark.long
@pytest.mark.timeout(1500)
def test_two_hundred_kills(server: S3Server, tmp_path: Path) -> None:
    """Given a fleet under load, when two hundred workers are killed one after another, then every promise holds."""
    run = play(Plan(seed=3, seconds=900, kills=200), server, logs=tmp_path / "logs")

    assert run.ok, write_report(run, tmp_path).read_text()
    assert len(run.kills) == 200
