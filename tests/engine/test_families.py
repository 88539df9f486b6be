"""The contract of the stepped lane, for every family: in a crowd each call is what diffusers makes of it alone."""

from __future__ import annotations

import gc
import inspect
from collections.abc import Callable
from dataclasses import replace
from functools import cache
from typing import Any, NamedTuple

import diffusers
import numpy as np
import pytest

from overpaint_common.errors import PipelineFailed
from overpaint_worker.engine import stepped
from overpaint_worker.engine.calls import Painted
from overpaint_worker.engine.families import families
from overpaint_worker.engine.families.family import Family
from overpaint_worker.engine.statistics import Statistics
from tests.engine.crowds import PATIENCE, at_once, crowd, engine_on, member, staggered
from tests.engine.direct import call
from tests.engine.tiny_families import ENTRIES, Kind, Pixels, Shelf, Solo

TOLERANCE = 1e-4
HALF = [("sd", "bfloat16"), ("sdxl", "float16"), ("sd3", "bfloat16")]
HALF_LONG = [(name, dtype) for name in ENTRIES for dtype in ("bfloat16", "float16") if (name, dtype) not in HALF]
NAMES = [name if name != "mini" else pytest.param(name, marks=pytest.mark.long) for name in ENTRIES]
KINDS = [
    pytest.param(name, kind, id=f"{name}-{number}")
    for name in ENTRIES
    for number, kind in enumerate(ENTRIES[name].kinds)
]


class Ran(NamedTuple):
    """A crowd's run, and what diffusers made of each of it."""

    painted: list[Painted]
    statistics: Statistics
    solos: list[Solo]


class Runs:
    """Each run made at most once."""

    def __init__(self, shelf: Shelf) -> None:
        self._shelf = shelf
        self.solos = cache(self._solos)
        self.of = cache(self._of)

    def _solos(self, name: str) -> list[Solo]:
        return [self._shelf.solo(*each) for each in crowd(name)]

    def _of(self, name: str, arrive: Callable[..., list[Painted]]) -> Ran:
        with engine_on(self._shelf.loaded(name)) as engine:
            painted = arrive(engine, [each.call for each in crowd(name)])
            return Ran(painted, engine.statistics(), self.solos(name))


@pytest.fixture(scope="module")
def shelf(tmp_path_factory: pytest.TempPathFactory) -> Shelf:
    return Shelf(tmp_path_factory.mktemp("families"))


@pytest.fixture(scope="module")
def runs(shelf: Shelf) -> Runs:
    return Runs(shelf)


def distance(one: Pixels, other: Pixels) -> float:
    """The largest of any pixel's."""
    return float(np.abs(one - other).max())


# The contract


@pytest.mark.parametrize("arrive", [at_once, staggered])
@pytest.mark.parametrize("name", NAMES)
def test_in_a_crowd_each_call_is_what_diffusers_makes_of_it_alone(
    runs: Runs, name: str, arrive: Callable[..., list[Painted]]
) -> None:
    """Given calls of all a model's operations, schedulers and settings, when they run together, then none can tell."""
    ran = runs.of(name, arrive)

    distances = [distance(ours.pixels, solo.pixels) for ours, solo in zip(ran.painted, ran.solos, strict=True)]
    assert max(distances) <= TOLERANCE, distances


@pytest.mark.parametrize("arrive", [at_once, staggered])
@pytest.mark.parametrize("name", NAMES)
def test_a_crowd_shares_forwards(runs: Runs, name: str, arrive: Callable[..., list[Painted]]) -> None:
    """Given a crowd, when it has run, then as many rows as diffusers' went through fewer forwards than diffusers'."""
    ran = runs.of(name, arrive)

    alone = [rows for solo in ran.solos for rows in solo.rows]
    assert ran.statistics.rows == sum(alone)
    assert ran.statistics.forwards < len(alone)
    assert max(painted.rows for painted in ran.painted) > max(alone)


@pytest.mark.parametrize(
    "name", [name for name in ENTRIES if len({kind.class_name for kind in ENTRIES[name].kinds}) > 1]
)
def test_operations_share_a_forward(shelf: Shelf, name: str) -> None:
    """Given calls of one row, one of each operation, when they run together, then all their rows are in one forward."""
    kinds = {kind.class_name: kind for kind in ENTRIES[name].kinds}.values()
    calls = [replace(member(name, 2, kind, None).call, steps=24) for kind in kinds]

    with engine_on(shelf.loaded(name)) as engine:
        painted = at_once(engine, calls)

    assert {each.rows for each in painted} == {len(calls)}


