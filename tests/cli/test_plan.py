"""`overpaint plan` needs no settings, counts as diffusers does, and draws what it says."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from click.testing import CliRunner, Result
from PIL import Image

from overpaint_common.plan import FAMILIES, Stretch, stretches
from overpaint_producer.chart import steps_chart
from overpaint_producer.cli import main
from overpaint_producer.cli.plan import FAMILY_NAMES
from overpaint_worker.engine.registry import ModelSpec

RUN, PAPER = (54, 98, 160), (252, 251, 248)
"""Colours of what runs and of the page."""

JOB = {
    "source": "s3://photos/cat.png",
    "passes": [
        {"op": "img2img", "prompt": "a cat", "strength": 0.6, "steps": 30},
        {"op": "inpaint", "mask": "s3://photos/mask.png", "prompt": "a collar", "strength": 0.01},
        {"op": "match_color"},
        {"op": "upscale", "prompt": "a cat", "steps": 20},
    ],
    "variants": 3,
    "output": {"prefix": "s3://pictures/"},
}


@pytest.fixture(autouse=True)
def elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Charts go into the current folder unless a place is named; no settings are there."""
    monkeypatch.chdir(tmp_path)
    for name in ("OVERPAINT_REDIS_URL", "OVERPAINT_LEDGER"):
        monkeypatch.delenv(name, raising=False)


def plan(*arguments: str, stdin: str | None = None) -> Result:
    return CliRunner().invoke(main, ["plan", *arguments], input=stdin)


def bars(chart: Image.Image, rows: int) -> list[tuple[int, int] | None]:
    """First and last column of what runs in each row of bars; None where nothing does."""
    found: list[tuple[int, int] | None] = []
    for row in range(rows):
        # Rows are 34 pixels high and begin below the title and the name of the axis.
        line = chart.crop((0, 119 + row * 34 + 17, chart.width, 119 + row * 34 + 18))
        columns = [x for x in range(line.width) if line.getpixel((x, 0)) == RUN]
        found.append((columns[0], columns[-1]) if columns else None)
    return found


def test_of_50_steps_strength_0_6_skips_20_and_runs_30() -> None:
    """Given 50 steps, when they are planned, then each strength says what it skips and runs, in 80 columns."""
    done = plan("--steps", "50")
    assert done.exit_code == 0, done.output
    header, *lines = done.stdout.splitlines()
    assert header.split() == ["strength", "start", "runs"]
    rows = {line.split()[0]: line.split()[1:3] for line in lines}
    assert rows["0.6"] == ["20", "30"]
    assert rows["0.1"] == ["45", "5"]
    assert rows["1"] == ["0", "50"]
    assert rows["0"] == ["-", "0"]
    assert len(rows) == 11
    assert max(map(len, done.stdout.splitlines())) <= 80
    assert Path("overpaint-plan.png").is_file()


def test_each_family_counts_in_its_own_way() -> None:
    """Given strengths that leave no whole number of steps, when they are planned, then SD cuts and flow matching does
    not: 0.58 of 50 is 28.999... in floating point."""
    counts = {}
    for family in FAMILY_NAMES:
        done = plan("--steps", "50", "--strengths", "0.58,0.33,0.001", "--family", family, "--json", "--no-chart")
        counts[family] = [row["effective_steps"] for row in json.loads(done.stdout)["strength"]]
    assert counts == {
        "stable-diffusion": [28, 16, 0],
        "stable-diffusion-xl": [28, 16, 0],
        "flow-matching": [29, 17, 1],
    }


def test_the_families_are_those_of_the_registry() -> None:
    """Given the registry's families, when the plan's are read, then none counts its steps in another way."""
    for family, rule in FAMILIES.items():
        entry = ModelSpec.model_validate({"path": "/any", "family": family, "native_size": 64})
        assert entry.steps_rule == rule
    assert tuple(FAMILIES) == FAMILY_NAMES


