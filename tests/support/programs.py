"""Programs that some tests run and that not every machine has."""

from __future__ import annotations

import os
import shutil

import pytest


def required(program: str) -> str:
    """The path of a program that CI must have; skips the test elsewhere."""
    found = shutil.which(program)
    if found is None:
        message = f"{program} is not on PATH"
        if os.environ.get("CI"):
            pytest.fail(f"CI must have it: {message}")
        pytest.skip(message)
    return found
