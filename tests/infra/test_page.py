"""docs/deployment.md says of images, services and manifests what they are; its commands cannot be run here."""

from __future__ import annotations

import re
import shlex
import shutil
import subprocess
import tomllib
from collections.abc import Iterator
from itertools import pairwise

import click
import pytest
import yaml

from overpaint_common.errors import OverpaintError
from overpaint_producer.cli import main
from overpaint_worker import exits
from overpaint_worker.settings import WorkerSettings
from tests.docs.pages import DOCS, page
from tests.infra.containers import INFRA, compose, manifests, named
from tests.infra.images import DOCKER, ROOT, Image, image

PAGE = page(DOCS / "deployment.md")
EXAMPLE = INFRA / "overlays" / "example"
VERSION = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["version"]


def commands() -> Iterator[list[str]]:
    """Every command of the page's shell blocks, in words."""
    for block in PAGE.blocks("sh"):
        for line in block.replace("\\\n", " ").splitlines():
            yield shlex.split(line)


def after(words: list[str], *options: str) -> list[str]:
    """The values of an option, in order."""
    return [value for option, value in pairwise(words) if option in options]


def parse(words: list[str]) -> None:
    """Have our command line take what follows `overpaint`; raises UsageError."""
    command = main.get_command(click.Context(main), words[0])
    assert command is not None, words
    command.make_parser(click.Context(command)).parse_args(words[1:])


def test_every_command_of_the_page_names_what_exists() -> None:
    """Given the page's commands, when files, images, services and objects in them are looked up, then all are there."""
    programs = {"docker build": _build, "docker compose": _compose, "kubectl": _kubectl, "cp": _copy}
    for words in commands():
        (check,) = [each for name, each in programs.items() if words[: len(name.split())] == name.split()]
        check(words)


def _build(words: list[str]) -> None:
    file = ROOT / after(words, "-f")[0]
    found: Image = image(file.name.removesuffix(".Dockerfile"))
    assert after(words, "-t") == [f"overpaint-{file.name.removesuffix('.Dockerfile')}:{VERSION}"]
    known = found.arguments.keys() | {text.partition("=")[0] for text in found.final.values("ARG")}
    for name, _, value in (argument.partition("=") for argument in after(words, "--build-arg")):
        assert name in known
        assert name not in found.arguments or value.startswith(f"{found.arguments[name]}@")
    assert words[-1] == "."


def _compose(words: list[str]) -> None:
    assert (ROOT / after(words, "-f")[0]) == DOCKER / "compose.yaml"
    if "run" in words:
        service, *arguments = words[words.index("--rm") + 1 :]
        assert service in compose()["services"]
        parse(arguments or compose()["services"][service]["command"])


def _kubectl(words: list[str]) -> None:
    folders = [ROOT / folder for folder in after(words, "-k", "kustomize")]
    assert all(folder == EXAMPLE for folder in folders)
    spaces = after(words, "-n", "namespace")
    assert {each["metadata"]["namespace"] for each in manifests(EXAMPLE)} >= set(spaces)
    for kind, name in (word.split("/") for word in words if word.startswith("deployment/")):
        assert named(EXAMPLE, kind.title(), name)
    if "--" in words:
        program, *arguments = words[words.index("--") + 1 :]
        assert program == "overpaint"
        parse(arguments)


def _copy(words: list[str]) -> None:
    source, target = words[1:]
    assert (ROOT / source).is_file()
    git = shutil.which("git")
    if git is not None and (ROOT / ".git").exists():
        assert subprocess.run([git, "check-ignore", "--quiet", target], cwd=ROOT).returncode == 0


def test_every_path_on_the_page_exists() -> None:
    """Given the paths between backticks, when they are looked up, then the repository has them."""
    paths = {span for span in PAGE.spans if re.fullmatch(r"(docker|infra)/[\w./-]+", span)} - {"docker/.env"}
    assert len(paths) > 5
    assert [path for path in paths if not (ROOT / path).exists()] == []


def test_the_figures_of_the_page_are_those_of_the_files() -> None:
    """Given sentences with the figures of code and manifests in them, when the page is read, then it says each."""
    pod = named(INFRA / "base", "Deployment", "overpaint-worker")["spec"]["template"]["spec"]
    probe = pod["containers"][0]["startupProbe"]
    grace = {each["name"]: each["value"] for each in pod["containers"][0]["env"]}["OVERPAINT_GRACE"]
    load = WorkerSettings.model_fields["load_limit"].default
    (user,) = {image(name).final.last("USER").split(":")[0] for name in ("worker", "tools")}
    for sentence in (
        f"run as user {user} ",
        f"`OVERPAINT_GRACE` ({grace} seconds)",
        f"`terminationGracePeriodSeconds` is {pod['terminationGracePeriodSeconds']}:",
        f"up to {probe['periodSeconds'] * probe['failureThreshold'] // 60} minutes, beyond the {load / 60:g} of",
        f"ends with status {exits.CONFIG} and is seen",
        "asks for one `nvidia.com/gpu`, so",
    ):
        assert sentence in PAGE.prose, sentence


def test_what_the_table_says_to_change_is_in_the_example() -> None:
    """Given the fields that the page's table names, when the example's kustomization is read, then it has each."""
    named_there = set(re.findall(r"\b[a-z]+[A-Za-z]*\b", " ".join(row[1] for row in PAGE.rows("what"))))
    fields = {"images", "configMapGenerator", "replicas", "patches"}
    assert fields <= named_there
    assert fields <= yaml.safe_load((EXAMPLE / "kustomization.yaml").read_text()).keys()


def test_a_command_that_is_wrong_is_found() -> None:
    """Given a call with an option that does not exist, when it is parsed as above, then that is refused."""
    with pytest.raises((click.UsageError, OverpaintError)):
        parse(["submit", "s3://photos/cat.jpg", "s3://pictures/", "--no-such-option"])
