"""Help of a command with many options, under headings."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

import click

Decorated = TypeVar("Decorated", bound=Callable[..., Any])


class Option(click.Option):
    """An option that is listed under a heading of its own."""

    def __init__(self, *args: Any, heading: str = "Others", **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.heading = heading


class Sectioned(click.Command):
    """A command whose help lists its options by their headings, in the order in which these first come."""

    def format_options(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        sections: dict[str, list[tuple[str, str]]] = {}
        for parameter in self.get_params(ctx):
            record = parameter.get_help_record(ctx)
            if record is not None and isinstance(parameter, click.Option):
                sections.setdefault(getattr(parameter, "heading", "Others"), []).append(record)
        for heading, records in sections.items():
            with formatter.section(heading):
                formatter.write_dl(records)


def options(heading: str, *decorators: Callable[[Decorated], Decorated]) -> Callable[[Decorated], Decorated]:
    """One decorator that adds all of these, made by `option`, under one heading."""

    def add(function: Decorated) -> Decorated:
        for decorate in reversed(decorators):
            function = decorate(function)
        for parameter in getattr(function, "__click_params__", ())[-len(decorators) :]:
            parameter.heading = heading
        return function

    return add


def option(*declarations: str, **attributes: Any) -> Callable[[Decorated], Decorated]:
    """As `click.option`, for `options`."""
    return click.option(*declarations, cls=Option, **attributes)
