"""What a stream can show: how many columns, and whether colours. In a pipe lines are never wrapped nor cut."""

from __future__ import annotations

import os
import sys
import textwrap
from typing import TextIO

import click

from overpaint_producer.cli.text import printable

USUAL = 80
"""Columns of a terminal that does not tell."""

NARROWEST = 40
"""Columns below which wrapping makes nothing better to read."""


def columns(stream: TextIO) -> int | None:
    """The width of the terminal that a stream goes to, unless COLUMNS says another; None for a pipe or a file."""
    if not stream.isatty():
        return None
    told = os.environ.get("COLUMNS", "")
    if told.isdigit() and int(told):
        return max(int(told), NARROWEST)
    try:
        return max(os.get_terminal_size(stream.fileno()).columns or USUAL, NARROWEST)
    except OSError:
        return USUAL


def colourless() -> bool:
    """Whether the user wants none (https://no-color.org), or has a terminal that knows none."""
    return bool(os.environ.get("NO_COLOR")) or os.environ.get("TERM") == "dumb"


def folded(text: str, width: int | None, *, first: str = "", margin: str = "") -> str:
    """`first` and `text`, whose further lines begin with `margin`; broken between words alone.

    A word that is longer than a line, such as a path, is left whole, so that it can be copied. With a width of None
    nothing is wrapped. `first` may hold colours; of `text` nothing steers the terminal.
    """
    text = printable(text)
    if width is None:
        return first + text
    taken = len(click.unstyle(first))
    lines = textwrap.wrap(
        text,
        width,
        initial_indent=" " * taken,
        subsequent_indent=margin,
        break_long_words=False,
        break_on_hyphens=False,
    )
    return "\n".join([first + lines[0][taken:], *lines[1:]]) if lines else first.rstrip()


def say(text: str, *, first: str = "", margin: str = "  ") -> None:
    """Print `folded` text to stdout."""
    click.echo(folded(text, columns(sys.stdout), first=first, margin=margin))


def tell(text: str) -> None:
    """Print a note to stderr, where it does not mix with results."""
    click.echo(folded(text, columns(sys.stderr), margin="  "), err=True)


def shortened(text: str, room: int | None) -> str:
    """At most `room` characters, the last three of them dots where some were cut; all of them where it is None."""
    return text if room is None or len(text) <= room else f"{text[: max(room - 3, 1)]}..."
