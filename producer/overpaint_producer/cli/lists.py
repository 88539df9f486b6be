"""Values of options that are more than one word: `0.6,0.4,0.2`, `NAME:SCALE`, `NAME=VALUE`."""

from __future__ import annotations

from collections.abc import Callable
from typing import Generic, TypeVar

import click
from click.shell_completion import CompletionItem

Number = TypeVar("Number", int, float)


class Numbers(click.ParamType[tuple[Number, ...]], Generic[Number]):
    """Numbers with commas between them, such as `0.6,0.4,0.2`."""

    name = "list"

    def __init__(self, kind: Callable[[str], Number], what: str) -> None:
        self._kind: Callable[[str], Number] = kind
        self._what = what

    def convert(self, value: object, param: click.Parameter | None, ctx: click.Context | None) -> tuple[Number, ...]:
        if isinstance(value, tuple):
            return value
        try:
            return tuple(self._kind(part) for part in str(value).split(","))
        except ValueError:
            self.fail(f"{value!r} is no list of {self._what}; write them with commas between, as in 1,2,3", param, ctx)


class Words(click.ParamType[tuple[str, ...]]):
    """Some of several words, with commas between them, such as `redis,storage`."""

    name = "words"

    def __init__(self, known: tuple[str, ...]) -> None:
        self._known = known

    def convert(self, value: object, param: click.Parameter | None, ctx: click.Context | None) -> tuple[str, ...]:
        if isinstance(value, tuple):
            return value
        words = tuple(str(value).split(","))
        for word in words:
            if word not in self._known:
                self.fail(f"{word!r} is none of {', '.join(self._known)}", param, ctx)
        return words

    def shell_complete(self, ctx: click.Context, param: click.Parameter, incomplete: str) -> list[CompletionItem]:  # noqa: ARG002
        before, comma, begun = incomplete.rpartition(",")
        given = before.split(",")
        left = [word for word in self._known if word.startswith(begun) and word not in given]
        return [CompletionItem(f"{before}{comma}{word}") for word in left]


FLOATS = Numbers(float, "numbers")
INTEGERS = Numbers(int, "whole numbers")


def labels(context: click.Context, parameter: click.Parameter, values: tuple[str, ...]) -> dict[str, str]:
    """`NAME=VALUE`, repeated."""
    pairs = [value.partition("=") for value in values]
    wrong = next((name for name, equals, _ in pairs if not equals), None)
    if wrong is not None:
        raise click.BadParameter(f"{wrong!r} has no value; write NAME=VALUE", context, parameter)
    return {name: value for name, _, value in pairs}


def scaled(
    context: click.Context, parameter: click.Parameter, values: tuple[str, ...]
) -> tuple[dict[str, str | float], ...]:
    """`NAME[:SCALE]`, repeated, as fields; `@PICTURE` behind it gives a picture."""
    found = []
    for value in values:
        named, _, picture = value.partition("@")
        name, colon, scale = named.partition(":")
        fields: dict[str, str | float] = {"name": name}
        if colon:
            try:
                fields["scale"] = float(scale)
            except ValueError:
                raise click.BadParameter(f"{scale!r} is no scale; write NAME:0.8", context, parameter) from None
        if picture:
            fields["image"] = picture
        found.append(fields)
    return tuple(found)
