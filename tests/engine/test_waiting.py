"""How long anything waits for the device at most, as TurnQueue promises it, on a virtual clock."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from overpaint_common.job import PRIORITIES
from tests.engine.simulation import Counts, Job, Seconds, Simulation

GROUPS = 4


def traffic(draw: np.random.Generator) -> list[Job]:
    """Some jobs of any kind, many of them arriving at once."""
    count, gap, mix = draw.integers(2, 80), draw.choice([0.05, 0.3, 1, 10]), draw.random(3) + 0.05
    arrivals = (draw.exponential(gap, count) * (draw.random(count) < 0.6)).cumsum()
    return [
        Job(
            arrival,
            int(draw.integers(GROUPS)),
            draw.choice(PRIORITIES, p=mix / mix.sum()),
            int(draw.choice([1, 1, 2, 3, 6])),
            int(draw.choice([1, 1, 2, 5, 30])),
            alone=draw.random() < 0.05,
        )
        for arrival in arrivals.tolist()
    ]


@settings(deadline=None, max_examples=150)
@given(st.integers(0, 2**32))
def test_whatever_arrives_and_whatever_it_costs_no_job_waits_longer(seed: int) -> None:
    """Given jobs of any kind, and turns whose costs have little to do with what they compute and may be enormous, then
    each second is paid and each job ends within the bound.
    """
    draw = np.random.default_rng(seed)
    most, scale = draw.choice([1, 2, 4, 8, 16], GROUPS).tolist(), draw.choice([0.01, 0.1, 1, 5], GROUPS)
    spread = draw.choice([0, 0.5, 2])

    ran = Simulation(traffic(draw), most, lambda group, _: scale[group] * (0.01 + draw.lognormal(sigma=spread)))

    assert ran.paid == pytest.approx(ran.busy)
    assert (ran.waits <= ran.bound(ran.paid_meanwhile()) * (1 + 1e-9)).all()


MOST = (1, 8, 16, 32) * 2
ONCE, A_ROW = 0.01, 0.001
"""Seconds of a turn and of each row in it, in the first group; in the second twice that, and so on."""


def seconds_of(groups: Counts, turns: Counts | Seconds, rows: Counts) -> Seconds:
    return np.asarray((1 + groups) * (ONCE * turns + A_ROW * rows), np.float64)


def arriving(count: int, load: float, seed: int) -> list[Job]:
    """Jobs of every group and priority as a Poisson process; full forwards would keep the device busy for `load`."""
    draw = np.random.default_rng(seed)
    groups, turns = draw.integers(len(MOST), size=count), draw.integers(1, 6, count)
    rows = draw.choice([1, 2, 2, 3], count)
    forwards = turns * rows / np.maximum(rows, np.array(MOST)[groups])
    mean = seconds_of(groups, forwards, turns * rows).sum() / count
    arrivals = draw.exponential(mean / load, count).cumsum()
    priorities = draw.choice(PRIORITIES, count)
    return list(map(Job, arrivals.tolist(), groups.tolist(), priorities.tolist(), rows.tolist(), turns.tolist()))


@pytest.mark.long
def test_a_hundred_thousand_jobs_wait_within_the_bound() -> None:
    """Given jobs about as fast as the device can run them, then each ends within the bound for the work that its class
    has at its arrival: what is before it as if it were computed alone, and its own turns in full forwards.
    """
    jobs = arriving(100_000, load=0.6, seed=6)

    ran = Simulation(jobs, MOST, lambda group, batch: (1 + group) * (ONCE + A_ROW * sum(job.rows for job in batch)))

    groups, turns = np.array([job.group for job in jobs]), np.array([job.turns for job in jobs])
    full = np.maximum([job.rows for job in jobs], np.array(MOST)[groups])
    work = seconds_of(groups, ran.turns_before + turns, ran.rows_before + turns * full)
    assert (ran.waits <= ran.bound(work)).all()
    # It was put to the test.
    assert ran.busy > 0.99 * ran.finish.max()
    assert ran.most_waiting > 1000
    assert (ran.waits > ran.bound(work) / 4).any()
