"""Known vulnerabilities of everything installed here, asked by pip-audit of a public database.

    python -m tools.audit               exit 1 for a vulnerability that IGNORED does not name
    python -m tools.audit --required    exit 1 as well where no database can be asked
    python -m tools.audit --osv-url https://osv.example.org/v1/query      ask this OSV service, such as a mirror

An index that mirrors packages but not their advisories answers "not found" for every one of them, and pip-audit then
reports that nothing is known. So each database is first asked about CANARY, an old release full of holes, and believed
only where it knows them. Where none does, nothing was checked, and that is said loudly.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
from importlib.metadata import distributions
from pathlib import Path
from typing import Any

from packaging.utils import canonicalize_name
from packaging.version import Version

PROJECT = "overpaint"
CANARY = "jinja2==2.11.1"
SERVICES = ("pypi", "osv")
"""Public databases by pip-audit's names for them; the first that answers is asked."""

IGNORED: dict[str, str] = {}
"""Ids of vulnerabilities that do no harm here, each with the reason."""

PATIENCE = 10
"""Seconds to wait for one answer."""


def installed() -> list[str]:
    """Pinned requirements for all that is installed here but the project; a local version such as `+cpu` is cut."""
    found = {canonicalize_name(one.name): Version(one.version).public for one in distributions()}
    return sorted(f"{name}=={version}" for name, version in found.items() if name != PROJECT)


def ask(requirements: list[str], service: str, options: tuple[str, ...]) -> list[dict[str, Any]] | None:
    """What pip-audit says of each requirement; None where the service does not answer."""
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder, "requirements.txt")
        file.write_text("\n".join(requirements) + "\n")
        command = [sys.executable, "-m", "pip_audit", "--requirement", str(file), "--no-deps", "--disable-pip"]
        command += ["--vulnerability-service", service, "--timeout", str(PATIENCE), "--format", "json", *options]
        done = subprocess.run([*command, "--progress-spinner", "off"], capture_output=True, text=True, check=False)
    try:
        answers: list[dict[str, Any]] = json.loads(done.stdout)["dependencies"]
    except ValueError:
        return None
    return answers


def known(answers: list[dict[str, Any]]) -> list[str]:
    """One line for each vulnerability that is not ignored."""
    return [
        f"{answer['name']} {answer['version']}: {hole['id']}, mended in {' '.join(hole['fix_versions']) or 'nothing'}"
        for answer in answers
        for hole in answer.get("vulns", ())
        if not IGNORED.keys() & {hole["id"], *hole.get("aliases", ())}
    ]


def main(arguments: list[str]) -> int:
    parser = argparse.ArgumentParser(prog="python -m tools.audit")
    parser.add_argument("--required", action="store_true", help="fail where no database can be asked")
    parser.add_argument("--osv-url", help="an OSV service to ask instead of the public ones")
    given = parser.parse_args(arguments)
    services, options = (("osv",), ("--osv-url", given.osv_url)) if given.osv_url else (SERVICES, ())
    for service in services:
        if not known(ask([CANARY], service, options) or []):
            continue
        answers = ask(installed(), service, options)
        if answers is not None:
            return report(answers, service)
    print(
        "audit: NOTHING WAS CHECKED for known vulnerabilities: no database answers from here (asked: "
        f"{', '.join(services)}). Run `make audit` where one does, or name a mirror: "
        'make audit AUDIT="--osv-url https://..."',
        file=sys.stderr,
    )
    return 1 if given.required else 0


def report(answers: list[dict[str, Any]], service: str) -> int:
    """Print what was found; the exit status."""
    skipped = [answer["name"] for answer in answers if "vulns" not in answer]
    for line in (holes := known(answers)):
        print(
            f"audit: {line}; raise it in constraints.txt, or explain it in IGNORED in tools/audit.py", file=sys.stderr
        )
    if skipped:
        print(f"audit: {service} does not know {', '.join(skipped)}", file=sys.stderr)
    if not holes:
        print(f"audit: {len(answers) - len(skipped)} packages, no known vulnerability ({service})")
    return 1 if holes else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
