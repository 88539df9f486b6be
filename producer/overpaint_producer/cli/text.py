"""Text that comes from anywhere, made fit for a terminal."""

from __future__ import annotations

import json


def one_line(text: str) -> str:
    """All of it on one line, printable."""
    return printable(" ".join(text.split()))


def printable(text: str) -> str:
    """Without what could steer a terminal; lines stay."""
    return "".join(char if char == "\n" or char.isprintable() else json.dumps(char)[1:-1] for char in text)
