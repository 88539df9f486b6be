"""What `overpaint doctor` reports, whichever package looked."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Literal

from overpaint_common.errors import OverpaintError
from overpaint_common.frozen import Frozen

State = Literal["ok", "warn", "fail"]


class Finding(Frozen):
    """One line of the report."""

    check: str
    state: State
    message: str
    """What was seen."""
    remedy: str = ""
    """What to do about it."""


Check = Callable[[], Iterable[Finding]]
"""Looks at one subject and raises nothing that it can foresee."""


def ok(check: str, message: str) -> Finding:
    """All is well, and how it is."""
    return Finding(check=check, state="ok", message=message)


def warn(check: str, message: str, remedy: str) -> Finding:
    """Works, and will cost somebody something."""
    return Finding(check=check, state="warn", message=message, remedy=remedy)


def fail(check: str, message: str, remedy: str) -> Finding:
    """Jobs will wait, fail or be lost sight of."""
    return Finding(check=check, state="fail", message=message, remedy=remedy)


def from_error(check: str, error: OverpaintError | str, state: State = "fail") -> Finding:
    """What an error says: every message of the tree ends, after its last semicolon, in what to do."""
    message, semicolon, remedy = str(error).rpartition("; ")
    if not semicolon:
        message, remedy = remedy, ""
    return Finding(check=check, state=state, message=message, remedy=remedy)


def from_errors(check: str, error: OverpaintError) -> list[Finding]:
    """One finding for each line of an error that tells several at once, under a headline."""
    headline, *lines = str(error).splitlines()
    return [from_error(check, line.strip()) for line in lines or [headline]]


def amount(size: float) -> str:
    """Bytes for people: `512 bytes`, `3.4 GiB`."""
    for unit, name in ((2**40, "TiB"), (2**30, "GiB"), (2**20, "MiB"), (2**10, "KiB")):
        if size >= unit:
            return f"{size / unit:.3g} {name}"
    return f"{size:.0f} bytes"
