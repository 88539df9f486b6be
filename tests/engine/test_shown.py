"""Which calls of a job tell what their latents show, and how that was fitted."""

from __future__ import annotations

import threading
from typing import Any

import pytest
from PIL import Image, ImageDraw

from overpaint_common.fleet import settle
from overpaint_common.job import Job, Output
from overpaint_common.passes import Img2Img, Inpaint, Pass
from overpaint_worker.engine.calls import Call
from overpaint_worker.imaging.fit import fit
from overpaint_worker.imaging.placement import Placement
from overpaint_worker.operations.passes import run_passes
from overpaint_worker.operations.tracker import Tracker
from overpaint_worker.operations.work import Inputs
from tests.engine.direct import noise_picture
from tests.engine.fakes import GatedModel, engine_on
from tests.support.cards import model_card

MASK = "s3://inbox/mask.png"
LATENTS = Image.new("RGB", (16, 16))


def shown(*passes: Pass, previews: bool = True, **fields: Any) -> tuple[list[int], list[Placement]]:
    """The seeds of the calls that are asked for previews, and the placements that come with what they show.

    The source is 96 x 48 and padded to 64 x 64.
    """
    card = model_card("gated", operations=("img2img", "inpaint"), native_size=64)
    output = Output(prefix="s3://outbox/", previews=previews)
    job = Job(source="s3://inbox/cat.png", model="gated", passes=passes, output=output, seed=100, **fields)
    fitted = fit(noise_picture(96, 48), size=64, method="pad")
    mask = Image.new("L", (96, 48))
    ImageDraw.Draw(mask).rectangle((10, 10, 30, 40), fill=255)
    asked: list[int] = []
    placements: list[Placement] = []

    def before_step(call: Call) -> None:
        if call.on_preview is not None:
            asked.append(call.seed)
            call.on_preview(LATENTS)

    model = GatedModel()
    model.before_step = before_step
    model.gate.set()
    tracker = Tracker(lambda *_: None, threading.Event(), show=lambda _, placement: placements.append(placement))
    cards = {"gated": card}
    with engine_on(model) as engine:
        run_passes(settle(job, cards), Inputs(fitted.picture, fitted.placement, {MASK: mask}), cards, engine, tracker)
    return asked, placements


def step(**changes: Any) -> Img2Img:
    return Img2Img(prompt="a red cat", strength=1, steps=1, **changes)


def test_a_job_that_asks_for_no_previews_makes_none() -> None:
    assert shown(step(), previews=False) == ([], [])


def test_the_first_variant_is_shown_in_each_pass() -> None:
    """Given two passes and three variants, when they run, then those with the job's own seed alone are asked."""
    asked, placements = shown(step(seed=100), step(seed=200), variants=3)

    assert asked == [100, 200]
    assert {placement.source for placement in placements} == {(96, 48)}


@pytest.mark.parametrize("only_masked", [False, True])
def test_what_is_shown_of_a_masked_part_is_fitted_as_that_part_was(only_masked: bool) -> None:
    """Given an inpaint of the masked part alone, when it is shown, then as that part was fitted, not as the source."""
    p = Inpaint(mask=MASK, prompt="a hat", strength=1, steps=1, only_masked=only_masked, padding=4)

    (placement,) = shown(p)[1]

    assert (placement.method == "bucket", placement.source == (96, 48)) == (only_masked, not only_masked)
