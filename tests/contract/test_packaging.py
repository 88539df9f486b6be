"""One distribution, three packages, and a producer that brings no torch."""

from __future__ import annotations

import subprocess
import sys
import venv
import zipfile
from email.parser import Parser
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]

IMPORT_ALL = """
import pkgutil, importlib, sys
import overpaint_common, overpaint_producer
sys.modules["fakeredis"] = None  # As where the extra for tests is not installed.
for package in (overpaint_common, overpaint_producer):
    for module in pkgutil.walk_packages(package.__path__, package.__name__ + "."):
        if not module.name.endswith("__main__") and "overpaint_producer.testing" not in module.name:
            importlib.import_module(module.name)
heavy = {"torch", "diffusers", "transformers", "numpy", "overpaint_worker"} & set(sys.modules)
sys.exit(f"imported {heavy}" if heavy else 0)
"""


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("wheel")
    subprocess.run(
        [sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps", "--wheel-dir", str(folder), str(ROOT)],
        check=True,
        stdin=subprocess.DEVNULL,
    )
    (built,) = folder.glob("*.whl")
    return built


def test_the_wheel_holds_three_packages_and_their_data(wheel: Path) -> None:
    """Given the built wheel, when it is listed, then packages, schemas, types and the embedded model are in it."""
    with zipfile.ZipFile(wheel) as archive:
        names = set(archive.namelist())
        metadata = Parser().parsestr(archive.read(next(n for n in names if n.endswith("METADATA"))).decode())
    tops = {name.split("/")[0] for name in names if not name.startswith("overpaint-")}
    assert tops == {"overpaint_common", "overpaint_producer", "overpaint_worker"}
    assert {f"{top}/py.typed" for top in tops} <= names
    assert "overpaint_common/schemas/job.schema.json" in names
    weights = "diffusion_pytorch_model.safetensors"
    for model in ("overpaint-mini/unet", "overpaint-mini-canny", "overpaint-mini-upscaler/unet"):
        assert f"overpaint_worker/models/{model}/{weights}" in names
    required = [r for r in metadata.get_all("Requires-Dist", []) if "extra ==" not in r]
    assert not [r for r in required if r.startswith(("torch", "diffusers", "transformers", "accelerate", "numpy"))]
    assert set(metadata.get_all("Provides-Extra", [])) == {"worker", "local", "docs", "testing", "dev"}


def test_the_installed_producer_imports_no_torch(wheel: Path, tmp_path: Path) -> None:
    """Given the wheel alone on top of its own requirements, when all of common and producer is imported, no torch is.

    The requirements come from this environment by path, so that nothing is downloaded; torch would be found there too.
    """
    environment = tmp_path / "venv"
    venv.create(environment, with_pip=False, symlinks=True)
    site = environment / "lib" / f"python{sys.version_info.major}.{sys.version_info.minor}" / "site-packages"
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(site)
    import pydantic

    (site / "requirements.pth").write_text(str(Path(pydantic.__file__).parents[1]))
    ended = subprocess.run(
        [environment / "bin" / "python", "-c", IMPORT_ALL], capture_output=True, text=True, timeout=60, cwd=tmp_path
    )
    assert ended.returncode == 0, ended.stderr


@pytest.mark.long
def test_pip_install_without_extras_gives_a_producer(tmp_path: Path) -> None:
    """Given a fresh virtual environment, when the project is installed without extras, then it works without torch."""
    environment = tmp_path / "venv"
    venv.create(environment, with_pip=True)
    python = environment / "bin" / "python"
    subprocess.run([python, "-m", "pip", "install", "--quiet", str(ROOT)], check=True, stdin=subprocess.DEVNULL)
    assert subprocess.run([python, "-c", IMPORT_ALL], cwd=tmp_path).returncode == 0
    assert subprocess.run([python, "-c", "import torch"], cwd=tmp_path, capture_output=True).returncode != 0
    shown = subprocess.run([environment / "bin" / "overpaint", "--help"], capture_output=True, text=True, cwd=tmp_path)
    assert shown.returncode == 0
    assert "submit" in shown.stdout
    worker = subprocess.run([environment / "bin" / "overpaint", "worker"], capture_output=True, text=True, cwd=tmp_path)
    assert worker.returncode != 0
    assert "overpaint[worker]" in worker.stderr
