"""What a run of chaos plays and reports, without playing it."""

from __future__ import annotations

from itertools import islice

import pytest

from tests.faults.census import Census, Span
from tests.faults.chaos import Plan, Played, Run, moves
from tests.faults.oracle import Verdict, Violation
from tests.faults.recovery import Kill, Recovery, recovery, spread
from tests.faults.report import numbers
from tests.faults.timeline import STATES, timeline
from tests.faults.troubles import LANES


def a_run(*violations: Violation) -> Run:
    """Four jobs and two kills; of the three jobs in hand two ran again, after 3 and 5 seconds."""
    crashed = {"status": "failed", "failure": {"code": "worker_crashed"}, "attempts": 3}
    records = {"a": {"status": "succeeded", "attempts": 2}, "b": {"status": "succeeded", "attempts": 1}, "c": crashed}
    run = Run(Plan(seed=7, workers=2, lease=3, kills=2), peace_at=20)
    run.verdict = Verdict(4, {"succeeded": 2, "failed": 1}, violations, 4.0, 1, 0, records)
    run.kills = [Kill(100, "w1", ["a", "b"], {"a": 3.1, "b": 0.1}), Kill(105, "w2", ["c"], {"c": 3.3})]
    run.recoveries = [Recovery("a", 3, True), Recovery("b", 0.1, False), Recovery("c", 5, True)]
    run.faults = [Played("kill", "kill_worker", "", 4, 4)]
    run.spans = [Span(0, "serving", 0, 10), Span(0, "dead", 10, 20)]
    return run


@pytest.mark.parametrize("lane", ["kill", *LANES])
def test_a_seed_fixes_the_faults(lane: str) -> None:
    """Given a lane, when its faults are drawn twice, then one seed gives the same ones, and another seed others."""
    first, again, other = (list(islice(moves(seed, lane), 50)) for seed in (7, 7, 8))

    assert first == again
    assert first != other


def test_figures_of_a_run() -> None:
    """Given a run in which one job was lost, when its figures are taken, then they are those of its events."""
    figures = numbers(a_run(Violation("not finished", "d", "accepted, and there is no record")))

    assert not figures["ok"]
    assert (figures["lost"], figures["recorded_twice"]) == (1, 0)
    assert (figures["computed_twice"], figures["computed_twice_share"]) == (1, 0.25)
    assert figures["attempts_beyond_the_first"] == 3
    assert figures["failures"] == {"worker_crashed": 1}
    assert (figures["kills"], figures["jobs_in_hand_of_killed"]) == (2, 3)
    assert figures["kill_to_running_s"] == {"count": 2, "median": 4, "p95": 5, "max": 5}
    assert figures["kill_to_returned_s"]["max"] == 3.3
    assert figures["kill_to_returned_s"]["count"] == 2


def test_spread_of_nothing() -> None:
    """Given no figures at all, when they are summed up, then there is nothing to see, and no error."""
    assert spread([]) == {"count": 0, "median": 0, "p95": 0, "max": 0}


@pytest.mark.parametrize(
    ("moments", "found"),
    [
        ([("running", "dead"), ("running", "other")], Recovery("a", 2.0, True)),
        ([("running", "dead"), ("succeeded", "dead")], Recovery("a", 2.0, False)),
        ([("running", "dead"), ("queued", "")], None),
    ],
)
def test_recovery_of_a_job(moments: list[tuple[str, str]], found: Recovery | None) -> None:
    """Given a job's events after its worker was killed, when its fate is asked, then the first other worker or the
    end decides."""
    entries = [
        (f"{101_000 + 1000 * n}-0", {"state": state, "worker": worker}) for n, (state, worker) in enumerate(moments)
    ]

    assert recovery(Kill(100, "dead", ["a"]), "a", entries) == found


def test_census_joins_equal_looks() -> None:
    """Given looks at two workers, when one changes its state, then its new span begins where the old one ends."""
    census = Census("redis://127.0.0.1:1", list, 0)
    for now in (1.0, 2.0):
        census.note(0, "serving", now)
        census.note(1, "serving", now)
    census.note(0, "dead", 3.0)

    assert census.spans == [Span(0, "serving", 1, 3), Span(1, "serving", 1, 2), Span(0, "dead", 3, 3)]


def test_timeline_shows_each_state() -> None:
    """Given a worker that served and was dead for long, when the picture is drawn, then both colours fill it."""
    picture = timeline(a_run())

    counts = {colour: count for count, colour in picture.getcolors(1 << 16) or ()}
    assert counts[STATES["serving"]] > 5000
    assert counts[STATES["dead"]] > 5000
