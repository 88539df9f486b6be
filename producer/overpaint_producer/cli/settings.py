"""`overpaint settings`: what counts on this machine, and where each value comes from."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import click

from overpaint_producer.cli.display import emit
from overpaint_producer.cli.options import as_json

if TYPE_CHECKING:
    from overpaint_common.configuration import Reading
    from overpaint_common.settings import Settings

PROGRAM_NAMES = ("producer", "keeper", "worker")
"""As in the entry points of `overpaint.settings`, which help need not load."""


@click.command()
@click.argument("program", required=False, type=click.Choice(PROGRAM_NAMES), metavar="[PROGRAM]")
@as_json
def settings(program: str | None, as_json: bool) -> None:
    """Print every setting, its value and where it comes from, and check them all as a program does when it starts.

    PROGRAM is producer, keeper or worker; without it a worker if anything is set that producers do not read. Values
    come from OVERPAINT_... variables, then from the TOML file that OVERPAINT_CONFIG names, then from the defaults.
    Passwords and secrets are shown as ***. Exits 2 with all that is wrong.

    With --json each setting is one line: setting, variable, value, origin, and file where it comes from one.

    \b
    Examples:
      overpaint settings
      overpaint settings worker
      overpaint settings --json | jq 'select(.origin != "default")'
    """
    from overpaint_common.configuration import Reading, unknown_variables

    kind = _settings_of(program)
    loaded, reading = kind.load(), Reading.of(kind)
    for message in unknown_variables():
        _warn(message, as_json)
    if as_json:
        _print_lines(loaded, reading)
    else:
        _print_table(loaded, reading)


def _settings_of(program: str | None) -> type[Settings]:
    from overpaint_common.configuration import Reading, programs
    from overpaint_common.settings import Settings

    kinds = programs()
    if program is None:
        everything = kinds["worker"]
        reading = Reading.of(everything)
        others = everything.model_fields.keys() - Settings.model_fields
        program = "worker" if any(reading.origin(name) != "default" for name in others) else "producer"
    return kinds[program]


def _print_lines(loaded: Settings, reading: Reading) -> None:
    from overpaint_common.configuration import variable

    for name, value in loaded.shown().items():
        origin = reading.origin(name)
        line = {"setting": name, "variable": variable(name), "value": value, "origin": origin}
        emit(line | ({"file": str(reading.file.file)} if origin == "file" else {}))


def _print_table(loaded: Settings, reading: Reading) -> None:
    shown = loaded.shown()
    margin = max(map(len, shown)) + 2
    for name, value in shown.items():
        origin = reading.origin(name)
        first, *more = _words(value)
        click.echo(click.style(f"{name:<{margin}}{origin:<13}{first}", bold=origin != "default"))
        for line in more:
            click.echo(click.style(f"{'':<{margin + 13}}{line}", bold=origin != "default"))
    if reading.file.file is not None:
        click.echo(f"\nfile: {reading.file.file}")


def _words(value: Any) -> list[str]:
    match value:
        case None:
            return ["none"]
        case []:
            return ["nothing"]
        case list():
            return [str(item) for item in value]
        case bool():
            return [str(value).lower()]
        case float():
            return [f"{value:g}"]
        case _:
            return [str(value)]


def _warn(message: str, as_json: bool) -> None:
    text = json.dumps({"warning": {"code": "settings", "message": message}}) if as_json else f"warning: {message}"
    click.echo(text, err=True)
