"""A group of commands that imports only the one it runs."""

from __future__ import annotations

import errno
import os
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from importlib import import_module
from importlib.metadata import EntryPoint, entry_points
from typing import Any

import click
from click.shell_completion import CompletionItem

from overpaint_common.errors import OverpaintError, SettingsError
from overpaint_producer.cli.exits import BROKEN_PIPE, INFRASTRUCTURE, INTERRUPTED, Fault, JsonFault, UsageFault
from overpaint_producer.cli.terminal import colourless

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

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
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
            if ctx.resilient_parsing:  # A shell that completes a line has no use for errors.
                return None
            raise missing_extra(cmd_name, error) from None

    def shell_complete(self, ctx: click.Context, incomplete: str) -> list[CompletionItem]:
        """Commands by what the table says of them, so that none has to be imported, and the options of the group."""
        summaries = {name: point.value for name, point in _added().items()}
        summaries |= {command.name: command.summary for command in self._known.values()}
        found = [CompletionItem(name, help=text) for name, text in summaries.items() if name.startswith(incomplete)]
        return [*found, *click.Command.shell_complete(self, ctx, incomplete)]

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
        if colourless():
            ctx.color = False
        try:
            return self._invoke(ctx)
        except click.ClickException as error:
            if ctx.meta[AS_JSON]:
                raise JsonFault(error) from None
            if isinstance(error, click.UsageError):
                raise UsageFault(error) from None
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
                _mute()
                raise click.exceptions.Exit(BROKEN_PIPE) from None
            raise Fault("os", str(error), INFRASTRUCTURE) from None


def missing_extra(command: str, error: ModuleNotFoundError) -> SettingsError:
    """What to say when a command needs a package that is not installed."""
    return SettingsError(
        f"`overpaint {command}` needs {error.name}, which is not installed; run: pip install 'overpaint[worker]'"
    )


def _mute() -> None:
    """Let what is still to be written go nowhere: at its end Python writes out what its streams hold."""
    nowhere = os.open(os.devnull, os.O_WRONLY)
    for stream in (sys.stdout, sys.stderr):
        try:
            stream.flush()
        except BrokenPipeError:
            os.dup2(nowhere, stream.fileno())
    os.close(nowhere)


def _added() -> dict[str, EntryPoint]:
    return {point.name: point for point in entry_points(group=ENTRY_POINTS)}


def _checked(name: str, value: object) -> click.Command:
    if not isinstance(value, click.Command):
        raise SettingsError(f"the entry point of {name!r} is a {type(value).__name__}, not a click command; mend it")
    return value
