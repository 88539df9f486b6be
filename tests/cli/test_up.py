"""`overpaint up` as a person uses it: start it, do what it says, end it."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import psutil
import pytest
from PIL import Image

from tests.cli.test_redis import gone, until

pytest.importorskip("torch")

START_LIMIT = 200
"""Seconds; torch is imported on a busy machine."""


@dataclass
class Up:
    """A running `overpaint up`."""

    process: subprocess.Popen[str]
    folder: Path
    said: list[str]
    children: list[psutil.Process]

    @property
    def next_step(self) -> str:
        """What it tells the user to run in another terminal."""
        start = next(number for number, line in enumerate(self.said) if line.startswith("In another terminal"))
        return "\n".join(line.strip() for line in self.said[start + 1 :] if line.startswith("  "))

    def shell(self, script: str) -> subprocess.CompletedProcess[str]:
        """Run a script in the folder where `up` was started, `overpaint` being this very installation."""
        program = shutil.which("overpaint", path=str(Path(sys.executable).parent))
        assert program is not None
        path = f"{Path(program).parent}:{os.environ['PATH']}"
        plain = {name: value for name, value in os.environ.items() if not name.startswith("OVERPAINT_")}
        return subprocess.run(
            ["bash", "-ec", script],
            cwd=self.folder.parent,
            env={**plain, "PATH": path},
            capture_output=True,
            text=True,
            timeout=120,
            check=False,
        )


def start(folder: Path) -> Up:
    plain = {name: value for name, value in os.environ.items() if not name.startswith("OVERPAINT_")}
    process = subprocess.Popen(
        [sys.executable, "-m", "overpaint_producer.cli", "up", folder.name],
        cwd=folder.parent,
        env={**plain, "OVERPAINT_CPU_THREADS": "1"},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    assert process.stdout is not None
    said = []
    for line in process.stdout:
        said.append(line.rstrip("\n"))
        if line.startswith("Ctrl-C here"):
            return Up(process, folder, said, psutil.Process(process.pid).children(recursive=True))
    pytest.fail("overpaint up ended: " + "\n".join(said))


@pytest.fixture(scope="module")
def up(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Up]:
    running = start(tmp_path_factory.mktemp("with a space") / "local")
    with running.process:
        yield running
        running.process.terminate()
        # Told to end, it ends everything it started, and calls that success.
        assert running.process.wait(60) == 0
    assert all(gone(child.pid) for child in running.children)


@pytest.mark.timeout(START_LIMIT)
def test_what_it_says_to_do_next_works_as_printed(up: Up) -> None:
    done = up.shell(up.next_step)
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("succeeded")
    assert "overpaint-mini on cpu" in done.stdout
    (picture,) = (up.folder / "out").rglob("*.png")
    with Image.open(picture) as repainted:
        assert repainted.size == (64, 64)


def test_a_job_can_be_followed_and_saved_by_a_script(up: Up) -> None:
    done = up.shell(
        "source local/overpaint.env\n"
        'id=$(overpaint submit local/in/house.png local/out --prompt "a blue house" --strength 0.5 --steps 12)\n'
        "overpaint wait $id --json\n"
        "overpaint result $id --save saved >&2"
    )
    assert done.returncode == 0, done.stderr
    documents = [json.loads(line) for line in done.stdout.splitlines()]
    assert documents[-1]["record"]["status"] == "succeeded"
    assert max(document.get("step", 0) for document in documents) == 6
    assert len(list((up.folder.parent / "saved").glob("*.png"))) == 1


def test_doctor_finds_nothing_wrong(up: Up) -> None:
    done = up.shell("source local/overpaint.env\noverpaint doctor --json")
    assert done.returncode == 0, done.stdout
    assert {json.loads(line)["state"] for line in done.stdout.splitlines()} == {"ok"}


def test_a_second_one_in_the_same_folder_is_refused(up: Up) -> None:
    done = up.shell("overpaint up local")
    assert done.returncode == 2
    assert "another stack runs in" in done.stderr


def test_a_worker_that_cannot_start_is_reported_with_its_own_words(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "overpaint_producer.cli", "up", "local"],
        cwd=tmp_path,
        env={**os.environ, "OVERPAINT_REGISTRY": "/nowhere.toml"},
        capture_output=True,
        text=True,
        timeout=100,
        check=False,
    )
    assert done.returncode == 3
    assert "error[engine_died]: the worker ended with status 78" in done.stderr
    assert "/nowhere.toml" in done.stderr
    assert "Traceback" not in done.stderr


@pytest.mark.long
@pytest.mark.skipif(sys.platform != "linux", reason="only Linux tells a child of its parent's death")
def test_killed_it_leaves_nothing_running_and_starts_again_at_the_same_address(tmp_path: Path) -> None:
    first = start(tmp_path / "local")
    assert len(first.children) >= 3  # Redis, the supervisor, its worker.
    with first.process:
        first.process.send_signal(signal.SIGKILL)
    assert until(lambda: all(gone(child.pid) for child in first.children), 30)
    exports = (tmp_path / "local" / "overpaint.env").read_text()
    second = start(tmp_path / "local")
    assert (tmp_path / "local" / "overpaint.env").read_text() == exports
    with second.process:
        second.process.send_signal(signal.SIGINT)
        assert second.process.wait(60) == 0


@pytest.mark.long
def test_a_worker_that_ends_ends_the_stack_with_the_end_of_its_log(tmp_path: Path) -> None:
    running = start(tmp_path / "local")
    supervisor = next(child for child in running.children if "overpaint_worker" in " ".join(child.cmdline()))
    with running.process:
        supervisor.kill()
        assert running.process.wait(60) == 3
        assert running.process.stdout is not None
        assert "error[engine_died]: the worker ended with status -9" in running.process.stdout.read()
    assert until(lambda: all(gone(child.pid) for child in running.children), 30)
