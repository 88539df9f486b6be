"""What containers get from compose.yaml and from the kustomizations: commands, environments, mounted files."""

from __future__ import annotations

import base64
import re
import subprocess
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import cache, partial
from pathlib import Path
from typing import Any

import pytest
import yaml
from dotenv import dotenv_values

from tests.infra.images import DOCKER, ROOT, Image, image
from tests.support.programs import required

INFRA = ROOT / "infra"
EXAMPLE_ENV = DOCKER / "example.env"
OWN_IMAGES = ("overpaint-worker", "overpaint-tools")

_VARIABLE = re.compile(r"\$\{(\w+)(?::([?-])([^}]*))?\}")


@dataclass(frozen=True)
class Container:
    """One container of one of the project's images."""

    name: str
    image: Image
    tag: str
    argv: list[str]
    given: dict[str, str]
    """What the image's own environment is added to."""
    files: dict[str, str] = field(default_factory=dict)
    """Contents of the files mounted into it, by their path there."""

    @property
    def environment(self) -> dict[str, str]:
        return {**self.image.final.environment, **self.given}

    def local(self, folder: Path, **changes: str) -> dict[str, str]:
        """Its environment with its files and caches in `folder`; `changes` count last."""
        paths = {"/var/cache/overpaint": str(folder / "cache")}
        for path, text in self.files.items():
            file = folder / path.lstrip("/")
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_text(text)
            paths[path] = str(file)
        return {**{name: _moved(value, paths) for name, value in self.environment.items()}, **changes}


def _moved(value: str, paths: Mapping[str, str]) -> str:
    for before, after in paths.items():
        if value.startswith(before):
            return after + value.removeprefix(before)
    return value


def interpolated(value: Any, variables: Mapping[str, str]) -> Any:
    """With every ${NAME}, ${NAME:-default} and ${NAME:?message} replaced as Compose does."""
    if isinstance(value, dict):
        return {name: interpolated(inner, variables) for name, inner in value.items()}
    if isinstance(value, list):
        return [interpolated(inner, variables) for inner in value]
    if not isinstance(value, str):
        return value

    def replaced(found: re.Match[str]) -> str:
        name, kind, text = found.groups()
        known = variables.get(name, "")
        assert known or kind == "-", f"{name}: {text}"
        return known or text

    return _VARIABLE.sub(replaced, value)


def compose(variables: Mapping[str, str] | None = None) -> dict[str, Any]:
    """docker/compose.yaml with the values of example.env, or others."""
    values = example_env() if variables is None else variables
    whole: dict[str, Any] = interpolated(yaml.safe_load((DOCKER / "compose.yaml").read_text()), values)
    return whole


def example_env() -> dict[str, str]:
    return {name: value or "" for name, value in dotenv_values(EXAMPLE_ENV).items()}


def of_compose() -> dict[str, Container]:
    """The services that run the project's images."""
    found = {}
    for name, service in compose()["services"].items():
        repository, _, tag = service["image"].partition(":")
        if repository in OWN_IMAGES:
            own = image(repository.removeprefix("overpaint-"))
            argv = own.argv(*service.get("command", []), entrypoint=service.get("entrypoint"))
            binds = [mount.split(":") for mount in service.get("volumes", []) if mount.startswith("./")]
            files = {inside: (DOCKER / outside).read_text() for outside, inside, *_ in binds}
            found[name] = Container(f"compose {name}", own, tag, argv, service["environment"], files)
    return found


@cache
def manifests(folder: Path) -> tuple[dict[str, Any], ...]:
    """What `kubectl kustomize` makes of a folder; skips where there is none, or one too old for overlays."""
    kubectl = required("kubectl")
    done = subprocess.run([kubectl, "kustomize", str(folder)], capture_output=True, text=True, timeout=60, check=False)
    if done.returncode and "patchesStrategicMerge of type" in done.stderr:
        pytest.skip(f"{kubectl} is too old for an overlay that patches")
    assert done.returncode == 0, done.stderr
    assert "deprecated" not in done.stderr
    return tuple(yaml.safe_load_all(done.stdout))


def of_kind(folder: Path, kind: str) -> list[dict[str, Any]]:
    return [each for each in manifests(folder) if each["kind"] == kind]


def named(folder: Path, kind: str, name: str) -> dict[str, Any]:
    """The one object of that kind and name."""
    (found,) = [each for each in of_kind(folder, kind) if each["metadata"]["name"] == name]
    return found


def of_kustomization(folder: Path) -> dict[str, Container]:
    """The containers of the Deployments, by their names."""
    found = {}
    for deployment in of_kind(folder, "Deployment"):
        pod = deployment["spec"]["template"]["spec"]
        (container,) = pod["containers"]
        own, tag = _image(container["image"])
        given = {name: value for source in container["envFrom"] for name, value in _source(folder, source).items()}
        given |= {variable["name"]: variable["value"] for variable in container["env"]} if "env" in container else {}
        files: dict[str, str] = {}
        mounts = {mount["name"]: mount["mountPath"] for mount in container["volumeMounts"]}
        for volume in pod["volumes"]:
            if "configMap" in volume:
                data = named(folder, "ConfigMap", volume["configMap"]["name"])["data"]
                files |= {f"{mounts[volume['name']]}/{name}": text for name, text in data.items()}
        label = f"{folder.name} {container['name']}"
        found[container["name"]] = Container(label, own, tag, own.argv(*container["args"]), given, files)
    return found


def _image(reference: str) -> tuple[Image, str]:
    repository, _, tag = reference.rpartition("/")[2].partition(":")
    assert repository in OWN_IMAGES
    return image(repository.removeprefix("overpaint-")), tag


def _source(folder: Path, source: dict[str, Any]) -> dict[str, str]:
    if "configMapRef" in source:
        plain: dict[str, str] = named(folder, "ConfigMap", source["configMapRef"]["name"])["data"]
        return plain
    encoded: dict[str, str] = named(folder, "Secret", source["secretRef"]["name"])["data"]
    return {name: base64.b64decode(value).decode() for name, value in encoded.items()}


KUSTOMIZATIONS = (INFRA / "base", INFRA / "overlays" / "example")
"""Every folder that is meant to be applied."""

PLACES: dict[str, Callable[[], dict[str, Container]]] = {
    "compose": of_compose,
    **{folder.name: partial(of_kustomization, folder) for folder in KUSTOMIZATIONS},
}
"""Where containers are described, and what reads that."""
