"""`overpaint demo` runs whole, and its pictures mean what the sheet says."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
from click.testing import CliRunner
from PIL import Image, ImageChops, ImageStat

from overpaint_common.result import Result
from overpaint_producer.cli import main
from overpaint_producer.local import stack
from overpaint_producer.local.scene import draw_scene

pytest.importorskip("torch")

STRENGTHS = ("0.0", "0.2", "0.4", "0.6", "0.8", "1.0")
STYLES = {"flat", "oil", "pencil", "watercolor", "pixel", "neon"}


def run_demo(folder: Path, **variables: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "overpaint_producer.cli", "demo", folder.name],
        cwd=folder.parent,
        env={**os.environ, **variables},
        capture_output=True,
        text=True,
        timeout=220,
        check=False,
    )


def difference(one: Image.Image, other: Image.Image) -> float:
    return sum(ImageStat.Stat(ImageChops.difference(one.convert("RGB"), other.convert("RGB"))).mean) / 3


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where a demo has run; settings of somebody else's fleet in the environment must not disturb it."""
    folder = tmp_path_factory.mktemp("demo") / "overpaint-demo"
    done = run_demo(folder, OVERPAINT_LEDGER="s3://not-mine/", OVERPAINT_REGISTRY="/nowhere.toml")
    assert done.returncode == 0, done.stderr
    assert "12 of 12 jobs succeeded" in done.stdout
    assert "overpaint-demo/contact-sheet.png" in done.stdout
    return folder


def test_the_sheet_and_every_picture_are_there(folder: Path) -> None:
    names = {file.stem for file in (folder / "pictures").glob("*.png")}
    assert names == {f"strength-{strength}" for strength in STRENGTHS} | STYLES
    with Image.open(folder / "contact-sheet.png") as sheet:
        sheet.load()
        assert sheet.width > 6 * 192


def test_strength_0_keeps_the_source_and_more_strength_changes_more(folder: Path) -> None:
    source = draw_scene()
    changes = []
    for strength in STRENGTHS:
        with Image.open(folder / "pictures" / f"strength-{strength}.png") as picture:
            changes.append(difference(picture, source))
    assert changes[0] == 0
    assert changes == sorted(set(changes))


def test_the_prompt_decides_what_comes_out(folder: Path) -> None:
    with Image.open(folder / "pictures" / "strength-0.8.png") as repainted:
        red, _, blue = ImageStat.Stat(repainted.convert("RGB").crop((18, 28, 44, 50))).mean
    # The wall was red; "a blue house" made it blue.
    assert blue > red + 20


def test_every_job_left_its_record_and_nothing_open(folder: Path) -> None:
    records = [Result.model_validate_json(file.read_bytes()) for file in (folder / "out").glob("*/result.json")]
    assert len(records) == len(STRENGTHS) + len(STYLES)
    assert all(record.status == "succeeded" for record in records)
    assert sum(record.passthrough for record in records) == 1
    assert not [path for path in (folder / "ledger" / "open").rglob("*") if path.is_file()]


@pytest.mark.long
def test_it_runs_again_in_the_same_folder(folder: Path) -> None:
    before = (folder / "contact-sheet.png").stat().st_mtime_ns
    done = run_demo(folder)
    assert done.returncode == 0, done.stderr
    assert (folder / "contact-sheet.png").stat().st_mtime_ns > before
    assert len(list((folder / "out").glob("*/result.json"))) == 2 * (len(STRENGTHS) + len(STYLES))


def test_without_torch_it_says_what_to_install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(stack, "find_spec", lambda name: None if name == "torch" else name)
    done = CliRunner().invoke(main, ["demo", str(tmp_path / "demo")])
    assert done.exit_code == 2
    assert "needs torch" in done.stderr
    assert "pip install 'overpaint[worker,local]'" in done.stderr
    assert not (tmp_path / "demo").exists()
