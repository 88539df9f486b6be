"""Dockerfiles, compose file and manifests are what Docker, Compose and Kubernetes take."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import kubernetes_validate
import pytest
import yaml

from tests.infra.containers import INFRA, KUSTOMIZATIONS, manifests, named
from tests.infra.images import DOCKER
from tests.support.programs import required

OLDEST, NEWEST = "1.25", "1.37"
"""Releases of Kubernetes whose schemas the manifests are held against."""


@pytest.mark.parametrize("file", sorted(DOCKER.glob("*.Dockerfile")), ids=lambda file: file.stem)
def test_a_dockerfile_has_nothing_that_hadolint_minds(file: Path) -> None:
    """Given a Dockerfile, when hadolint reads it, then it finds nothing, not even a matter of style."""
    hadolint = Path(sys.executable).parent / "hadolint"
    found = subprocess.run(
        [str(hadolint) if hadolint.exists() else required("hadolint"), "--no-color", str(file)],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert (found.returncode, found.stdout) == (0, "")


def test_the_compose_file_is_of_the_compose_specification() -> None:
    """Given compose.yaml, when the specification's own schema is held against it, then it fits."""
    command = [sys.executable, "-m", "check_jsonschema", "--builtin-schema", "vendor.compose-spec"]
    done = subprocess.run(
        [*command, str(DOCKER / "compose.yaml")], capture_output=True, text=True, timeout=60, check=False
    )
    assert done.returncode == 0, done.stdout


@pytest.mark.parametrize("version", [OLDEST, NEWEST])
@pytest.mark.parametrize("folder", KUSTOMIZATIONS, ids=lambda folder: folder.name)
def test_the_manifests_are_what_kubernetes_takes(folder: Path, version: str) -> None:
    """Given a kustomization, when kubectl renders it, then each object fits its schema and has no unknown field."""
    rendered = manifests(folder)
    assert {each["kind"] for each in rendered} >= {"Deployment", "ConfigMap", "Secret", "PodDisruptionBudget"}
    for each in rendered:
        kubernetes_validate.validate(each, version, strict=True)


def test_every_folder_that_kustomize_reads_is_rendered_here() -> None:
    """Given the kustomizations of the repository, when they are counted, then none is left out above."""
    assert {file.parent for file in INFRA.rglob("kustomization.yaml")} == set(KUSTOMIZATIONS)


def test_a_mistake_in_a_manifest_is_found() -> None:
    """Given a Deployment with a misspelled field, when it is validated as above, then that is refused."""
    worker = named(KUSTOMIZATIONS[0], "Deployment", "overpaint-worker")
    text = yaml.safe_dump(worker).replace("terminationGracePeriodSeconds", "terminationGraceSeconds")
    with pytest.raises(kubernetes_validate.ValidationError, match="terminationGraceSeconds"):
        kubernetes_validate.validate(yaml.safe_load(text), NEWEST, strict=True)
