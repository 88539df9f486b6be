"""The Dockerfiles name what exists, pin what they take, and carry no weights, compilers or rights that nobody needs."""

from __future__ import annotations

import hashlib
import os
import re
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

from overpaint_worker.engine.registry import MODELS
from tests.infra.containers import KUSTOMIZATIONS, PLACES, compose, of_compose, of_kind
from tests.infra.images import DOCKER, PREFIX, ROOT, Image, context, image
from tools.licences import packages, pins

PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
IMAGES = pytest.mark.parametrize("name", ["worker", "tools"])
HEAVY = ("torch", "diffusers", "transformers", "accelerate", "numpy")


def commands(found: Image, stage: str = "build") -> list[str]:
    """The shell commands of a stage."""
    return [part.strip() for value in found.stages[stage].values("RUN") for part in value.split(" && ")]


@IMAGES
def test_whatever_is_copied_is_there_and_enters_the_build(name: str) -> None:
    """Given a Dockerfile, when its COPY lines are followed, then .dockerignore lets each source in."""
    entering = context()
    for stage in image(name).stages.values():
        for sources, _ in stage.copies:
            for source in map(Path, sources):
                assert any(file == source or source in file.parents for file in entering), source


def test_no_weights_enter_a_build_but_those_of_the_small_models() -> None:
    """Given the files that enter a build, when the large ones are looked for, then they are the shipped models."""
    weights = [file for file in context() if file.suffix in (".safetensors", ".bin", ".ckpt", ".pt", ".pth", ".gguf")]
    assert weights
    assert all((ROOT / file).is_relative_to(MODELS) for file in weights)
    assert sum((ROOT / file).stat().st_size for file in context()) < 32 * 2**20


@IMAGES
def test_nothing_secret_enters_a_build(name: str) -> None:
    """Given the files that enter a build, when settings and secrets are looked for, then there are none."""
    assert not [file for file in context() if file.suffix == ".env" or file.name.startswith(".env")]
    assert not [variable for variable in image(name).final.environment if re.search("SECRET|TOKEN|PASSWORD", variable)]


@IMAGES
def test_every_base_image_is_named_by_release_and_can_be_given_by_digest(name: str) -> None:
    """Given a Dockerfile, when its bases are read, then each is an argument with a full release for its default."""
    found = image(name)
    for stage in found.stages.values():
        if stage.base not in found.stages:
            assert stage.base.removeprefix("${").removesuffix("}") in found.arguments
    for reference in found.arguments.values():
        assert re.fullmatch(r"[\w/-]+:\d+\.\d+\.\d+-[\w.-]+", reference), reference


def test_the_cuda_base_is_of_the_release_that_torch_is_built_for() -> None:
    """Given torch's pin, when its CUDA release is compared with the base image's, then major and minor agree."""
    built_for = {"2.13.0": "13.0"}
    base = re.search(r"cuda:(\d+\.\d+)\.", image("worker").arguments["CUDA_IMAGE"])
    assert base is not None
    assert base[1] == built_for[pins()["torch"]]


@IMAGES
def test_extras_and_release_are_those_of_the_project(name: str) -> None:
    """Given what is installed into an image, when pyproject.toml is read, then extras and version are its own."""
    found = image(name)
    (requirement,) = re.findall(r'"overpaint(?:\[([\w,]+)\])? @', " ".join(commands(found)))
    assert set(filter(None, requirement.split(","))) <= PROJECT["optional-dependencies"].keys()
    assert bool(requirement) == (name == "worker")
    assert f"VERSION={PROJECT['version']}" in found.final.values("ARG")


@pytest.mark.parametrize("place", PLACES)
def test_every_container_runs_this_release(place: str) -> None:
    """Given the containers that are described, when their images' tags are read, then they are this version."""
    assert {container.tag for container in PLACES[place]().values()} == {PROJECT["version"]}


def test_no_image_is_named_without_a_release() -> None:
    """Given all images that are named, when their tags are read, then none floats."""
    pods = [each["spec"]["template"]["spec"] for folder in KUSTOMIZATIONS for each in of_kind(folder, "Deployment")]
    named = [container["image"] for pod in pods for container in pod["containers"]]
    named += [service["image"] for service in compose()["services"].values()]
    assert all(re.search(r":(RELEASE\.\d{4}|\d+\.\d+\.\d+)", reference) for reference in named), named


