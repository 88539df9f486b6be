"""Tests that leave the worker as they found it share one: each start of one takes seconds."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.support.s3 import S3Server
from tests.support.stack import Stack, stack


@pytest.fixture(scope="session")
def overpaint(server: S3Server, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    """A stack without workers, for all modules of this folder."""
    with stack(server, tmp_path_factory.mktemp("stack")) as running:
        yield running


@pytest.fixture(scope="session")
def serving(overpaint: Stack) -> Iterator[Stack]:
    """The same stack with one worker on the embedded models."""
    with overpaint.worker():
        yield overpaint