def test_what_a_submission_would_refuse_is_said() -> None:
    """Given 7 steps, when strengths leave none of them, then that is said of them, and strength 0 is not among them."""
    done = plan("--steps", "7", "--strengths", "0,0.1,0.33")
    nothing, refused, runs = done.stdout.splitlines()[1:]
    assert nothing.endswith("the source itself")
    assert refused.endswith("refused: runs nothing")
    assert runs.split()[1:3] == ["5", "2"]


def test_the_passes_of_a_job_are_planned_each() -> None:
    """Given a job whose model nobody named, when it is planned, then each pass has its steps, and the sum is told."""
    done = plan("--job", "-", "--steps", "200", "--no-chart", stdin=json.dumps(JOB))
    assert done.exit_code == 0, done.output
    *rows, total = done.stdout.splitlines()[1:]
    assert [row.split()[:4] for row in rows] == [
        ["0", "img2img", "12", "18"],
        ["1", "inpaint", "198", "2"],
        ["2", "match_color", "-", "0"],
        ["3", "upscale", "0", "20"],
    ]
    assert total == "40 steps in each of 3 variants"
    assert max(map(len, done.stdout.splitlines())) <= 80
    assert list(Path().iterdir()) == []


def test_json_holds_the_same(tmp_path: Path) -> None:
    """Given --json, when a job is planned, then one object says each pass, and where the chart is."""
    done = plan("--job", "-", "--json", "--chart", str(tmp_path / "chart.png"), stdin=json.dumps(JOB))
    document = json.loads(done.stdout)
    assert [row["effective_steps"] for row in document["pass"]] == [18, 0, 0, 20]
    assert [row["refused"] for row in document["pass"]] == [False, True, False, False]
    assert [row["strength"] for row in document["pass"]] == [0.6, 0.01, None, None]
    assert document["chart"] == str(tmp_path / "chart.png")


@pytest.mark.parametrize("steps", [1, 7, 50, 1000])
def test_each_bar_is_as_long_as_what_runs(steps: int) -> None:
    """Given strengths, when the chart is drawn, then each bar ends where the longest does and is in proportion."""
    planned = stretches("floor", steps)
    drawn = bars(steps_chart("title", "strength", planned), len(planned))
    whole = drawn[-1]
    assert whole is not None
    left, right = whole
    for bar, strength in zip(drawn, (tenth / 10 for tenth in range(11)), strict=True):
        running = int(steps * strength)
        assert (bar is None) is (running == 0)
        if bar is not None:
            assert bar[1] == right
            assert bar[1] - bar[0] == pytest.approx((right - left) * running / steps, abs=2)


@pytest.mark.parametrize("label", ["0.5", "15 a pass with a very long name indeed"])
def test_nothing_is_cut_off(label: str) -> None:
    """Given short and long labels, when the chart is drawn, then its margin is empty on every side."""
    chart = steps_chart("What runs", "pass", [Stretch(label, 1000, 0, 0.0001), Stretch(label, 1000, 1000, 1.0)])
    inside = chart.crop((16, 16, chart.width - 16, chart.height - 16))
    page = Image.new("RGB", chart.size, PAPER)
    page.paste(inside, (16, 16))
    assert page.tobytes() == chart.tobytes()


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("--steps", "0"), "not in the range"),
        (("--strengths", "1.2"), "strength 1.2 is not between 0 and 1"),
        (("--strengths", "nan"), "strength nan is not between 0 and 1"),
        (("--strengths", "a,b"), "'a,b' is no list of numbers; write them with commas between"),
        (("--family", "x"), "'flow-matching'"),
        (("--job", "nowhere.json"), "nowhere.json"),
        (("--job", "-", "--strengths", "0.5"), "--job brings its own strengths: leave out --strengths"),
        (("--job", "-"), "error[invalid_job]"),
    ],
)
def test_what_cannot_be_planned_is_named(arguments: tuple[str, ...], said: str) -> None:
    done = plan(*arguments, "--no-chart", stdin="[1")
    assert done.exit_code == 2
    assert said in done.stderr
    assert done.stdout == ""
