"""The Lua that Redis runs for us, so that each step of a job's life in it happens whole or not at all."""

from __future__ import annotations

from functools import cache
from importlib.resources import files
from typing import Any

from redis import Redis


def script(redis: Redis, name: str) -> Any:
    """The script `lua/<name>.lua`, to be called with `keys`, `args` and perhaps `client`, a pipeline.

    Redis is sent its digest, and its text only where it does not know it yet.
    """
    return redis.register_script(_text(name))


@cache
def _text(name: str) -> str:
    folder = files("overpaint_common") / "lua"
    return "\n".join((folder / f"{part}.lua").read_text(encoding="utf-8") for part in ("prelude", name))
