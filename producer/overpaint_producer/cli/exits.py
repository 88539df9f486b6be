"""Exit codes, and how errors look on the command line."""

from __future__ import annotations

import json
import sys
from typing import IO, Any

import click

from overpaint_common.errors import (
    ForbiddenReference,
    ForbiddenWebhook,
    InvalidJob,
    JobCancelled,
    JobExpired,
    JobFailed,
    NotFinished,
    OverpaintError,
    PartlySubmitted,
    SettingsError,
    SourceError,
    WaitTimeout,
)
from overpaint_producer.cli.terminal import columns, folded
from overpaint_producer.cli.text import printable

JOB = 1
"""The job ended otherwise than asked."""
USAGE = 2
"""The command line, the settings or the job are wrong."""
INFRASTRUCTURE = 3
"""Redis or the storage did not do their part."""
NOT_FINISHED = 4
INTERRUPTED = 130
"""Ctrl-C, as shells count it."""
BROKEN_PIPE = 141
"""Whoever read the output has left, such as `head`; as shells count SIGPIPE."""


class Fault(click.ClickException):
    """`error[code]: message` on stderr, without a traceback."""

    def __init__(self, code: str, message: str, exit_code: int) -> None:
        super().__init__(message.removeprefix(f"{code}: "))
        self.code = code
        self.exit_code = exit_code  # type: ignore[misc]  # Of the class in click's stubs; click reads the instance.

    @classmethod
    def of(cls, error: OverpaintError, exit_code: int | None = None) -> Fault:
        return cls(error.code, str(error), exit_code_of(error) if exit_code is None else exit_code)

    def show(self, file: IO[Any] | None = None) -> None:
        label = click.style(f"error[{printable(self.code)}]:", fg="red", bold=True) + " "
        click.echo(_readable(label, self.message), file=file, err=True, color=self.show_color)


class UsageFault(click.UsageError):
    """A usage error whose message fits the terminal."""

    def __init__(self, error: click.UsageError) -> None:
        super().__init__(error.format_message(), error.ctx)

    def format_message(self) -> str:
        label = "Error: "  # As click writes it.
        return _readable(label, self.message).removeprefix(label)


class JsonFault(Fault):
    """Any error as one JSON object on stderr, for callers that asked for JSON."""

    def __init__(self, error: click.ClickException) -> None:
        code = error.code if isinstance(error, Fault) else "usage"
        super().__init__(code, error.format_message(), error.exit_code)

    def show(self, file: IO[Any] | None = None) -> None:
        fault = {"error": {"code": self.code, "message": self.message}}
        click.echo(json.dumps(fault, ensure_ascii=False), file=file, err=True)


def _readable(label: str, message: str) -> str:
    """The message behind its label; on a terminal each of its lines is wrapped, and hangs below its own beginning."""
    width = columns(sys.stderr)
    shown = []
    for number, line in enumerate(message.splitlines() or [""]):
        text = line.lstrip()
        indent = line[: len(line) - len(text)]
        shown.append(folded(text, width, first=label if number == 0 else indent, margin=f"{indent}  "))
    return "\n".join(shown)


def exit_code_of(error: OverpaintError) -> int:
    """The exit code that says whose turn it is."""
    match error:
        case JobFailed() | JobCancelled() | JobExpired():
            return JOB
        case PartlySubmitted(retryable=False):
            return USAGE
        case InvalidJob() | ForbiddenReference() | ForbiddenWebhook() | SettingsError() | SourceError():
            return USAGE
        case NotFinished() | WaitTimeout():
            return NOT_FINISHED
        case _:
            return INFRASTRUCTURE
