"""What forwards take is measured when a model is loaded, and bounds their rows."""

from __future__ import annotations

import sys

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from overpaint_worker.engine.loading import PipelineLoader, Tuning
from overpaint_worker.engine.memory import Memory
from overpaint_worker.engine.profile import MOST_ROWS, SHARE, Footprint, Room
from overpaint_worker.engine.registry import EMBEDDED, ModelSpec, Registry

LINUX = pytest.mark.skipif(sys.platform != "linux", reason="only Linux tells the peak of a resident set")


@given(st.integers(0, 10**9), st.integers(1, 10**6), st.integers(1, 10**5), st.integers(0, 10**12))
def test_so_many_rows_fit_and_one_more_does_not(fixed: int, per_element: int, elements: int, free: int) -> None:
    """Given two forwards on a line, then the most rows stay within the share of the free memory and are no fewer than
    could be.
    """

    def taken(rows: int) -> int:
        return fixed + per_element * elements * rows

    footprint = Footprint.measured((2 * elements, taken(2)), (8 * elements, taken(8)))
    rows = footprint.most_rows(elements, free)

    assert 1 <= rows <= MOST_ROWS
    # A little room for the rounding of the line.
    assert rows == 1 or taken(rows) <= 0.8 * free * 1.0001 + 1
    assert rows == MOST_ROWS or taken(rows + 1) >= 0.8 * free * 0.9999 - 1


def test_a_measurement_that_says_nothing_leaves_the_bound() -> None:
    assert Footprint.measured((2, 500), (8, 400)).most_rows(64, 0) == MOST_ROWS
    assert Room(Memory("cpu")).most_rows(64) == MOST_ROWS


@LINUX
def test_the_peak_of_a_computation_is_what_it_allocated_in_between() -> None:
    """Given a computation that holds 200 MB for a moment, then that is its peak, although nothing is left of it."""
    size = 200_000_000

    def compute() -> None:
        torch.ones(size // 4).sum()

    peak = Memory("cpu").peak(compute)

    assert peak is not None
    assert 0.9 * size <= peak <= 1.3 * size


@LINUX
def test_a_model_that_is_warmed_up_knows_how_many_rows_fit(monkeypatch: pytest.MonkeyPatch) -> None:
    """Given little free memory, then a warmed up model allows fewer rows, and still fewer of large pictures."""
    # Large enough for each tensor to be memory of its own, which shows in the resident set.
    registry = Registry(models={"mini": ModelSpec(path=EMBEDDED, native_size=256)})
    room = PipelineLoader(registry, "cpu", Tuning(warm_up=True))("mini")._lane._room
    footprint, elements = room._footprint, 4 * 64 * 64
    assert footprint is not None
    assert footprint.per_element > 0
    twelve_and_a_half = footprint.fixed + 12.5 * elements * footprint.per_element
    monkeypatch.setattr(Memory, "free", lambda _: int(twelve_and_a_half / SHARE))

    assert room.most_rows(elements) == 12
    assert room.most_rows(4 * elements) == 3
