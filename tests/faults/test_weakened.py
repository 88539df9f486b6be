"""The suite is worth something only if it can fail: each broken build must be caught where the true one passes.

Every scenario is played twice, by the true build and by one with a promise broken on purpose. Neither lists the open
jobs but after a flush: a keeper that a busy machine held up would, and so make up by chance for what is broken.
"""

from __future__ import annotations

import signal
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from overpaint_producer import JobHandle
from tests.faults.crew import Crew
from tests.faults.stage import BOUND, Stage, stage
from tests.support.faulty_http import hang, requests
from tests.support.s3 import S3Server
from tests.support.stack import eventually

ONE_NET = "list_after_flush_only"

ENVIRONMENT = {"OVERPAINT_SLOTS": "1", "OVERPAINT_TEST_WEAKENED": ONE_NET}


def weakened(name: str) -> dict[str, str]:
    return {"OVERPAINT_TEST_WEAKENED": f"{ONE_NET},{name}"}


def kill_one_of_two(play: Stage, crews: list[Crew]) -> None:
    """A worker is killed with a job in hand."""
    gate = play.folder / "gate"
    handle = play.submit(play.job(f"gate:{gate}"))
    kill_who_works_on(handle, play, crews)
    gate.touch()


def freeze_before_the_commit(play: Stage, crews: list[Crew]) -> None:
    """A worker sleeps past its lease just before it commits, and wakes up when another has committed."""
    once = play.once()
    play.arm(f"uploaded=stop{once}")
    handle = play.submit()
    eventually(lambda: play.acted(once), "a worker frozen")
    eventually(lambda: play.has_record(handle.id), "another committed", BOUND)
    for crew in crews:
        crew.signal_child(signal.SIGCONT)


def kill_during_the_commit(play: Stage, crews: list[Crew]) -> None:
    """A worker is killed while the store keeps it waiting for the answer to its commit."""
    commit = play.s3.on(requests("PUT", "/record.json"), hang(30), times=1)
    handle = play.submit()
    eventually(lambda: commit.hits == 1, "a commit under way")
    kill_who_works_on(handle, play, crews)


def kill_and_flush_before_the_webhook(play: Stage, crews: list[Crew]) -> None:
    """A worker is killed while it hands a webhook over, and Redis loses its data."""
    hand_over = play.s3.on(requests("PUT", "/ledger/webhooks/"), hang(30), times=1)
    handle = play.submit(play.job(webhook=f"{play.receiver.url}/done"))
    eventually(lambda: hand_over.hits == 1, "a webhook on its way")
    kill_who_works_on(handle, play, crews)
    play.direct.flushall()


def kill_who_works_on(handle: JobHandle, play: Stage, crews: list[Crew]) -> None:
    eventually(lambda: bool(play.worker_of(handle.id)), "the job with a worker")
    worker = play.worker_of(handle.id)
    (crew,) = [crew for crew in crews if crew.child is not None and f"-{crew.child.pid}-" in worker]
    crew.signal_child(signal.SIGKILL)


SCENARIOS: list[tuple[Callable[[Stage, list[Crew]], None], dict[str, str], str]] = [
    (kill_one_of_two, {"OVERPAINT_KEEPER": "false"}, "not finished"),
    (freeze_before_the_commit, weakened("unconditional_put"), "record written twice"),
    (kill_during_the_commit, weakened("ack_before_commit"), "not finished"),
    (kill_and_flush_before_the_webhook, weakened("marker_before_webhook"), "webhook missing"),
]


@pytest.fixture(scope="module")
def true_stage(server: S3Server, tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Stage, list[Crew]]]:
    with (
        stage(server, tmp_path_factory.mktemp("true"), environment=ENVIRONMENT) as play,
        play.crews(2) as crews,
    ):
        yield play, crews


@pytest.mark.parametrize(("scene", "weakness", "kind"), SCENARIOS)
def test_a_broken_build_is_caught(
    server: S3Server,
    true_stage: tuple[Stage, list[Crew]],
    tmp_path: Path,
    scene: Callable[[Stage, list[Crew]], None],
    weakness: dict[str, str],
    kind: str,
) -> None:
    """Given a scene that the true build masters, when a build without one promise plays it, then the oracle says so."""
    play, crews = true_stage
    scene(play, crews)
    true = play.judge().require()
    for crew in crews:
        play.wait_for(crew)

    with stage(server, tmp_path, environment=ENVIRONMENT) as weak, weak.crews(2, **weakness) as weak_crews:
        scene(weak, weak_crews)
        broken = weak.judge(within=5 + 2 * true.seconds)

    assert kind in broken.kinds(), str(broken)
