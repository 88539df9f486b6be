"""A group of commands that imports only the one it runs."""

from __future__ import annotations

import errno
from collections.abc import Mapping
from dataclasses import dataclass
from importlib import import_module
from importlib.metadata import EntryPoint, entry_points
from typing import Any

import click

from overpaint_common.errors import OverpaintError, SettingsError
from overpaint_producer.cli.exits import INFRASTRUCTURE, INTERRUPTED, Fault, JsonFault

ENTRY_POINTS = "overpaint.commands"
"""Group of entry points under which other packages add commands; the worker extra does."""


AS_JSON = "overpaint_producer.as_json"


@dataclass(frozen=True, slots=True)
class Command:
    """What help says of a command before it is imported."""

    name: str
    target: str | None
    """`module:attribute`, or None where an entry point brings the command."""
    summary: str


class LazyGroup(click.Group):
    """Commands by section. Turns errors into one line on stderr, of JSON after --json, and an exit code."""

    def __init__(self, *args: Any, sections: Mapping[str, tuple[Command, ...]], **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._sections = sections
        self._known = {command.name: command for section in sections.values() for command in section}

    def list_commands(self, ctx: click.Context) -> list[str]:  # noqa: ARG002 - click's signature
        return [*self._known, *sorted(set(_added()) - set(self._known))]

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:  # noqa: ARG002
        known = self._known.get(cmd_name)
        if known is not None and known.target is not None:
            module, _, attribute = known.target.partition(":")
            return _checked(cmd_name, getattr(import_module(module), attribute))
        added = _added().get(cmd_name)
        if added is None:
            return None
        try:
            return _checked(cmd_name, added.load())
        except ModuleNotFoundError as error:
            raise missing_extra(cmd_name, error) from None

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        for title, commands in self._sections.items():
            with formatter.section(title):
                formatter.write_dl([(command.name, command.summary) for command in commands])
        others = [name for name in self.list_commands(ctx) if name not in self._known]
        if others:
            with formatter.section("Added by other packages"):
                formatter.write_dl([(name, _added()[name].value) for name in others])

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        # Whoever asked for JSON gets it also where the command's own arguments cannot be parsed.
        ctx.meta[AS_JSON] = "--json" in args
        return super().parse_args(ctx, args)

    def invoke(self, ctx: click.Context) -> Any:
        try:
            return self._invoke(ctx)
        except click.ClickException as error:
            if ctx.meta[AS_JSON]:
                raise JsonFault(error) from None
            raise

    def _invoke(self, ctx: click.Context) -> Any:
        try:
            return super().invoke(ctx)
        except OverpaintError as error:
            raise Fault.of(error) from None
        except ModuleNotFoundError as error:
            command = ctx.invoked_subcommand
            if command is None or command not in _added():
                raise
            raise Fault.of(missing_extra(command, error)) from None
        except KeyboardInterrupt:
            raise click.exceptions.Exit(INTERRUPTED) from None
        except OSError as error:
            if error.errno == errno.EPIPE:
                raise
            raise Fault("os", str(error), INFRASTRUCTURE) from None


def missing_extra(command: str, error: ModuleNotFoundError) -> SettingsError:
    """What to say when a command needs a package that is not installed."""
    return SettingsError(
        f"`overpaint {command}` needs {error.name}, which is not installed; run: pip install 'overpaint[worker]'"
    )


def _added() -> dict[str, EntryPoint]:
    return {point.name: point for point in entry_points(group=ENTRY_POINTS)}


def _checked(name: str, value: object) -> click.Command:
    if not isinstance(value, click.Command):
        raise SettingsError(f"the entry point of {name!r} is a {type(value).__name__}, not a click command; mend it")
    return value
