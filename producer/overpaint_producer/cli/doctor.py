"""`overpaint doctor`: is everything there that jobs need."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING

import click

from overpaint_producer.cli.display import emit
from overpaint_producer.cli.exits import INFRASTRUCTURE
from overpaint_producer.cli.lists import Words
from overpaint_producer.cli.options import as_json
from overpaint_producer.cli.terminal import say

if TYPE_CHECKING:
    from overpaint_common.findings import Finding

SUBJECTS = (
    "versions",
    "settings",
    "redis",
    "storage",
    "clock",
    "fleet",
    "disk",
    "worker",
    "devices",
    "models",
)

_COLOURS = {"ok": "green", "warn": "yellow", "fail": "red"}
_MARGIN = " " * 25
"""Below the state and the check's name."""


@click.command()
@click.option("--only", type=Words(SUBJECTS), metavar="SUBJECT,...", help="Look only at these, such as redis,storage.")
@as_json
def doctor(only: tuple[str, ...] | None, as_json: bool) -> None:
    """Look at everything that jobs need, and say of each fault what to do about it.

    \b
    versions  what is installed, and whether it fits together
    settings  the environment and the settings file
    redis     eviction, persistence, room, rights
    storage   the ledger, conditional puts, and each place that jobs may
              read or write, by doing it
    clock     this machine's beside Redis's and S3's
    fleet     which workers are alive, and whether they agree
    disk      room, and open files
    worker    whether a worker could start here
    devices   CUDA devices, their driver, and a torch that can use them
    models    the registry's models, and whether their files are whole

    What it writes it deletes again, or says where it may not: small objects below the ledger, under doctor/ and probe/,
    and in each place that jobs may write, named overpaint-doctor-*; keys in Redis that last a minute at most. Exits 3
    if anything fails; warnings are no failure. With --json every finding is one line: check, state, message, remedy.

    \b
    Examples:
      overpaint doctor
      overpaint doctor --only redis,storage
      overpaint doctor --json | jq 'select(.state != "ok")'
    """
    from overpaint_producer.cli.checks import examine

    states: Counter[str] = Counter()
    for finding in examine(only or ()):
        states[finding.state] += 1
        if as_json:
            emit(finding.model_dump(mode="json"))
        else:
            _show(finding)
    if not as_json:
        click.echo(_summary(states))
    if states["fail"]:
        raise click.exceptions.Exit(INFRASTRUCTURE)


def _show(finding: Finding) -> None:
    state = click.style(f"{finding.state:<4}", fg=_COLOURS[finding.state], bold=finding.state != "ok" or None)
    say(finding.message, first=f"{state}  {finding.check:<17}  ", margin=_MARGIN)
    if finding.remedy:
        say(finding.remedy, first=f"{_MARGIN}-> ", margin=f"{_MARGIN}   ")


def _summary(states: Counter[str]) -> str:
    if not states["warn"] and not states["fail"]:
        return f"all is well, by {states['ok']} findings"
    parts = [(states["fail"], "to mend"), (states["warn"], "to think about"), (states["ok"], "well")]
    return ", ".join(f"{count} {what}" for count, what in parts if count)
