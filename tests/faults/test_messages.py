"""Messages that are not ours, with a live queue behind them."""

from __future__ import annotations

import pytest

from overpaint_common import wire
from tests.faults.crew import Crew
from tests.faults.stage import Stage
from tests.worker.envelopes import wrong_messages

QUEUE = wire.queue_name("overpaint-mini", "standard")


def test_bad_messages_are_kept_and_stop_nobody(play: Stage, crews: list[Crew]) -> None:
    """Given every kind of bad message between the tickets of jobs, when workers meet them, then the jobs are done by
    the same processes, no slot has leaked, and every bad message lies in the ledger, byte by byte."""
    before = [crew.child and crew.child.pid for crew in crews]
    wrong = wrong_messages(QUEUE)

    for raw in wrong.values():
        play.direct.lpush(QUEUE, raw)
        play.submit()

    verdict = play.judge().require()
    assert set(verdict.ends) == {"succeeded"}
    assert [crew.child and crew.child.pid for crew in crews] == before
    assert len(play.keys("ledger", "dead", "raw")) == len(set(wrong.values()))


@pytest.mark.usefixtures("crews")
def test_a_huge_message_stops_nobody(play: Stage) -> None:
    """Given thirty megabytes in a queue, when workers meet them, then the jobs behind are done."""
    play.direct.lpush(QUEUE, b"x" * 30_000_000)
    play.submit_many(4)

    verdict = play.judge().require()
    assert set(verdict.ends) == {"succeeded"}
