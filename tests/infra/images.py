"""Reading the Dockerfiles: stages, what they set and copy, and how their containers are started."""

from __future__ import annotations

import json
import re
import shlex
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

ROOT = Path(__file__).parents[2]
DOCKER = ROOT / "docker"
PREFIX = "/opt/overpaint"
"""Where both images keep the installation."""


@dataclass
class Stage:
    """One `FROM` and the instructions below it, those of the stage it builds upon included."""

    base: str
    name: str
    instructions: list[tuple[str, str]] = field(default_factory=list)

    def values(self, instruction: str) -> list[str]:
        return [value for name, value in self.instructions if name == instruction]

    def last(self, instruction: str) -> str:
        return self.values(instruction)[-1]

    @property
    def environment(self) -> dict[str, str]:
        """What ENV sets, without PATH."""
        pairs = [pair.partition("=") for value in self.values("ENV") for pair in shlex.split(value)]
        return {name: value for name, _, value in pairs if name != "PATH"}

    @property
    def copies(self) -> list[tuple[list[str], str]]:
        """Sources in the build's context, and the target, of each COPY that takes from no other stage."""
        words = [value.split() for value in self.values("COPY")]
        return [(line[:-1], line[-1]) for line in words if not line[0].startswith("--from=")]


@dataclass(frozen=True)
class Image:
    file: Path
    arguments: dict[str, str]
    """Defaults of what stands before the first FROM."""
    stages: dict[str, Stage]

    @property
    def final(self) -> Stage:
        return list(self.stages.values())[-1]

    def argv(self, *arguments: str, entrypoint: list[str] | None = None) -> list[str]:
        """What a container of this image runs, given its command and an entry point of another kind."""
        entry = json.loads(self.final.last("ENTRYPOINT")) if entrypoint is None else entrypoint
        default = json.loads(self.final.last("CMD")) if entrypoint is None else []
        return [*entry, *(arguments or default)]


def image(name: str) -> Image:
    """What docker/<name>.Dockerfile says."""
    file = DOCKER / f"{name}.Dockerfile"
    arguments: dict[str, str] = {}
    stages: dict[str, Stage] = {}
    for instruction, value in _instructions(file):
        if instruction == "FROM":
            base, _, alias = value.partition(" AS ")
            inherited = list(stages[base].instructions) if base in stages else []
            stages[alias or "final"] = Stage(base, alias or "final", inherited)
        elif stages:
            list(stages.values())[-1].instructions.append((instruction, value))
        else:
            variable, _, default = value.partition("=")
            arguments[variable] = default
    return Image(file, arguments, stages)


def _instructions(file: Path) -> Iterator[tuple[str, str]]:
    lines = [line for line in file.read_text().splitlines() if not line.lstrip().startswith("#")]
    for line in re.sub(r"\\\n\s*", " ", "\n".join(lines)).splitlines():
        if line.strip():
            name, _, value = line.partition(" ")
            yield name, value.strip()


def context() -> list[Path]:
    """The files that .dockerignore lets into a build, relative to the repository: names and folders only, as it has."""
    rules = [line for line in (ROOT / ".dockerignore").read_text().splitlines() if line and not line.startswith("#")]
    assert rules[0] == "*"
    wanted = [ROOT / rule.removeprefix("!") for rule in rules if rule.startswith("!")]
    files = [file for place in wanted for file in (place.rglob("*") if place.is_dir() else [place])]
    compiled = {"**/__pycache__", "**/*.py[co]"}
    assert {rule for rule in rules[1:] if not rule.startswith("!")} == compiled
    return sorted(
        file.relative_to(ROOT)
        for file in files
        if file.is_file() and "__pycache__" not in file.parts and file.suffix not in (".pyc", ".pyo")
    )