@IMAGES
def test_an_image_runs_as_a_numbered_user_without_rights(name: str) -> None:
    """Given an image, when its user is read, then it is a number that pods can check, and the one they name."""
    assert image(name).final.last("USER") == "10001:10001"
    for folder in KUSTOMIZATIONS:
        for deployment in of_kind(folder, "Deployment"):
            context_of_pod = deployment["spec"]["template"]["spec"]["securityContext"]
            assert (context_of_pod["runAsUser"], context_of_pod["runAsGroup"]) == (10001, 10001)


@IMAGES
def test_the_final_stage_installs_nothing(name: str) -> None:
    """Given the last stage, when its commands are read, then no compiler, package manager or index is among them."""
    shell = " ".join(image(name).final.values("RUN"))
    assert not re.search(r"\b(apt-get|pip|uv|gcc|curl|wget)\b", shell)


def test_every_file_that_a_container_calls_is_in_its_image() -> None:
    """Given commands and checks, when the files of ours that they name are looked up, then they exist."""
    containers = of_compose()
    called = set(re.findall(rf"{PREFIX}/libexec/([\w.]+)", repr(compose())))
    assert called
    copied = {
        Path(source).name
        for each in containers.values()
        for sources, _ in each.image.final.copies
        for source in sources
    }
    assert called <= copied
    assert all((DOCKER / name).is_file() for name in called)


def test_the_constraints_pin_everything_that_the_worker_image_installs() -> None:
    """Given all runtime packages of this environment, when the two files of pins are read, then each is pinned."""
    lines = (DOCKER / "constraints-cuda.txt").read_text().splitlines()
    also = {line.split("==")[0] for line in lines if "==" in line}
    wanted = {package.name for package in packages() if package.extra != "local"}
    assert wanted - pins().keys() - also == set()
    assert not also & pins().keys()


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """Given the tools image's build stage, its own command for the wheel run in two trees of different age."""
    first, second = (tmp_path_factory.mktemp("build") for _ in range(2))
    for file in context():
        copied = first / "src" / file
        copied.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(ROOT / file, copied)
    (first / "constraints").mkdir()
    shutil.copyfile(ROOT / "constraints.txt", first / "constraints" / "constraints.txt")
    shutil.copytree(first, second, dirs_exist_ok=True)
    for file in second.rglob("*"):
        os.utime(file, times=(1_700_000_000,) * 2)
    (build,) = [command for command in commands(image("tools")) if command.startswith("uv build")]
    return [_wheel(folder, build) for folder in (first, second)]


def _wheel(folder: Path, command: str) -> Path:
    run(folder, command)
    (wheel,) = (folder / "dist").glob("*.whl")
    return wheel


def run(folder: Path, command: str) -> None:
    """A build command as the image runs it, but for its absolute paths, which lie in `folder`."""
    local = re.sub(r"(?<![\w.])/(src|dist|constraints|opt)\b", rf"{folder}/\1", command)
    stage = image("tools").stages["build"].environment | {"SOURCE_DATE_EPOCH": "0"}
    del stage["UV_NO_CACHE"]  # What was downloaded once need not be again.
    outer = {name: value for name, value in os.environ.items() if not name.startswith(("UV_", "PIP_", "VIRTUAL_"))}
    environment = {**outer, **stage, "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}"}
    done = subprocess.run(
        ["/bin/sh", "-ec", local],
        cwd=folder / "src",
        env=environment,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=240,
        check=False,
    )
    assert done.returncode == 0, done.stderr


def test_the_wheel_is_the_same_whenever_it_is_built(built: list[Path]) -> None:
    """Given two builds of one tree at different times, when the wheels are compared, then they agree to the byte."""
    first, second = (hashlib.sha256(wheel.read_bytes()).hexdigest() for wheel in built)
    assert first == second


@pytest.mark.long
def test_what_the_tools_image_installs_runs_without_torch(built: list[Path]) -> None:
    """Given the tools image's install command, when it is run, then its command line works and nothing heavy came."""
    folder = built[0].parents[1]
    for command in commands(image("tools")):
        if command.startswith(("uv venv", "uv pip")):
            run(folder, command)
    programs = folder / "opt" / "overpaint" / "bin"
    listed = subprocess.run(
        [programs / "python", "-c", "import importlib.metadata as m; print(*(d.name for d in m.distributions()))"],
        capture_output=True,
        text=True,
        check=True,
    ).stdout.split()
    assert not set(listed) & set(HEAVY)
    for arguments in (["--help"], ["keeper", "--help"], ["doctor", "--help"]):
        done = subprocess.run(
            [programs / "overpaint", *arguments], capture_output=True, text=True, cwd=folder, check=True
        )
        assert done.stdout.startswith("Usage: overpaint")
