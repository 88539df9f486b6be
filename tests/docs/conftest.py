"""The stack that the README tells a newcomer to run."""

from __future__ import annotations

import os
import shlex
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from overpaint_producer.local.child import Child
from overpaint_producer.local.scene import draw_scene
from tests.docs.pages import README, page
from tools.gallery import draw_inputs

START_LIMIT = 120.0
ACTIVATE = "source .venv/bin/activate"


@dataclass(frozen=True)
class Newcomer:
    """Somebody in a folder of their own who follows the README; `overpaint up` runs in another terminal."""

    folder: Path

    @property
    def local(self) -> Path:
        return self.folder / "overpaint-local"

    @property
    def variables(self) -> dict[str, str]:
        """The settings that make a program part of the stack."""
        lines = (self.local / "overpaint.env").read_text().splitlines()
        words = (shlex.split(line) for line in lines if line.startswith("export "))
        return dict(word.split("=", 1) for _, word in words)

    def placed(self, example: str) -> str:
        """An example of a page with this stack's places, and its model, for those of the page."""
        for shown, here in {
            "s3://photos/": (self.local / "in" / "photos").as_uri() + "/",
            "s3://pictures/": (self.local / "out").as_uri() + "/",
            "s3://my-ledger/": self.variables["OVERPAINT_LEDGER"],
            "redis://redis.internal:6379/0": self.variables["OVERPAINT_REDIS_URL"],
            "sdxl": "overpaint-mini",
        }.items():
            example = example.replace(shown, here)
        return example

    def shell(self, script: str) -> subprocess.CompletedProcess[str]:
        """Run a script as typed in that folder, but for the line that activates an installation: this one is used."""
        script = "\n".join(line for line in script.splitlines() if line != ACTIVATE)
        return subprocess.run(
            [_bash(), "-ec", script],
            cwd=self.folder,
            env=environment(),
            capture_output=True,
            text=True,
            timeout=120,
            check=False,
        )

    def python(self, program: str) -> str:
        """What a Python program prints that was started with the stack's settings; it must succeed."""
        (self.folder / "example.py").write_text(program)
        done = self.shell(f"source overpaint-local/overpaint.env\n{shlex.quote(sys.executable)} example.py")
        assert done.returncode == 0, done.stderr
        return done.stdout


def _bash() -> str:
    found = shutil.which("bash")
    if found is None:
        pytest.skip("the pages' shell examples need bash")
    return found


def environment() -> dict[str, str]:
    plain = {name: value for name, value in os.environ.items() if not name.startswith("OVERPAINT_")}
    return {**plain, "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}"}


@pytest.fixture(scope="session")
def newcomer(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Newcomer]:
    """Given the README's first shell block under "You write a service", typed into a shell and left running."""
    pytest.importorskip("torch")
    folder = tmp_path_factory.mktemp("newcomer")
    up = next(block for block in page(README).blocks("sh") if "overpaint up" in block)
    typed = up.replace(ACTIVATE, "").strip()
    script = f"cd {shlex.quote(str(folder))} && exec {typed}"
    running = Child([_bash(), "-c", script], log=folder / "up.log", env={**environment(), "OVERPAINT_CPU_THREADS": "1"})
    try:
        deadline = time.monotonic() + START_LIMIT
        while "Ctrl-C here" not in running.tail(30):
            assert running.wait(0.05) is None, running.tail()
            assert time.monotonic() < deadline, running.tail()
        newcomer = Newcomer(folder)
        photos = newcomer.local / "in" / "photos"
        photos.mkdir()
        draw_inputs(photos)
        draw_scene().save(photos / "cat.jpg")
        yield newcomer
    finally:
        running.stop(60)
