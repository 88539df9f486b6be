"""docs/families.md: the family that it takes through all steps is one."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

pytest.importorskip("torch")

from overpaint_worker.engine import stepped
from overpaint_worker.engine.families import families
from overpaint_worker.engine.families.family import Family
from overpaint_worker.engine.loading import PipelineLoader
from overpaint_worker.engine.registry import ModelSpec, Registry
from tests.docs.pages import DOCS, page
from tests.engine.crowds import at_once, engine_on
from tests.engine.direct import Direct, call, noise_picture
from tests.support.tiny_models import tiny_kontext

FAMILIES = page(DOCS / "families.md")
SIDE = 32
ASKED = (("make it winter", 4, 3.5), ("a red cat", 6, 2.0), ("remove the boat", 5, 4.5))


@pytest.fixture
def family() -> Family:
    """The one of the page's module."""
    (module,) = FAMILIES.blocks("python")
    names: dict[str, Any] = {}
    exec(module, names)
    found: Family = names["FAMILY"]
    return found


def test_the_family_of_the_page_shares_forwards(
    family: Family, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Given the page's family, when calls of a tiny Kontext run together, then each is what diffusers paints alone."""
    monkeypatch.setattr(stepped, "families", lambda: {**families(), **dict.fromkeys(family.pipelines, family)})
    spec = ModelSpec(path=tiny_kontext(tmp_path / "kontext"), family="flow-matching", task="edit")
    model = PipelineLoader(Registry(models={"kontext": spec}), "cpu")("kontext")
    calls = [
        call("kontext", noise_picture(SIDE, SIDE, seed=n), op="edit", prompt=p, steps=s, guidance_scale=g, seed=n)
        for n, (p, s, g) in enumerate(ASKED)
    ]

    with engine_on(model) as engine:
        painted = at_once(engine, calls)
        forwards = engine.statistics().forwards

    assert forwards < sum(each.steps for each in calls)
    alone = Direct("FluxKontextPipeline", tmp_path / "kontext")
    size = {"width": SIDE, "height": SIDE, "max_area": SIDE * SIDE, "_auto_resize": False}
    for asked, ours in zip(calls, painted, strict=True):
        exact = alone(
            asked.picture,
            seed=asked.seed,
            prompt=asked.prompt,
            num_inference_steps=asked.steps,
            guidance_scale=asked.guidance_scale,
            **size,
        )
        assert np.abs(ours.pixels - exact).max() <= 1e-4


def test_the_page_sorts_the_arguments_as_its_family_does(family: Family) -> None:
    """Given the page's table of arguments, when the family is read, then it has each where the table says."""
    inputs = family.networks["transformer"]
    (first,) = [row[0] for row in _table()[:1]]
    assert first == "hidden_states"
    for names, _, goes_to in _table():
        for name in names.replace("`", "").split(", "):
            if goes_to in ("rows", "common"):
                assert name in getattr(inputs, goes_to)
            elif goes_to == "timestep":
                assert inputs.timestep == name
            else:
                assert name not in inputs.names


def _table() -> list[list[str]]:
    return FAMILIES.rows("argument of `self.transformer(...)`")
