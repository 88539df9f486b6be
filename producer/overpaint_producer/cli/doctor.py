"""`overpaint doctor`: is everything there that jobs need."""

from __future__ import annotations

import click

from overpaint_producer.cli.checks import Finding, examine
from overpaint_producer.cli.display import emit
from overpaint_producer.cli.exits import INFRASTRUCTURE
from overpaint_producer.cli.options import as_json

_COLOURS = {"ok": "green", "warn": "yellow", "fail": "red"}


@click.command()
@as_json
def doctor(as_json: bool) -> None:
    """Check settings, Redis, storage and the workers; each finding says what to do about it.

    Writes, reads and deletes two small objects below the ledger, under doctor/ and probe/. Exits 3 if anything fails;
    warnings are no failure. With --json every finding is one line.

    \b
    Examples:
      overpaint doctor
      overpaint doctor --json | jq 'select(.state != "ok")'
    """
    failed = False
    for finding in examine():
        failed = failed or finding.state == "fail"
        if as_json:
            emit(finding.model_dump(mode="json"))
        else:
            _show(finding)
    if failed:
        raise click.exceptions.Exit(INFRASTRUCTURE)


def _show(finding: Finding) -> None:
    state = click.style(f"{finding.state:<4}", fg=_COLOURS[finding.state], bold=finding.state != "ok")
    click.echo(f"{state}  {finding.check:<17}  {finding.message}")
    if finding.remedy:
        click.echo(f"{'':<25}-> {finding.remedy}")
