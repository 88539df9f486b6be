"""Sweeps, refinement, styles and replay through a real worker, by the command line and by the Producer."""

from __future__ import annotations

import hashlib
import io
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import click.testing
import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from overpaint_common.result import Result, StoredObject
from overpaint_producer import Img2Img, MatchColor, Output, Producer, Upscale
from overpaint_producer.cli import main
from overpaint_producer.replay import TOLERANCE
from tests.support.stack import Stack, encoded, job, picture


@dataclass(frozen=True)
class Shell:
    """The command line beside the worker."""

    stack: Stack

    def __call__(self, *arguments: str, code: int = 0) -> click.testing.Result:
        done = click.testing.CliRunner().invoke(main, arguments, env=self.stack.worker_environment())
        assert done.exit_code == code, done.output
        return done


@pytest.fixture
def overpaint_cli(serving: Stack) -> Shell:
    return Shell(serving)


def opened(data: bytes) -> NDArray[np.int16]:
    with Image.open(io.BytesIO(data)) as image:
        return np.asarray(image.convert("RGB")).astype(np.int16)


def pixels(stack: Stack, stored: StoredObject | str) -> NDArray[np.int16]:
    return opened(stack.body(stored if isinstance(stored, str) else stored.uri))


def done(producer: Producer, stack: Stack, **changes: Any) -> Result:
    return producer.submit(job(stack, **changes)).wait(timeout=60).raise_for_status()


def test_a_reproducible_chain_repeats_to_the_byte(serving: Stack, producer: Producer, overpaint_cli: Shell) -> None:
    """Given a chain of two models that is marked reproducible, when its record is replayed from the copy beside the
    pictures, then every picture has the bytes of the recorded one, intermediates included."""
    passes = (
        Img2Img(prompt="a blue square", steps=4, strength=0.7, scheduler="euler_a"),
        MatchColor(),
        Upscale(prompt="a blue square", steps=2, model="overpaint-mini-upscaler"),
    )
    output = Output(prefix=serving.output, intermediates=True)
    before = done(producer, serving, passes=passes, output=output, variants=2, reproducible=True)
    assert before.reproducible

    report = json.loads(overpaint_cli("replay", before.job_id, "--json").stdout)

    assert (report["verdict"], report["promised"], report["held"]) == ("identical", True, True)
    assert (report["chain"], report["surroundings"]) == ([], [])
    assert [(each["variant"], each["after_pass"]) for each in report["pictures"]] == [
        (variant, after) for variant in (0, 1) for after in (0, 1, None)
    ]
    for each in report["pictures"]:
        assert each["before"] != each["after"]
        assert pixels(serving, each["before"]).tobytes() == pixels(serving, each["after"]).tobytes()
    after = producer.handle(report["replay_id"]).result()
    assert [v.passes[0].seed for v in after.variants] == [v.passes[0].seed for v in before.variants]


def test_a_tampered_record_is_caught(serving: Stack, producer: Producer, overpaint_cli: Shell, tmp_path: Path) -> None:
    """Given a record file with another hash, or another seed in what ran, when each is replayed, then neither holds."""
    before = done(producer, serving, reproducible=True)
    digest, seed = before.outputs[0].sha256, before.variants[0].passes[0].seed
    body = before.model_dump_json(exclude_none=True)
    file = tmp_path / "record.json"

    file.write_text(body.replace(digest, digest[::-1]))
    assert "somebody replaced or damaged it" in overpaint_cli("replay", str(file), code=3).stderr

    file.write_text(body.replace(f'"seed":{seed}', f'"seed":{(seed or 0) + 1}'))
    assert overpaint_cli("replay", str(file), code=1).stdout.startswith("different")


def test_without_a_promise_the_difference_is_measured(
    serving: Stack, producer: Producer, overpaint_cli: Shell, tmp_path: Path
) -> None:
    """Given a record that promises nothing, whose picture is a few levels off what this worker paints, when it is
    replayed, then the report has the difference that numpy finds, and the tolerance."""
    before = done(producer, serving)
    painted = pixels(serving, before.outputs[0])
    noise = np.random.default_rng(1).integers(-2, 3, painted.shape)
    other = encoded(Image.fromarray(np.clip(painted + noise, 0, 255).astype(np.uint8)))
    uri = serving.put("other.png", other)
    stored = before.outputs[0].model_copy(
        update={"uri": uri, "sha256": hashlib.sha256(other).hexdigest(), "size": len(other)}
    )
    variant = before.variants[0].model_copy(update={"outputs": (stored,)})
    file = tmp_path / "record.json"
    file.write_text(before.model_copy(update={"variants": (variant,)}).model_dump_json())
    away = np.abs(opened(other) - painted)

    report = json.loads(overpaint_cli("replay", str(file), "--json").stdout)
    strict = overpaint_cli("replay", str(file), "--tolerance", "0", code=1).stdout

    (each,) = report["pictures"]
    assert (report["verdict"], report["promised"], report["tolerance"]) == ("close", False, TOLERANCE)
    assert each["max_difference"] == away.max() == 2
    assert each["mean_difference"] == pytest.approx(away.mean())
    assert f"differs by up to 2 of 255, {away.mean():.3g} on average; beyond the tolerance of 0" in strict


def test_a_source_that_is_gone_is_named(serving: Stack, producer: Producer, overpaint_cli: Shell) -> None:
    """Given a record whose source was deleted, when it is replayed, then the replay failed and says on what."""
    source = serving.put("gone.png", encoded(picture()))
    before = done(producer, serving, source=source)
    gone = serving.at("in", "gone.png")
    serving.server.client.delete_object(Bucket=gone.bucket, Key=gone.key)
    said = overpaint_cli("replay", before.job_id, code=1).stdout
    assert said.startswith("failed")
    assert f"the replay failed: object_not_found: there is no object at {source}" in said


