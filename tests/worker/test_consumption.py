"""What a real Celery worker takes from a real Redis, and when it takes nothing."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from redis import Redis

from overpaint_common import wire
from overpaint_common.errors import BrokerUnavailable
from overpaint_common.tickets import message
from overpaint_worker.consumption import SoloLoop
from tests.support.celery_worker import BULK, INTERACTIVE, PATIENCE, SLOTS, STANDARD, BusyWorker, serving

LONGER_THAN_A_POLL = 1.5
"""Seconds; a worker that waits for tickets has asked anew by then."""


@pytest.fixture
def worker(tmp_path: Path) -> Iterator[BusyWorker]:
    with serving(tmp_path) as running:
        yield running


def test_others_find_a_slot_beside_a_full_load_of_bulk(worker: BusyWorker) -> None:
    """Given 200 bulk tickets, when others come, then they run within a second each, and bulk goes on at its share."""
    worker.send(BULK, 200)
    worker.until(lambda: worker.running[BULK] == 6)
    for total, queue in ((7, INTERACTIVE), (8, STANDARD)):
        sent = time.monotonic()
        worker.send(queue)
        worker.until_running(total)
        assert worker.begun[-1][0] == queue
        assert worker.begun[-1][1] - sent < 1
    assert worker.consumption.in_hand == {"bulk": 6, "standard": 1, "interactive": 1}
    assert worker.consumption.open_queues() == []
    for gate in worker.gates.values():
        gate.set()
    worker.until(lambda: worker.ended[BULK] == 200)
    worker.until_held()
    assert worker.most == {BULK: 6, STANDARD: 1, INTERACTIVE: 1}
    assert worker.most_held == SLOTS


def test_a_slot_that_a_bulk_job_leaves_is_filled_at_once(worker: BusyWorker) -> None:
    """Given bulk at its share and a long queue, when its jobs end, then others follow within a fraction of a second."""
    worker.send(BULK, 40)
    worker.until_running(6)
    began = time.monotonic()
    for rounds in range(2, 6):
        worker.end_jobs(BULK)
        worker.until_begun(6 * rounds)
    assert time.monotonic() - began < 2


def test_bulk_and_submissions_find_a_slot_beside_a_full_load_of_interactive_jobs(worker: BusyWorker) -> None:
    """Given interactive jobs at their share, when a submission and a bulk ticket come, then both run beside them."""
    worker.send(INTERACTIVE, 50)
    worker.until(lambda: worker.running[INTERACTIVE] == 6)
    worker.send(wire.SUBMIT_QUEUE)
    worker.send(BULK)
    worker.until(lambda: worker.running[wire.SUBMIT_QUEUE] == worker.running[BULK] == 1)
    assert worker.consumption.in_hand == {"interactive": 6, "bulk": 1}
    assert worker.most[INTERACTIVE] == 6


def test_bulk_has_its_turn_on_a_single_slot(tmp_path: Path) -> None:
    """Given one slot and interactive tickets without end, when a bulk ticket waits too, then it runs."""
    with serving(tmp_path, slots=1) as worker:
        worker.gates[INTERACTIVE].set()
        with feeding(worker, INTERACTIVE):
            worker.until(lambda: worker.ended[INTERACTIVE] > 20)
            worker.send(BULK)
            worker.until(lambda: worker.running[BULK] == 1)
            assert worker.waiting(INTERACTIVE) > 0


@contextmanager
def feeding(worker: BusyWorker, queue: str) -> Iterator[None]:
    """Keeps hundreds of tickets in the queue."""
    enough = threading.Event()

    def feed() -> None:
        while not enough.is_set():
            worker.send(queue, max(1, 500 - worker.waiting(queue)))
            enough.wait(0.02)

    worker.send(queue, 500)
    thread = threading.Thread(target=feed)
    thread.start()
    try:
        yield
    finally:
        enough.set()
        thread.join()


def test_a_restart_of_redis_changes_no_share(worker: BusyWorker) -> None:
    """Given bulk jobs at their share, when Redis is killed and comes back, then they count on and all are served."""
    worker.send(BULK, 20)
    worker.until_running(6)
    worker.redis.kill()
    worker.redis.start()
    worker.send(INTERACTIVE)
    worker.send(STANDARD)
    worker.until_running(SLOTS)
    assert worker.consumption.in_hand == {"bulk": 6, "interactive": 1, "standard": 1}
    worker.gates[BULK].set()
    worker.until(lambda: worker.ended[BULK] >= 20)
    worker.until_held(interactive=1, standard=1)
    assert worker.most[BULK] == 6


def test_jobs_of_a_lost_connection_hold_their_slots(worker: BusyWorker) -> None:
    """Given jobs at their share, when the connection is lost and their tickets come again, then none is taken twice."""
    worker.send(BULK, 5)
    worker.send(INTERACTIVE, 2)
    worker.until_running(7)
    with Redis.from_url(worker.redis.url) as client:
        client.execute_command("CLIENT", "KILL", "TYPE", "normal", "SKIPME", "yes")
    assert worker.nothing_begins(LONGER_THAN_A_POLL)
    assert worker.waiting(BULK) == 5
    worker.send(STANDARD)
    worker.until_running(SLOTS)
    for gate in worker.gates.values():
        gate.set()
    worker.until(lambda: worker.ended == {BULK: 10, INTERACTIVE: 4, STANDARD: 1})
    worker.until_held()
    assert worker.most_held == SLOTS


@pytest.mark.filterwarnings("ignore:Exception raised outside body:RuntimeWarning")
def test_what_celery_drops_holds_no_slot(worker: BusyWorker) -> None:
    """Given messages that break before their task begins, when a full share of them has come, then jobs still run."""
    broken = [json.loads(message(wire.RUN_TASK, "[]", BULK)) | {"body": '[[], "no mapping", {}]'} for _ in range(SLOTS)]
    with Redis.from_url(worker.redis.url) as client:
        client.lpush(BULK, *map(json.dumps, broken))
    worker.send(BULK)
    worker.until(lambda: worker.running[BULK] == 1)
    worker.until_held(bulk=1)


def test_nothing_is_taken_by_a_worker_that_leaves(worker: BusyWorker) -> None:
    """Given a worker that is told to leave, when a ticket comes, then it stays for another one."""
    worker.leaving.set()
    # The BRPOP that is under way may still fetch one, which is handed back.
    worker.send(BULK, 2)
    assert worker.nothing_begins(LONGER_THAN_A_POLL)
    assert worker.waiting(BULK) == 2
    with worker.consumption.alone(PATIENCE) as is_alone:
        assert not is_alone


def test_a_suspect_runs_alone(worker: BusyWorker) -> None:
    """Given full queues, when a suspect is found, then it runs once the worker is empty, and nothing runs beside it."""
    worker.send(BULK, 20)
    worker.until(lambda: worker.running[BULK] == 6)
    suspects = ["suspect"]
    runs, finish = threading.Event(), threading.Event()
    seen: list[object] = []

    def run(claim: str) -> None:
        seen.extend([claim, worker.running.total(), dict(worker.consumption.in_hand)])
        runs.set()
        finish.wait(PATIENCE)

    solo = SoloLoop(
        worker.consumption,
        take=lambda: suspects.pop() if suspects else None,
        run=run,
        give_back=seen.append,
        leaving=worker.leaving,
        interval=0.01,
    )
    solo.start()
    assert worker.nothing_begins(0.2)
    assert worker.consumption.is_alone
    assert not runs.is_set()
    worker.gates[BULK].set()
    assert runs.wait(PATIENCE)
    assert seen == ["suspect", 0, {}]
    worker.send(INTERACTIVE)
    assert worker.nothing_begins(LONGER_THAN_A_POLL)
    assert worker.consumption.open_queues() == []
    finish.set()
    worker.until(lambda: worker.ended[BULK] == 20 and worker.running[INTERACTIVE] == 1)
    worker.leaving.set()
    solo.join()


def test_a_ticket_that_still_arrives_is_waited_for(worker: BusyWorker) -> None:
    """Given a worker that waits for tickets, when it is to be alone and one arrives, then that job ends first."""
    entered, done = threading.Event(), threading.Event()

    def enter() -> None:
        with worker.consumption.alone(PATIENCE) as is_alone:
            assert is_alone
            entered.set()
            done.wait(PATIENCE)

    worker.gates[INTERACTIVE].set()
    worker.send(INTERACTIVE)
    worker.until(lambda: worker.ended[INTERACTIVE] == 1)
    worker.until_it_waits()
    thread = threading.Thread(target=enter)
    thread.start()
    while not worker.consumption.is_alone:
        time.sleep(0.001)
    worker.send(BULK)
    worker.until(lambda: worker.running[BULK] == 1)
    assert not entered.wait(LONGER_THAN_A_POLL)
    worker.gates[BULK].set()
    assert entered.wait(PATIENCE)
    done.set()
    thread.join()


def test_a_suspect_is_given_back_where_the_worker_does_not_empty(worker: BusyWorker) -> None:
    """Given a job that goes on, when a suspect has waited for its patience, then it is given back and work goes on."""
    worker.send(BULK)
    worker.until(lambda: worker.running[BULK] == 1)
    answers: Iterator[Exception | str] = iter([BrokerUnavailable("down"), "suspect"])
    back: list[str] = []
    given = threading.Event()

    def take() -> str | None:
        answer = next(answers, None)
        if isinstance(answer, Exception):
            raise answer
        return answer

    def give_back(claim: str) -> None:
        back.append(claim)
        given.set()
        raise BrokerUnavailable("down again")

    def run(_: str) -> None:
        raise AssertionError("not alone")

    solo = SoloLoop(
        worker.consumption,
        take=take,
        run=run,
        give_back=give_back,
        leaving=worker.leaving,
        interval=0.01,
        patience=0.2,
    )
    solo.start()
    assert given.wait(PATIENCE)
    worker.send(STANDARD)
    worker.until(lambda: worker.running[STANDARD] == 1)
    assert back == ["suspect"]
    worker.leaving.set()
    solo.join()


def test_only_one_job_at_a_time_is_alone(worker: BusyWorker) -> None:
    """Given a job that has the worker alone, when another one is to have it too, then that is refused."""
    with (
        worker.consumption.alone(PATIENCE) as is_alone,
        pytest.raises(RuntimeError, match="alone already"),
        worker.consumption.alone(PATIENCE),
    ):
        pass
    assert is_alone