@pytest.mark.parametrize(
    ("name", "dtype"), [*HALF, *(pytest.param(*each, marks=pytest.mark.long) for each in HALF_LONG)]
)
def test_half_precision_errs_no_more_in_a_crowd(shelf: Shelf, runs: Runs, name: str, dtype: str) -> None:
    """Given half precision, when a crowd runs, then each is at most twice as far from float32 as diffusers alone is."""
    members = crowd(name)[:4]

    with engine_on(shelf.loaded(name, dtype)) as engine:
        painted = at_once(engine, [each.call for each in members])

    for each, exact, ours in zip(members, runs.solos(name), painted, strict=False):
        alone = shelf.solo(*each, dtype)
        assert 0 < rms(ours.pixels - exact.pixels) <= 2 * rms(alone.pixels - exact.pixels)


def rms(differences: Pixels) -> float:
    return float(np.sqrt(np.mean(np.square(differences, dtype=np.float64))))


@pytest.mark.parametrize("name", ["sd", "sd3", "instruct"])
def test_a_call_that_is_over_leaves_no_pipeline_behind(shelf: Shelf, name: str) -> None:
    """Given no garbage collection, when a call is over, then its pipeline is gone, with the latents that it held."""
    given = [
        (kind.class_name, member(name, number, kind, None).call) for number, kind in enumerate(ENTRIES[name].kinds)
    ]

    def alive() -> int:
        return sum(type(thing).__name__ in {class_name for class_name, _ in given} for thing in gc.get_objects())

    with engine_on(shelf.loaded(name)) as engine:
        at_once(engine, [each for _, each in given])
    gc.collect()
    gc.disable()
    try:
        before = alive()
        with engine_on(shelf.loaded(name)) as engine:
            at_once(engine, [each for _, each in given])
        assert alive() == before
    finally:
        gc.enable()


@pytest.mark.long
@pytest.mark.timeout(1200)
@pytest.mark.parametrize("name", ENTRIES)
def test_every_operation_on_every_scheduler_in_one_crowd(shelf: Shelf, name: str) -> None:
    """Given a crowd of every operation on every scheduler, when it runs, then each is what diffusers makes of it."""
    entry = ENTRIES[name]
    pairs = [(kind, scheduler) for scheduler in entry.schedulers for kind in entry.kinds]
    members = [member(name, number, *pair) for number, pair in enumerate(pairs)]

    with engine_on(shelf.loaded(name)) as engine:
        painted = at_once(engine, [each.call for each in members])

    for each, ours in zip(members, painted, strict=True):
        assert distance(ours.pixels, shelf.solo(*each).pixels) <= TOLERANCE, (each.kind, each.call.scheduler)


# What a family's file says


def test_every_pipeline_class_of_a_family_is_held_to_the_contract() -> None:
    assert {kind.class_name for entry in ENTRIES.values() for kind in entry.kinds} == set(families())


@pytest.mark.parametrize(("name", "kind"), KINDS)
def test_every_kind_of_call_runs_in_the_stepped_lane_on_the_class_it_names(shelf: Shelf, name: str, kind: Kind) -> None:
    model, asked = shelf.loaded(name), member(name, 0, kind, None).call

    assert model.stepped(asked)
    assert type(model._faces.of(asked)).__name__ == kind.class_name


@pytest.mark.parametrize("class_name", families())
def test_a_family_names_parts_and_methods_that_its_pipelines_have(class_name: str) -> None:
    family, pipeline = families()[class_name], getattr(diffusers, class_name)
    parts = inspect.signature(pipeline.__init__).parameters

    assert {next(iter(family.networks)), "vae"} <= parts.keys()
    assert any(hasattr(pipeline, method) for method in family.encode_prompt)


@pytest.mark.parametrize("family", {id(family): family for family in families().values()}.values())
def test_a_family_names_nothing_that_none_of_its_pipelines_has(family: Family) -> None:
    pipelines = [getattr(diffusers, class_name) for class_name in family.pipelines]
    parts = {part for pipeline in pipelines for part in inspect.signature(pipeline.__init__).parameters}

    assert family.networks.keys() <= parts
    assert all(any(hasattr(pipeline, method) for pipeline in pipelines) for method in family.encode_prompt)


@pytest.mark.parametrize("field", ["rows", "residuals", "scales", "common", "timestep"])
def test_an_argument_that_a_network_does_not_take_fails_the_call(
    shelf: Shelf, monkeypatch: pytest.MonkeyPatch, field: str
) -> None:
    """Given a family's file with a slip in it, when a call comes, then it fails and says which name is wrong."""
    family = families()["StableDiffusionImg2ImgPipeline"]
    right = family.networks["unet"]
    slip: Any = "timestamp" if field == "timestep" else getattr(right, field) | {"timestamp"}
    wrong = replace(right, **{field: slip})
    slipped = replace(family, networks={"unet": wrong})
    monkeypatch.setattr(stepped, "families", lambda: dict.fromkeys(family.pipelines, slipped))

    with engine_on(shelf.load("sd")) as engine:
        future = engine.submit(call("sd"))
        engine.start()

        with pytest.raises(PipelineFailed, match="UNet2DConditionModel takes no timestamp"):
            future.result(PATIENCE)
