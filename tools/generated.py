"""Pages, or parts of them, that are made from the code: written again, or compared with what is committed."""

from __future__ import annotations

import sys
from pathlib import Path

ROOT = Path(__file__).parents[1]


def settle(page: Path, made: str, arguments: list[str], *, command: str) -> int:
    """Write `made` where `--write` is among the arguments, else compare it with the page; the exit status.

    `command` is what to run where they differ.
    """
    name = page.relative_to(ROOT)
    if "--write" in arguments:
        page.write_text(made, encoding="utf-8")
    elif page.read_text(encoding="utf-8") != made:
        print(f"{name} is not what the code says; run: {command} --write", file=sys.stderr)
        return 1
    print(f"{name}: what the code says")
    return 0
