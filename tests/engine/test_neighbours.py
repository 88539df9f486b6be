"""Who else is there, and who came first, changes no picture; not one bit of it where a call asks for that."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from threading import Event

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from overpaint_common.errors import JobCancelled
from overpaint_common.schedulers import SchedulerName
from overpaint_worker.engine.calls import Call, Model, Painted
from overpaint_worker.engine.loading import Tuning
from overpaint_worker.engine.registry import FileSpec
from tests.engine.crowds import PATIENCE, Member, at_once, engine_on, member, staggered
from tests.engine.direct import call, noise_picture
from tests.engine.tiny_families import ENTRIES, SIDE, Asked, Kind, Shelf
from tests.support.tiny_models import tiny_lora

TOLERANCE = 1e-4
TELLING: tuple[SchedulerName, ...] = ("dpmpp_2m", "unipc", "pndm", "heun", "euler_a", "lcm", "ddpm", "euler")
"""They remember what was predicted before, call the denoiser more than once a step, or draw noise at each."""
FEW = ("sd", "sd3")
NAMES = [*FEW, *(pytest.param(name, marks=pytest.mark.long) for name in ENTRIES if name not in FEW)]


@pytest.fixture(scope="module")
def shelf(tmp_path_factory: pytest.TempPathFactory) -> Shelf:
    return Shelf(tmp_path_factory.mktemp("neighbours"))


def throng(name: str) -> list[Call]:
    """Seven calls of all kinds, on schedulers that could tell a neighbour."""
    kinds = ENTRIES[name].kinds
    schedulers = [scheduler for scheduler in TELLING if scheduler in ENTRIES[name].schedulers]
    return [member(name, n, kinds[n % len(kinds)], schedulers[n % len(schedulers)]).call for n in range(7)]


def together(
    model: Model, arrive: Callable[..., list[Painted]], calls: Sequence[Call], order: Sequence[int]
) -> list[Painted]:
    """What calls that arrive in some order become, in the order of `calls`."""
    with engine_on(model) as engine:
        painted = arrive(engine, [calls[number] for number in order])
    return [painted[order.index(number)] for number in range(len(calls))]


def alone(model: Model, asked: Call) -> Painted:
    with engine_on(model) as engine:
        return at_once(engine, [asked])[0]


def is_near(one: Painted, other: Painted) -> bool:
    return float(np.abs(one.pixels - other.pixels).max()) <= TOLERANCE


def bits(painted: Painted) -> bytes:
    return painted.pixels.tobytes()


@pytest.mark.parametrize("name", NAMES)
def test_neighbours_and_their_order_change_nothing_that_shows(shelf: Shelf, name: str) -> None:
    """Given calls that each ran alone, when they run together, in one order or another, then pictures are the same."""
    model, calls = shelf.loaded(name), throng(name)
    by_themselves = [alone(model, each) for each in calls]
    order = range(len(calls))

    crowds = [together(model, at_once, calls, order), together(model, staggered, calls, order[::-1])]

    assert all(is_near(one, other) for painted in crowds for one, other in zip(by_themselves, painted, strict=True))


@pytest.mark.parametrize("name", NAMES)
def test_reproducible_calls_are_the_same_to_the_bit(shelf: Shelf, name: str) -> None:
    """Given reproducible calls among others, when they run alone or in any crowd, without caches, with cold or with
    warm ones, then every bit is the same, and nobody else is in their forwards."""
    calls = [replace(each, reproducible=number % 3 < 2) for number, each in enumerate(throng(name))]
    without = shelf.load(name, tuning=Tuning(cache_bytes=0))
    by_themselves = {number: alone(without, each) for number, each in enumerate(calls) if each.reproducible}
    model, order = shelf.load(name), range(len(calls))

    crowds = [together(model, at_once, calls, order), together(model, staggered, calls, order[::-1])]

    for number, painted in by_themselves.items():
        assert {bits(each[number]) for each in crowds} == {bits(painted)}
        assert {each[number].rows for each in crowds} == {painted.rows}


@pytest.mark.parametrize("moment", [0, 2])
def test_one_that_is_cancelled_takes_nothing_along(shelf: Shelf, moment: int) -> None:
    """Given a crowd, when one of it is cancelled at some step, then the others are what they are without it."""
    model = shelf.loaded("sd")
    calls = [replace(each, reproducible=number % 2 == 0) for number, each in enumerate(throng("sd")[:5])]
    by_themselves = [alone(model, each) for each in calls]

    def on_progress(phase: str, steps: int) -> None:
        if (phase, steps) == ("denoise", moment):
            leaving.cancelled.set()

    # With an event of its own: it would share that of the call it is made of.
    leaving = replace(
        calls[2],
        seed=99,
        steps=6,
        strength=1.0,
        reproducible=False,
        on_progress=on_progress,
        cancelled=Event(),
    )
    with engine_on(model) as engine:
        futures = [engine.submit(each) for each in (*calls[:4], leaving, *calls[4:])]
        engine.start()
        left = futures.pop(4)
        with pytest.raises(JobCancelled, match=f"cancelled at step {moment}"):
            left.result(PATIENCE)
        painted = [future.result(PATIENCE) for future in futures]

    for asked, ours, theirs in zip(calls, painted, by_themselves, strict=True):
        assert bits(ours) == bits(theirs) if asked.reproducible else is_near(ours, theirs)


def test_calls_of_other_sizes_and_loras_run_beside_each_other(shelf: Shelf, tmp_path: Path) -> None:
    """Given calls that differ in their size or their LoRAs, when they run together, then each has its own alone."""
    files = {
        name: tiny_lora(tmp_path / f"{name}.safetensors", shelf.folder("sd"), seed=seed)
        for seed, name in enumerate(("ink", "wash"), 31)
    }
    model = shelf.load("sd", controls={}, loras={name: FileSpec(path=file) for name, file in files.items()})
    small, wide = noise_picture(SIDE, SIDE), noise_picture(2 * SIDE, SIDE)
    loras: list[tuple[tuple[str, float], ...]] = [(), (("ink", 0.8),), (("ink", 0.8), ("wash", -0.4))]
    wanted = [*((small, each) for each in loras), (wide, loras[1])]
    calls = [
        call("sd", picture, loras=each, seed=seed, steps=8, strength=0.9) for picture, each in wanted for seed in (7, 8)
    ]
    by_themselves = [alone(model, each) for each in calls]

    painted = together(model, staggered, calls, range(len(calls)))

    assert all(map(is_near, painted, by_themselves))
    assert not any(is_near(painted[number], painted[0]) for number in (2, 4))
    assert max(each.rows for each in painted) == 4


arrivals = st.tuples(
    st.sampled_from(ENTRIES["sd"].kinds),
    st.sampled_from([None, *TELLING]),
    st.fixed_dictionaries(
        {
            "prompt": st.sampled_from(["a red cat", "a lake", ""]),
            "steps": st.integers(2, 4),
            "strength": st.sampled_from([0.5, 0.8, 1.0]),
            "guidance_scale": st.sampled_from([1.0, 3.0, 8.0]),
            "seed": st.integers(0, 2**32),
        }
    ),
    st.sampled_from([0, 1]),
)


@settings(max_examples=5, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(arrivals, min_size=2, max_size=4))
def test_any_crowd_paints_what_diffusers_paints_of_each_alone(
    shelf: Shelf, arriving: list[tuple[Kind, SchedulerName | None, Asked, int]]
) -> None:
    """Given any calls, each arriving when the one before has begun or made a step, then no picture tells."""
    members = [
        Member(kind, replace(member("sd", 0, kind, scheduler).call, **changes))
        for kind, scheduler, changes, _ in arriving
    ]

    with engine_on(shelf.loaded("sd")) as engine:
        painted = staggered(engine, [each.call for each in members], [moment for *_, moment in arriving])

    for each, ours in zip(members, painted, strict=True):
        assert np.abs(ours.pixels - shelf.solo(*each).pixels).max() <= TOLERANCE
