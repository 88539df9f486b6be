"""Worker processes: engines that die, workers that drain, supervisors that replace, overlap of transfers and engine."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time

import psutil
import pytest
from redis import Redis

from overpaint_producer import Img2Img, Job
from tests.support.faults import delay, requests
from tests.support.stack import LIGHT_WORKER, Stack, eventually
from tests.support.stack import job as stack_job

STEP = "0.02"


def job(stack: Stack, steps: int = 8, prompt: str = "a blue square", **changes: object) -> Job:
    return stack_job(stack, passes=(Img2Img(prompt=prompt, steps=steps, strength=1),), **changes)


@pytest.mark.long
def test_jobs_of_a_dead_engine_finish_in_the_next_process(idle: Stack) -> None:
    """Given an engine thread that is killed in its steps, when the supervisor replaces the process, then all jobs end.

    The child is the real one but for its model, which asks Python to end the thread it runs on.
    """
    marker = idle.folder / "died"
    with idle.producer() as producer, idle.worker(LIGHT_WORKER) as worker:
        handles = [producer.submit(job(idle, prompt=f"die:{marker}")) for _ in range(4)]
        records = [handle.wait(timeout=120) for handle in handles]

        assert marker.exists()
        assert [record.status for record in records] == ["succeeded"] * 4
        assert max(record.attempts for record in records) == 2
        assert len({record.worker for record in records}) == 1
        assert "child ended device=cpu status=70" in worker.text()
        eventually(lambda: not idle.keys("ledger", "open"), "markers deleted")
        assert worker.stop() == 0


@pytest.mark.long
def test_a_worker_that_is_stopped_finishes_what_it_began(idle: Stack) -> None:
    """Given a worker with jobs in hand and in the queue, when it gets SIGTERM, then it exits 0 and nothing is lost."""
    with idle.producer() as producer:
        with idle.worker(LIGHT_WORKER, OVERPAINT_SLOTS="2", OVERPAINT_TEST_STEP=STEP) as worker:
            handles = [producer.submit(job(idle, steps=30)) for _ in range(5)]
            eventually(lambda: handles[0].status().step > 0, "first job running")
            assert worker.stop() == 0
        finished = [handle for handle in handles if handle.status().finished]
        assert 0 < len(finished) < 5
        with idle.worker(LIGHT_WORKER):
            assert [handle.wait(timeout=60).status for handle in handles] == ["succeeded"] * 5
        assert {handle.result().attempts for handle in handles} <= {1, 2}


@pytest.mark.long
def test_a_worker_that_is_stopped_hands_back_what_it_cannot_finish(idle: Stack) -> None:
    """Given jobs that outlast the grace in every slot, when the worker gets SIGTERM, then all are back in the queue.

    None stays with Celery until its visibility timeout, and none has used up an attempt of its own.
    """
    with idle.producer() as producer, Redis.from_url(idle.redis.url) as redis:
        with idle.worker(LIGHT_WORKER, OVERPAINT_SLOTS="4", OVERPAINT_GRACE="3", OVERPAINT_TEST_STEP="0.1") as worker:
            handles = [producer.submit(job(idle, steps=200, max_attempts=1)) for _ in range(4)]
            eventually(lambda: any(handle.status().step for handle in handles), "a job running")
            began = time.monotonic()
            assert worker.stop() == 0
            assert time.monotonic() - began < 10
            assert "child killed" not in worker.text()
        assert redis.hlen("unacked") == 0
        assert redis.llen("overpaint.overpaint-mini.standard") == 4
        assert {handle.status().state for handle in handles} == {"queued"}
        for handle in handles[1:]:
            handle.cancel()
        with idle.worker(LIGHT_WORKER):
            assert handles[0].wait(timeout=120).status == "succeeded"


def test_a_killed_supervisor_takes_its_children_along(idle: Stack) -> None:
    """Given a supervisor that is killed, when its pipe closes, then the child ends by itself."""
    with idle.worker(LIGHT_WORKER) as worker:
        children = psutil.Process(worker.process.pid).children()
        assert len(children) == 1
        os.kill(worker.process.pid, signal.SIGKILL)
        worker.process.wait(10)
        eventually(lambda: not children[0].is_running() or children[0].status() == psutil.STATUS_ZOMBIE, "child ended")


@pytest.mark.long
def test_urgent_jobs_overtake_those_that_wait(idle: Stack) -> None:
    """Given a queue of bulk jobs, when an interactive one comes later, then it starts before those still queued."""
    with idle.producer() as producer:
        bulk = [producer.submit(job(idle, priority="bulk")) for _ in range(6)]
        urgent = producer.submit(job(idle, priority="interactive"))
        with idle.worker(LIGHT_WORKER, OVERPAINT_SLOTS="1"):
            records = [handle.wait(timeout=120) for handle in bulk]
            first = urgent.wait(timeout=10).started_at
        assert first is not None
        assert all(record.started_at is not None and first < record.started_at for record in records)


@pytest.mark.parametrize(
    ("environment", "says"),
    [
        ({"OVERPAINT_REGISTRY": "/nowhere/models.toml"}, "OVERPAINT_REGISTRY"),
        ({"OVERPAINT_LEDGER": ""}, "OVERPAINT_LEDGER"),
        ({"OVERPAINT_SLOTS": "0", "OVERPAINT_READ": "ftp://x"}, "OVERPAINT_SLOTS"),
        ({"OVERPAINT_READ": ""}, "this worker would refuse every job"),
        pytest.param({"OVERPAINT_DEVICES": "99"}, "finds no such CUDA device", marks=pytest.mark.long),
    ],
)
def test_a_worker_that_cannot_start_says_why_and_ends(idle: Stack, environment: dict[str, str], says: str) -> None:
    """Given settings that are wrong, when a worker starts, then it ends with status 78 and one line of what to mend."""
    ended = subprocess.run(
        [sys.executable, "-m", "overpaint_worker"],
        env=idle.worker_environment() | environment,
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert ended.returncode == 78
    assert says in ended.stderr
    assert "Traceback" not in ended.stderr


@pytest.mark.long
def test_a_model_that_does_not_load_stops_the_supervisor(idle: Stack) -> None:
    """Given a registry whose model has no weights, when the worker starts, then it does not restart for ever."""
    folder = idle.folder / "empty-model"
    folder.mkdir()
    (folder / "model_index.json").write_text('{"_class_name": "StableDiffusionImg2ImgPipeline"}')
    registry = idle.folder / "models.toml"
    registry.write_text('[models.empty]\npath = "empty-model"\n')
    started = time.monotonic()
    ended = subprocess.run(
        [sys.executable, "-m", "overpaint_worker", "--devices", "cpu"],
        env=idle.worker_environment() | {"OVERPAINT_REGISTRY": str(registry)},
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert ended.returncode == 78
    assert "model 'empty' does not load" in ended.stderr
    assert time.monotonic() - started < 60


@pytest.mark.long
def test_the_engine_does_not_wait_for_transfers(idle: Stack) -> None:
    """Given 50 ms on each storage call and 24 jobs on 8 slots, when they run, then the engine is idle under 10 percent.

    Counted while at least 8 jobs are in hand or waiting, which is until the 17th begins.
    """
    with idle.producer() as producer:
        handles = [producer.submit(job(idle, steps=6)) for _ in range(24)]
        idle.proxy.on(requests(), delay(0.05))
        with idle.worker():
            records = [handle.wait(timeout=120).raise_for_status() for handle in handles]

    runs = [run for record in records for variant in record.variants for run in variant.passes]
    began = sorted((run.started_at.timestamp(), run.seconds) for run in runs if run.started_at is not None)
    assert len(began) == 24
    counted = began[:16]
    idle_share = 1 - sum(seconds for _, seconds in counted) / (began[16][0] - began[0][0])
    assert idle_share < 0.10
