"""The suite is worth something only if it can fail: each broken build must be caught where the true one passes.

Every scenario is played twice, by the true build and by one with a promise broken on purpose.
"""

from __future__ import annotations

import signal
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.faults.oracle import Verdict
from tests.faults.stage import BOUND, Crew, Stage, stage
from tests.support.faulty_http import hang, requests
from tests.support.s3 import S3Server
from tests.support.stack import eventually

TOO_LONG = 14.0
"""Seconds after which a broken build has had its chance; the true one needs less than half of that."""


def kill_one_of_two(play: Stage, crews: list[Crew]) -> None:
    """A worker is killed with jobs in hand."""
    once = play.once()
    play.arm(f"claimed=kill{once}")
    play.submit_many(4)
    eventually(lambda: play.acted(once), "a worker killed")


def freeze_before_the_commit(play: Stage, crews: list[Crew]) -> None:
    """A worker sleeps past its lease just before it commits, and wakes up when another has committed."""
    once = play.once()
    play.arm(f"uploaded=stop{once}")
    handle = play.submit()
    eventually(lambda: play.acted(once), "a worker frozen")
    eventually(lambda: bool(play.keys("ledger", "jobs", handle.id, "record.json")), "another committed", BOUND)
    for crew in crews:
        crew.signal_child(signal.SIGCONT)


def kill_during_the_commit(play: Stage, crews: list[Crew]) -> None:
    """A worker is killed while the store keeps it waiting for the answer to its commit."""
    commit = play.s3.on(requests("PUT", "/record.json"), hang(30), times=1)
    play.submit()
    eventually(lambda: commit.hits == 1, "a commit under way")
    kill_the_one_who_works(play, crews)


def kill_and_flush_before_the_webhook(play: Stage, crews: list[Crew]) -> None:
    """A worker is killed while it hands a webhook over, and Redis loses its data."""
    hand_over = play.s3.on(requests("PUT", "/ledger/webhooks/"), hang(30), times=1)
    play.submit(play.job(webhook=f"{play.receiver.url}/done"))
    eventually(lambda: hand_over.hits == 1, "a webhook on its way")
    kill_the_one_who_works(play, crews)
    play.direct.flushall()


def kill_the_one_who_works(play: Stage, crews: list[Crew]) -> None:
    (worker,) = play.holders()
    for crew in crews:
        child = crew.child
        if child is not None and f"-{child.pid}-" in worker:
            crew.signal_child(signal.SIGKILL)


SCENARIOS: list[tuple[Callable[[Stage, list[Crew]], None], dict[str, str], str]] = [
    (kill_one_of_two, {"OVERPAINT_KEEPER": "false"}, "not finished"),
    (freeze_before_the_commit, {"OVERPAINT_TEST_WEAKENED": "unconditional_put"}, "record written twice"),
    (kill_during_the_commit, {"OVERPAINT_TEST_WEAKENED": "ack_before_commit"}, "not finished"),
    (kill_and_flush_before_the_webhook, {"OVERPAINT_TEST_WEAKENED": "marker_before_webhook"}, "webhook missing"),
]


def played(server: S3Server, folder: Path, scene: Callable[[Stage, list[Crew]], None], **weakness: str) -> Verdict:
    with stage(server, folder, OVERPAINT_SLOTS="1") as play, play.crews(2, **weakness) as crews:
        scene(play, crews)
        return play.judge(within=TOO_LONG if weakness else BOUND)


@pytest.mark.parametrize(("scene", "weakness", "kind"), SCENARIOS)
def test_a_broken_build_is_caught(
    server: S3Server,
    tmp_path: Path,
    scene: Callable[[Stage, list[Crew]], None],
    weakness: dict[str, str],
    kind: str,
) -> None:
    """Given a scene that the true build masters, when a build without one promise plays it, then the oracle says so."""
    true = played(server, tmp_path / "true", scene).require()
    broken = played(server, tmp_path / "broken", scene, **weakness)

    assert true.seconds < TOO_LONG / 2
    assert kind in broken.kinds(), str(broken)
