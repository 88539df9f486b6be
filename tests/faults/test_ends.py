"""Ends that race: cancelling, stopping, dying producers and keepers."""

from __future__ import annotations

import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager
from pathlib import Path

import pytest

from overpaint_common import wire
from tests.faults.crew import Crew
from tests.faults.stage import SLOTS, Stage, stage
from tests.support.faulty_http import answer, hang, requests
from tests.support.s3 import S3Server
from tests.support.stack import eventually


@pytest.mark.usefixtures("crews")
@pytest.mark.parametrize("point", ["claimed", "decoded", "denoising", "encoded", "uploading", "uploaded", "recorded"])
def test_cancelling_a_job_at_any_point_gives_it_one_end(play: Stage, point: str) -> None:
    """Given a job at a named point, when it is cancelled there, then it has one end, the one that cancel returned."""
    gate = play.folder / f"cancel-{point}"
    play.arm(f"{point}=gate:{gate}")
    handle = play.submit(play.job(variants=2))
    eventually(gate.with_name(f"{gate.name}.reached").exists, f"a job at {point}")

    record = handle.cancel()
    gate.touch()

    verdict = play.judge().require()
    assert record.status == ("succeeded" if point == "recorded" else "cancelled")
    assert verdict.records[handle.id]["status"] == record.status


@pytest.mark.usefixtures("crews")
def test_cancelling_many_jobs_at_once_gives_each_one_end(play: Stage) -> None:
    """Given a crowd of jobs queued and in hand, when half of them are cancelled meanwhile, then each has one end."""
    handles = play.submit_many(24)

    said = {handle.id: handle.cancel().status for handle in handles[::2]}

    verdict = play.judge().require()
    assert {job_id: verdict.records[job_id]["status"] for job_id in said} == said
    assert {verdict.records[handle.id]["status"] for handle in handles[1::2]} == {"succeeded"}


@contextmanager
def nothing_amiss(_: Stage) -> Iterator[None]:
    yield


@contextmanager
def redis_gone(play: Stage) -> Iterator[None]:
    with play.redis_proxy.down():
        yield


@contextmanager
def store_gone(play: Stage) -> Iterator[None]:
    play.s3.on(requests(), answer(503, "SlowDown"))
    yield
    play.s3.clear_rules()


@pytest.mark.usefixtures("crews")
@pytest.mark.parametrize(
    "trouble", [nothing_amiss, *(pytest.param(each, marks=pytest.mark.long) for each in (redis_gone, store_gone))]
)
def test_a_worker_told_to_stop_hands_its_jobs_on(
    play: Stage, trouble: Callable[[Stage], AbstractContextManager[None]]
) -> None:
    """Given busy workers, when one is told to stop, in an outage too, then it ends within its grace and the others do
    its jobs."""
    with play.crews(1, OVERPAINT_GRACE="5") as (leaving,), play.held(3 * SLOTS) as held:
        play.submit_many(4)
        with trouble(play):
            leaving.process.send_signal(signal.SIGTERM)
            held.go_on()
            leaving.process.wait(20)

    verdict = play.judge().require()
    assert set(verdict.ends) <= {"succeeded", "cancelled"}


PRODUCER = """
import sys
from overpaint_common.job import Job
from overpaint_producer import Producer
with Producer() as producer:
    producer.submit(Job.parse(sys.argv[1]), retry_for=0)
"""


def producing(play: Stage) -> dict[str, str]:
    """The environment of a producer process."""
    return {**play.worker_environment(), "OVERPAINT_WEBHOOKS": ""}


@pytest.mark.usefixtures("crews")
@pytest.mark.parametrize("written", ["request", "marker"])
def test_a_producer_killed_between_its_writes_leaves_nothing_half_done(play: Stage, written: str) -> None:
    """Given a producer that is killed after one of its writes, when the job is submitted again, then it is done once;
    and before that it is no job at all, or one that any keeper finds."""
    job = play.job()
    with ExitStack() as trouble:
        if written == "request":
            play.s3.on(requests("PUT", "/ledger/open/"), hang(20), times=1)
        else:
            trouble.enter_context(play.redis_proxy.pause())
        process = subprocess.Popen([sys.executable, "-c", PRODUCER, job.model_dump_json()], env=producing(play))
        trouble.callback(process.wait)
        trouble.callback(process.kill)
        wanted = f"/{job.id}/request.json" if written == "request" else f"/{job.id}"
        eventually(lambda: any(write.key.endswith(wanted) for write in play.s3.writes), f"{written} written", 30)

    handle = play.submit(job)

    verdict = play.judge().require()
    assert verdict.records[handle.id]["status"] == "succeeded"


def test_interactive_jobs_without_end_do_not_keep_bulk_waiting(play: Stage, crews: list[Crew]) -> None:
    """Given interactive jobs that never stop coming, when a bulk job is queued, then it is done while they come."""
    enough = threading.Event()

    def flood() -> None:
        while not enough.is_set():
            if play.direct.llen(wire.queue_name("overpaint-mini", "interactive")) < 3 * SLOTS * len(crews):
                play.submit(play.job(priority="interactive"))
            else:
                time.sleep(0.01)

    threads = [threading.Thread(target=flood) for _ in range(3)]
    for thread in threads:
        thread.start()
    try:
        eventually(lambda: play.direct.llen(wire.queue_name("overpaint-mini", "interactive")) > SLOTS, "a backlog")
        handles = play.submit_many(3, priority="bulk")
        eventually(lambda: all(play.has_record(handle.id) for handle in handles), "bulk jobs done among the others", 30)
    finally:
        enough.set()
        for thread in threads:
            thread.join()

    play.judge().require()


@pytest.mark.long
def test_a_keeper_that_dies_is_followed_by_another(server: S3Server, tmp_path: Path) -> None:
    """Given two supervisors, when the one whose keeper leads is killed and then a worker with jobs, then the other
    keeper returns them."""
    with stage(server, tmp_path) as play, play.crews(2) as crews:
        leader = next(crew for crew in crews if crew.text().rfind("keeper leads") > crew.text().rfind("stands by"))
        play.submit_many(6)
        leader.process.kill()
        next(crew for crew in crews if crew is not leader).signal_child(signal.SIGKILL)

        play.judge(within=60).require()