def test_a_sweep_is_one_labelled_page(serving: Stack, overpaint_cli: Shell, tmp_path: Path) -> None:
    """Given strengths, one of which leaves no step, and guidance scales, when they are swept, then one page holds every
    cell, the refused ones say why, and what was painted went further from the source the stronger it was."""
    source, sheet = serving.put("scene.png", encoded(picture())), tmp_path / "sheet.png"

    swept = overpaint_cli(
        "sweep", source, serving.output, "-p", "a blue square", "--steps", "6", "--strengths", "0,0.1,0.4,1",
        "--guidance", "1,4", "--sheet", str(sheet), "--json", code=1,
    )  # fmt: skip

    document = json.loads(swept.stdout)
    assert document["sheet"] == str(sheet)
    cells = {(cell["strength"], cell["guidance_scale"]): cell for cell in document["cells"]}
    assert set(cells) == {(strength, guidance) for strength in (0, 0.1, 0.4, 1) for guidance in (1, 4)}
    original = np.asarray(picture().resize((64, 43), Image.Resampling.LANCZOS)).astype(np.int16)
    for guidance in (1, 4):
        assert cells[0, guidance]["change"] == 0
        refused = cells[0.1, guidance]
        assert (refused["state"], refused["error"]["code"]) == ("refused", "strength_too_small")
        assert [cells[strength, guidance]["effective_steps"] for strength in (0.4, 1)] == [2, 6]
        for strength in (0.4, 1):
            painted = pixels(serving, cells[strength, guidance]["uri"])
            assert cells[strength, guidance]["change"] == pytest.approx(np.abs(painted - original).mean(), abs=0.01)
        assert cells[0.4, guidance]["change"] < cells[1, guidance]["change"]
    with Image.open(sheet) as page:
        # Five pictures of 224 pixels beside each other, the source being the first, in two rows.
        assert page.width == 2 * 28 + 5 * 224 + 4 * 16
        assert page.height > 2 * 224
        assert "compositeWithTrainedAlgorithmicMedia" in str(page.info)


def test_styles_and_seeds_are_swept_too(serving: Stack, overpaint_cli: Shell, tmp_path: Path) -> None:
    """Given styles and seeds on the middle of the source, when they are swept, then every cell is a picture of its own,
    whose change is from that middle."""
    swept = overpaint_cli(
        "sweep", serving.put("scene.png", encoded(picture())), serving.output, "-p", "a red square", "-s", "0.8",
        "--steps", "4", "--style", "oil painting", "--style", "neon", "--seeds", "1,2",
        "--sheet", str(tmp_path / "sheet.png"), "--json", "--fit", "crop",
    )  # fmt: skip
    cells = json.loads(swept.stdout)["cells"]
    shown = {(cell["style"], cell["seed"]): pixels(serving, cell["uri"]).tobytes() for cell in cells}
    assert set(shown) == {(style, seed) for style in ("oil painting", "neon") for seed in (1, 2)}
    assert len(set(shown.values())) == 4
    middle = np.asarray(picture().crop((16, 0, 80, 64))).astype(np.int16)
    for cell in cells:
        assert cell["change"] == pytest.approx(np.abs(pixels(serving, cell["uri"]) - middle).mean(), abs=0.01)


def test_refinement_keeps_each_pass_and_its_seed(serving: Stack, producer: Producer) -> None:
    """Given three strengths and two variants, when a picture is refined, then the record has each pass's own seed and
    steps, the pictures between are kept, and the next pass began where the one before had ended."""
    handle = producer.refine(
        serving.put("scene.png", encoded(picture())), prompt="a blue square", strengths=(0.75, 0.5, 0.25),
        output=serving.output, steps=8, seed=40, variants=2, intermediates=True, model="overpaint-mini",
    )  # fmt: skip
    record = handle.wait(timeout=60).raise_for_status()

    seeds = [[run.seed for run in variant.passes] for variant in record.variants]
    assert seeds[0][0] == 40
    assert len(set(seeds[0] + seeds[1])) == 6
    assert seeds[1] == [(seed or 0) + 1 for seed in seeds[0]]
    for variant in record.variants:
        ran = [(run.steps, run.effective_steps, run.start_step) for run in variant.passes]
        assert ran == [(8, 6, 2), (8, 4, 4), (8, 2, 6)]
    between, last = handle.intermediates(), handle.pictures()
    assert [len(pictures) for pictures in between] == [2, 2]
    for pictures, end in zip(between, last, strict=True):
        second, third = (np.asarray(p.convert("RGB")).astype(int) for p in (pictures[1], end))
        first = np.asarray(pictures[0].convert("RGB")).astype(int)
        # A gentle last pass moves less than what the first strong one put between itself and the end.
        assert np.abs(third - second).mean() < np.abs(third - opened(encoded(picture().resize(end.size)))).mean()
        assert (first != second).any()


def test_one_source_takes_many_styles(serving: Stack, producer: Producer) -> None:
    """Given named styles, when they are submitted in one call, then each job ends in its own picture, and its record
    names style and seed."""
    styles = {"oil": "oil painting", "sketch": "pencil sketch"}
    handles = producer.restyle(
        serving.put("scene.png", encoded(picture())), styles, prompt="a red square", output=serving.output,
        steps=4, seed=3, model="overpaint-mini",
    )  # fmt: skip
    records = [handle.wait(timeout=60).raise_for_status() for handle in handles]
    assert [record.job.labels["style"] for record in records] == ["oil", "sketch"]
    assert [record.variants[0].passes[0].seed for record in records] == [3, 3]
    assert len({pixels(serving, record.outputs[0]).tobytes() for record in records}) == 2
