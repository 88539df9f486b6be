"""Who leads, on whose clock and on which Redis; a keeper that cannot work, that is told to stop, that meets a bug."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta, tzinfo
from typing import Any

import pytest

from overpaint_common import wire
from overpaint_common.errors import StorageUnavailable
from overpaint_common.finish import Finish
from overpaint_common.leases import Claim, Leases
from overpaint_common.ledger import Ledger
from overpaint_common.live import connect
from overpaint_common.storage import LocalStore
from overpaint_worker.holding import Holdings
from overpaint_worker.keeper import pulse
from overpaint_worker.keeper.endings import Endings
from overpaint_worker.keeper.keeper import Keeper
from overpaint_worker.keeper.leader import Leader
from overpaint_worker.keeper.pulse import Pulse
from tests.keeper.conftest import Place, queue_of
from tests.support.stack import eventually

Keeping = Callable[..., Keeper]


@contextmanager
def beating(place: Place, now_ms: Callable[[], int], lease: float) -> Iterator[Pulse]:
    beats = Pulse(Leader(connect(place.server.url)), now_ms, lease=lease)
    beats.start()
    try:
        eventually(lambda: beats.leads, "leads", 5)
        assert beats.was_interrupted()
        yield beats
    finally:
        beats.stop()


def test_another_redis_in_the_place_of_the_first_is_noticed(place: Place) -> None:
    """Given a keeper that leads, when Redis restarts between two beats, then writes may be lost, and it knows."""
    with beating(place, place.leases.now_ms, 30) as beats:
        place.server.kill()
        place.server.start()
        eventually(beats.was_interrupted, "interruption noticed", 5)


def test_a_clock_of_redis_that_is_set_back_stops_nobody(place: Place) -> None:
    """Given a keeper that leads, when Redis's clock goes back two hours, then lapsed leases are its business again."""
    back = 0

    def now_ms() -> int:
        return place.leases.now_ms() - back

    with beating(place, now_ms, 2) as beats:
        eventually(lambda: beats.living_had_time(now_ms()), "first", 5)
        back = 7_200_000
        eventually(beats.was_interrupted, "interruption noticed", 5)
        eventually(lambda: beats.living_had_time(now_ms()), "after the clock went back", 5)


def test_a_bug_ends_neither_renewals_nor_heartbeats(place: Place) -> None:
    """Given an error that nobody foresaw, when it is over, then leases are renewed and the keeper leads on."""
    failing = threading.Event()

    class Buggy(Leases):
        def renew(self, claims: Any) -> list[Claim]:
            self._fail()
            return super().renew(claims)

        def now_ms(self) -> int:
            self._fail()
            return super().now_ms()

        def _fail(self) -> None:
            if failing.is_set():
                raise ValueError("a bug")

    buggy = Buggy(place.redis, seconds=1, worker="here")
    job = place.accept()
    claim = place.claim(job)
    holdings = Holdings(buggy, seconds=1)
    holdings.start()
    with holdings.hold(claim), beating(place, buggy.now_ms, 1) as beats:
        failing.set()
        eventually(lambda: not beats.leads, "no lead without Redis's time", 5)
        failing.clear()
        eventually(lambda: beats.leads, "leads again", 5)
        ends = place.redis.zscore(wire.LEASES_KEY, job.id)
        eventually(lambda: place.redis.zscore(wire.LEASES_KEY, job.id) > ends, "renewed", 5)
    holdings.stop()


class Failing(LocalStore):
    """A store that does not answer, but `hang`s until it is told to go on, or refuses at once."""

    def __init__(self, *, hang: bool = False) -> None:
        super().__init__()
        self.hang = hang
        self.asked = 0
        self.go_on = threading.Event()

    def read(self, *_: Any, **__: Any) -> bytes:
        self.asked += 1
        if self.hang:
            self.go_on.wait(30)
        raise StorageUnavailable("does not answer")


def endings_on(place: Place, store: LocalStore) -> Endings:
    ledger = Ledger(store, place.at("ledger"))
    return Endings(ledger, Finish(ledger, place.dead, store, place.redis), place.live, place.leases)


def test_a_leader_that_storage_fails_lets_another_one_try(
    place: Place, keeping: Keeping, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Given a leader without storage and one that has it, when a lease lapses, then the second comes to lead."""
    monkeypatch.setattr(pulse, "PATIENCE", 1.0)
    endings, store = place.endings, Failing()
    place.endings = endings_on(place, store)
    keeping()
    eventually(lambda: bool(place.redis.exists(wire.KEEPER_KEY)), "one leads", 5)
    place.endings = endings
    keeping()
    job = place.accept()
    place.claim(job)
    eventually(lambda: store.asked > 0, "the first one tried", 6)
    eventually(lambda: place.waiting(job) == 1, "queued again", 10)


def test_a_keeper_told_to_stop_holds_nothing_up(place: Place, keeping: Keeping) -> None:
    """Given a leader whose storage hangs, when it has to stop, then another leads at once, and it begins nothing."""
    place.redis.set(wire.EPOCH_KEY, "1")
    for number in range(40):
        place.redis.zadd(wire.ENDED_KEY, {f"job-{number}": 1})
    endings, store = place.endings, Failing(hang=True)
    place.endings = endings_on(place, store)
    first = keeping()
    eventually(lambda: store.asked > 0, "hangs", 5)
    leader = place.redis.get(wire.KEEPER_KEY)
    stopping = threading.Thread(target=first.stop)
    stopping.start()
    place.endings = endings
    try:
        keeping()
        eventually(lambda: place.redis.get(wire.KEEPER_KEY) not in (None, leader), "the other leads", 5)
    finally:
        store.go_on.set()
        stopping.join(10)
    assert not stopping.is_alive()
    assert store.asked < 40


def test_a_job_whose_finish_failed_is_not_taken_for_finished(place: Place) -> None:
    """Given a job with a record, when its finish fails, then its ticket is worth as much as before."""
    job = place.accept()
    place.record(job)

    class Full(LocalStore):
        def put(self, *_: Any, **__: Any) -> Any:
            raise StorageUnavailable("does not answer")

    with pytest.raises(StorageUnavailable):
        endings_on(place, Full()).finish(job.id)
    assert isinstance(place.leases.claim(job.id, queue_of(job), 0), Claim)


def test_a_deadline_is_judged_by_the_clock_of_redis(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    """Given a machine two hours ahead, when it accepts a job due in an hour, then the job is accepted."""

    class Ahead(datetime):
        @classmethod
        def now(cls, tz: tzinfo | None = None) -> Any:
            return datetime.now(tz) + timedelta(hours=2)

    monkeypatch.setattr("overpaint_common.acceptance.datetime", Ahead)
    job = place.accept(deadline=datetime.now(UTC) + timedelta(hours=1))
    assert place.waiting(job) == 1
