"""As much of Redis's protocol as a proxy needs: where a value ends, and which command it is."""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import Self

ARGUMENTS_KEPT = 6
CHARACTERS_KEPT = 200

_BULK = b"$!="
_LISTS = {ord("*"): 1, ord("~"): 1, ord(">"): 1, ord("%"): 2, ord("|"): 2}
"""Values for each counted item."""


class Frames:
    """Cuts a stream of RESP 2 or 3 into its outermost values."""

    def __init__(self) -> None:
        self._buffer = bytearray()

    def feed(self, data: bytes) -> list[bytes]:
        """The values that `data` completes, each with all its bytes."""
        self._buffer += data
        frames, start = [], 0
        while (end := _end(self._buffer, start)) is not None:
            frames.append(bytes(self._buffer[start:end]))
            start = end
        del self._buffer[:start]
        return frames


def _end(buffer: bytearray, start: int) -> int | None:
    """Where the value at `start` ends; None while it is not whole."""
    wanted, position = 1, start
    while wanted:
        line_end = buffer.find(b"\r\n", position)
        if line_end < 0:
            return None
        kind, count = buffer[position], bytes(buffer[position + 1 : line_end])
        position = line_end + 2
        wanted -= 1
        if kind in _LISTS:
            # An attribute (|) stands before the value that it is about.
            wanted += max(0, int(count)) * _LISTS[kind] + (kind == ord("|"))
        elif kind in _BULK and int(count) >= 0:
            position += int(count) + 2
            if position > len(buffer):
                return None
    return position


@dataclass(frozen=True, slots=True)
class Command:
    """One command as a client sent it."""

    name: str
    """In upper case."""
    arguments: tuple[str, ...]
    """The first ARGUMENTS_KEPT, each cut at CHARACTERS_KEPT."""
    connection: int
    """Counted from 1."""
    at: float
    """Monotonic time in seconds."""

    @classmethod
    def parse(cls, frame: bytes, connection: int) -> Self:
        words = _words(frame) or [""]
        return cls(words[0].upper(), tuple(words[1:]), connection, time.monotonic())

    @property
    def key(self) -> str:
        """The first key; of a script the first of its keys. Empty where there is none."""
        where = 2 if self.name in ("EVAL", "EVALSHA", "FCALL") else 0
        return self.arguments[where] if len(self.arguments) > where else ""


def _words(frame: bytes) -> list[str]:
    if not frame.startswith(b"*"):
        return frame.decode(errors="replace").split()[: ARGUMENTS_KEPT + 1]
    words: list[str] = []
    position = frame.index(b"\r\n") + 2
    while position < len(frame) and len(words) <= ARGUMENTS_KEPT:
        line_end = frame.index(b"\r\n", position)
        length, begin = int(frame[position + 1 : line_end]), line_end + 2
        words.append(frame[begin : begin + min(length, CHARACTERS_KEPT)].decode(errors="replace"))
        position = begin + length + 2
    return words
