"""Values of options that are lengths of time: `90`, `90s`, `30m`, `1h`, `7d`."""

from __future__ import annotations

import re

import click

_SECONDS = {"": 1, "s": 1, "m": 60, "h": 3600, "d": 86400}
_WRITTEN = re.compile(r"(\d{1,9})([smhd]?)")


class Duration(click.ParamType[int]):
    """A whole number of seconds, minutes, hours or days, as seconds, from 1 up to a limit."""

    name = "duration"

    def __init__(self, longest: int) -> None:
        self._longest = longest

    def convert(self, value: object, param: click.Parameter | None, ctx: click.Context | None) -> int:
        found = _WRITTEN.fullmatch(str(value))
        if found is None:
            self.fail(f"{value!r} is no length of time; write 90s, 30m, 1h or 7d", param, ctx)
        seconds = int(found[1]) * _SECONDS[found[2]]
        if not 1 <= seconds <= self._longest:
            self.fail(
                f"{value!r} is not between 1s and {self._longest // 86400}d; choose a time in between", param, ctx
            )
        return seconds


def spelled(seconds: int) -> str:
    """The same the other way, in whole ones of the largest unit there is one of: `95` is `1m`."""
    size, unit = next(
        (size, unit) for unit, size in reversed(_SECONDS.items()) if (unit and seconds >= size) or size == 1
    )
    return f"{seconds // size}{unit or 's'}"
