"""Every operation through the whole system: masks and control pictures from storage, chains, intermediates, records."""

from __future__ import annotations

import io

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image, ImageDraw

from overpaint_common.errors import ForbiddenReference, JobFailed
from overpaint_common.references import Reference
from overpaint_common.result import StoredObject
from overpaint_producer import Control, Img2Img, Inpaint, MatchColor, Output, Producer, Upscale
from tests.support.stack import Stack, encoded, eventually, job, picture


def pixels(stack: Stack, output: StoredObject) -> NDArray[np.uint8]:
    with Image.open(io.BytesIO(stack.body(output.uri))) as opened:
        return np.asarray(opened.convert("RGB"))


def mask(width: int = 96, height: int = 64) -> Image.Image:
    """White in a box in the middle."""
    drawn = Image.new("L", (width, height))
    ImageDraw.Draw(drawn).rectangle((32, 16, 63, 47), fill=255)
    return drawn


def test_only_what_the_mask_shows_is_repainted(serving: Stack, producer: Producer) -> None:
    """Given a mask in storage, when a job inpaints at the source's size, then the rest is the source's own pixels."""
    passes = (Inpaint(mask=serving.put("mask.png", encoded(mask())), prompt="a blue square", steps=6, strength=0.9),)
    body = job(serving, passes=passes, output=Output(prefix=serving.output, size="source"))

    record = producer.submit(body).wait(timeout=60).raise_for_status()

    painted, source, edited = pixels(serving, record.outputs[0]), np.asarray(picture()), np.asarray(mask()) > 0
    assert painted.shape == source.shape
    assert np.array_equal(painted[~edited], source[~edited])
    assert np.abs(painted[edited].astype(int) - source[edited]).mean() > 10
    assert record.variants[0].passes[0].op == "inpaint"


def test_a_chain_runs_in_memory_and_its_pictures_are_kept_on_request(serving: Stack, producer: Producer) -> None:
    """Given four passes on two models, when intermediates are asked for, then each pass leaves a named picture."""
    passes = (
        Img2Img(prompt="a red circle", steps=4, controls=(Control(name="canny", scale=0.8),)),
        Img2Img(prompt="a red circle, oil painting", steps=4, scheduler="euler"),
        MatchColor(),
        Upscale(prompt="a red circle", steps=2, model="overpaint-mini-upscaler"),
    )
    output = Output(prefix=serving.output, intermediates=True)

    record = producer.submit(job(serving, passes=passes, output=output, variants=2)).wait(timeout=120)
    record.raise_for_status()
    eventually(lambda: not serving.keys("ledger", "open"), "tidied")

    assert [model.name for model in record.models] == ["overpaint-mini", "overpaint-mini-upscaler"]
    for variant in record.variants:
        runs = variant.passes
        assert [run.op for run in runs] == ["img2img", "img2img", "match_color", "upscale"]
        assert [run.scheduler for run in runs] == ["DDIMScheduler", "EulerDiscreteScheduler", None, "DDIMScheduler"]
        assert [run.output is None for run in runs] == [False, False, False, True]
        assert {pixels(serving, run.output).shape for run in runs if run.output} == {(43, 64, 3)}
        assert pixels(serving, variant.outputs[0]).shape == (172, 256, 3)
    stored = {Reference.parse(stored.uri).name for stored in record.stored}
    assert set(serving.keys("out", record.job_id)) == {"result.json", *stored}
    assert len(stored) == 8


def test_a_mask_elsewhere_is_refused_by_name(serving: Stack, producer: Producer) -> None:
    """Given a mask outside of what the workers may read, when the job is submitted, then the error names the field."""
    elsewhere = str(serving.at("ledger", "secret.png"))
    with pytest.raises(ForbiddenReference, match=r"passes\.0\.mask"):
        producer.submit(job(serving, passes=(Inpaint(mask=elsewhere, prompt="x"),)))


def test_a_mask_that_is_no_picture_is_named(serving: Stack, producer: Producer) -> None:
    """Given a mask of text, when the job runs, then it fails with the code of a source and names the mask."""
    body = job(serving, passes=(Inpaint(mask=serving.put("text.png", b"hello"), prompt="x", steps=4),))
    with pytest.raises(JobFailed, match=r"source_not_a_picture.*in/text\.png"):
        producer.submit(body).wait(timeout=60).raise_for_status()
