"""Named places in the code where a test can make a process fail. They cost nothing while none is armed.

    hit("claimed")                                  # in the code
    arm("claimed=kill@3;uploading=sleep:5")         # in a test's own worker, never in production

A spec is a list of `name=action`, separated by `;`. The action comes with an argument after `:` where it takes one,
then with the hits that it meets: `@3` the third only, `@3+` all from the third on; without, the first only. Hits are
counted by name and process. `,once:<path>` at the end creates that file and acts only if it was not there, so that the
process that replaces a killed one is spared.

    kill              SIGKILL to this process
    stop              SIGSTOP to this process
    segv              a segmentation fault
    exit:<status>     ends the process at once
    raise             raises InternalError
    sleep:<seconds>
    hang              waits for ever
    gate:<path>       creates `<path>.reached`, and waits until `<path>` exists
"""

from __future__ import annotations

import ctypes
import os
import signal
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from overpaint_common.errors import InternalError, SettingsError

MEANINGS: Mapping[str, str] = {
    "popped": "Redis gave the ticket away; `unacked` does not hold it yet",
    "appended": "`unacked` holds the ticket; the worker has not seen it yet",
    "claimed": "the lease is held; the ledger was not read yet",
    "downloading": "a part of the source has arrived",
    "decoded": "the source is decoded and prepared",
    "denoising": "a denoising step is done; hit at each",
    "encoded": "the pictures are encoded; none is stored",
    "uploading": "a picture is stored; hit after each",
    "uploaded": "all pictures are stored; there is no record",
    "recorded": "the record is put; the live status does not tell yet",
    "published": "a picture is copied to its published name; hit after each, where the job gives names",
    "copied": "the owner's copy of the record is put, and what the record does not name is deleted",
    "handed_over": "the webhook is handed over",
    "unmarked": "the open marker is deleted; the lease is held",
    "released": "the lease is released; the ticket is not acknowledged",
}

NAMES: tuple[str, ...] = tuple(MEANINGS)
"""In the order in which a job meets them."""

GATE_EVERY = 0.02
"""Seconds between two looks at whether a gate is open."""


@dataclass(slots=True)
class _Armed:
    name: str
    act: Callable[[], None]
    first: int
    last: float
    once: Path | None
    hits: int = 0
    lock: threading.Lock = field(default_factory=threading.Lock)

    def hit(self) -> None:
        with self.lock:
            self.hits += 1
            meant = self.first <= self.hits <= self.last
        if meant and (self.once is None or _created(self.once)):
            self.act()


_armed: dict[str, _Armed] = {}


def hit(name: str) -> None:
    """Do what is armed under `name`, if anything is. Raises only what an armed `raise` does."""
    if _armed:
        armed = _armed.get(name)
        if armed is not None:
            armed.hit()


def arm(spec: str) -> None:
    """Arm what `spec` lists instead of what was armed before; an empty one disarms all. Raises SettingsError."""
    chosen = {part.name: part for part in map(_parse, filter(None, map(str.strip, spec.split(";"))))}
    _armed.clear()
    _armed.update(chosen)


def hits(name: str) -> int:
    """How often an armed point was met so far in this process; 0 for one that is not armed."""
    armed = _armed.get(name)
    return armed.hits if armed else 0


def _parse(part: str) -> _Armed:
    rest, _, once = part.partition(",once:")
    name, equals, rest = rest.partition("=")
    rest, at, when = rest.rpartition("@") if "@" in rest else (rest, "", "1")
    if name not in MEANINGS:
        raise SettingsError(f"fail point {name!r} in {part!r}: there is none of that name; choose {', '.join(NAMES)}")
    if not equals:
        raise SettingsError(f"fail point {part!r}: says no action; write {name}=kill")
    number = when.removesuffix("+")
    if not number.isdecimal() or int(number) < 1:
        raise SettingsError(
            f"fail point {part!r}: {at}{when} is no hit; write @1 for the first, @2+ from the second on"
        )
    last = float("inf") if when.endswith("+") else int(number)
    return _Armed(name, _action(rest, part), int(number), last, Path(once) if once else None)


def _action(text: str, part: str) -> Callable[[], None]:
    word, colon, argument = text.partition(":")
    try:
        if not colon and word in _PLAIN:
            return _PLAIN[word]
        if argument and word in _WITH_ARGUMENT:
            return _WITH_ARGUMENT[word](argument)
    except ValueError:
        raise SettingsError(f"fail point {part!r}: {argument!r} is no number") from None
    known = ", ".join((*_PLAIN, *(f"{word}:<...>" for word in _WITH_ARGUMENT)))
    raise SettingsError(f"fail point {part!r}: {text!r} is no action; choose {known}")


def _created(path: Path) -> bool:
    try:
        path.touch(exist_ok=False)
    except FileExistsError:
        return False
    return True


def _kill() -> None:
    _signal(signal.SIGKILL)


def _stop() -> None:
    _signal(signal.SIGSTOP)


def _signal(number: int) -> None:
    os.kill(os.getpid(), number)
    # Another thread may take it, and this one must not go on until it has.
    time.sleep(0.2)


def _segv() -> None:
    ctypes.string_at(0)


def _raise() -> None:
    raise InternalError("a fail point raised this on purpose")


def _hang() -> None:
    threading.Event().wait()


def _sleep(argument: str) -> Callable[[], None]:
    seconds = float(argument)
    return lambda: time.sleep(seconds)


def _exit(argument: str) -> Callable[[], None]:
    status = int(argument)
    return lambda: os._exit(status)


def _gate(argument: str) -> Callable[[], None]:
    path = Path(argument)

    def wait() -> None:
        path.with_name(f"{path.name}.reached").touch()
        while not path.exists():
            time.sleep(GATE_EVERY)

    return wait


_PLAIN: Mapping[str, Callable[[], None]] = {
    "kill": _kill,
    "stop": _stop,
    "segv": _segv,
    "raise": _raise,
    "hang": _hang,
}
_WITH_ARGUMENT: Mapping[str, Callable[[str], Callable[[], None]]] = {"sleep": _sleep, "exit": _exit, "gate": _gate}
