"""The steps of all of a job's calls as one progress."""

from __future__ import annotations

import threading

from hypothesis import given
from hypothesis import strategies as st

from overpaint_worker.operations.tracker import Tracker


@given(st.lists(st.tuples(st.integers(1, 20), st.integers(0, 5)), min_size=1, max_size=8), st.randoms())
def test_interleaved_calls_add_up(calls: list[tuple[int, int]], random: object) -> None:
    # Given calls that report each of their steps, and some a few steps more than they were said to have.
    totals: list[int] = []
    tracker = Tracker(lambda _, total: totals.append(total), threading.Event())
    pending = [(tracker.track(steps), list(range(steps + more + 1))) for steps, more in calls]

    while pending:
        on_progress, steps_left = pending[getattr(random, "randrange")(len(pending))]  # noqa: B009
        on_progress("denoise", steps_left.pop(0))
        pending = [entry for entry in pending if entry[1]]

    assert totals == sorted(totals)
    assert totals[-1] == sum(steps for steps, _ in calls)


def test_threads_report_their_sums_in_order() -> None:
    totals: list[int] = []
    tracker = Tracker(lambda _, total: totals.append(total), threading.Event())
    together = threading.Barrier(8)

    def count(on_progress: object) -> None:
        together.wait()
        for step in range(1, 201):
            assert callable(on_progress)
            on_progress("denoise", step)

    threads = [threading.Thread(target=count, args=(tracker.track(200),)) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    assert totals == list(range(1, 1601))


def test_abandoning_cancels_every_call() -> None:
    event = threading.Event()
    tracker = Tracker(lambda *_: None, event)

    tracker.abandon()

    assert tracker.cancelled is event
    assert event.is_set()
