"""The judges of the report, and the report itself on a tiny model."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from click.testing import CliRunner
from PIL import Image, ImageFilter

from training.__main__ import main
from training.batches import drawn_scenes
from training.classifier import ClassifierStage, LabelledBatches, held_out, names_of
from training.judging import colour_of, distance, edge_energy, interval, overlap, psnr, share_of
from training.models import TINY, build_autoencoder
from training.report import Finding, Report, recoloured
from training.scenes import attributes_of, draw
from training.train import Plan, train
from training.words import COLOURS, STYLES

SEEDS = range(2**40, 2**40 + 60)


def test_the_colour_of_drawn_objects_is_told() -> None:
    """Given drawn scenes in all styles, when their object's colour is told, then it is nearly always right."""
    scenes = [draw(attributes_of(seed), 64) for seed in SEEDS]
    right = [colour_of(scene.picture, scene.mask) == scene.attributes.colour for scene in scenes]
    assert np.mean(right) >= 0.9


def test_shares_count_the_nearest_colour() -> None:
    """Given a picture half red and half blue, when the shares of the mask are told, then each is a half."""
    picture = Image.new("RGB", (8, 8), (220, 40, 40))
    picture.paste((40, 80, 210), (0, 0, 4, 8))
    mask = np.ones((8, 8), dtype=bool)
    assert {colour: share_of(picture, mask, colour) for colour in COLOURS if share_of(picture, mask, colour)} == {
        "red": 0.5,
        "blue": 0.5,
    }


def test_an_object_is_found_where_it_is_and_missed_where_it_is_not() -> None:
    scene = draw(attributes_of(1).evolve(style="flat", place="plain", shape="square"), 64)
    moved = Image.fromarray(np.roll(np.asarray(scene.picture), 24, axis=1))
    assert overlap(scene.picture, scene.mask) > 0.8
    assert overlap(moved, scene.mask) < 0.6


def test_distances_and_edges() -> None:
    black, grey = Image.new("RGB", (8, 8)), Image.new("RGB", (8, 8), (100, 100, 100))
    assert distance(black, grey) == pytest.approx(100)
    assert psnr(black, grey) == pytest.approx(20 * np.log10(2.55))
    scene = draw(attributes_of(1), 64).picture
    assert edge_energy(scene) > edge_energy(scene.filter(ImageFilter.GaussianBlur(2))) > edge_energy(grey) == 0


def test_intervals_are_wilsons() -> None:
    """Given the example of 8 in 10, when its interval is told, then it is the published one."""
    assert interval(8, 10) == pytest.approx((0.4902, 0.9433), abs=1e-4)


def test_another_colour_is_neither_the_objects_nor_the_grounds() -> None:
    for seed in SEEDS:
        source = attributes_of(seed)
        assert recoloured(source).colour not in (source.colour, source.ground)
        assert recoloured(source).evolve(colour=source.colour) == source


@pytest.mark.long
def test_the_classifier_learns(tmp_path: Path) -> None:
    """Given a few drawn families, when it has trained on them for moments, then it beats chance on others."""
    torch.manual_seed(0)
    scenes = drawn_scenes(tmp_path / "scenes.npy", 0, 32, 32, 0)
    stage = ClassifierStage(32, build_autoencoder(TINY), LabelledBatches(0, 16, scenes))

    state = train(stage, Plan(steps=80, rate=3e-3, average=0.9, quiet=True, sheet_every=1000), tmp_path)

    pictures, shown = held_out(32, 100)
    told = names_of(state.average.module["classifier"], pictures)["style"]
    assert np.mean([a == b.style for a, b in zip(told, shown, strict=True)]) > 2 / len(STYLES)


def test_a_figure_below_its_goal_is_said_to_be() -> None:
    report = Report()
    report.share("hits", [True, True, False, False], 0.8)
    report.add("mean", 0.7, goal=0.6)
    assert [finding.reached for finding in report.findings] == [False, True]
    assert Finding("beside", 1.0).reached is None
    assert "| hits | 0.5 | 0.15 to 0.85 | 4 | 0.8 | no |" in report.table()


def test_a_figure_that_no_picture_decides_is_not_reached() -> None:
    report = Report()
    report.share("hits", [], 0.5)
    assert report.findings[0].reached is False
    assert "| hits | none decided |  |  | 0.5 | no |" in report.table()


def test_a_report_without_a_model_says_what_to_do(tmp_path: Path) -> None:
    done = CliRunner().invoke(main, ["report", "--run", str(tmp_path)])
    assert done.exit_code == 1
    assert "holds no model; run the stages `denoiser` and `export` first" in done.output
