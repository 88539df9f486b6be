from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from overpaint_producer import Producer
from tests.support.s3 import S3Server
from tests.support.stack import Stack, stack


@pytest.fixture(scope="module")
def overpaint(server: S3Server, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    """A stack without workers, for one module."""
    with stack(server, tmp_path_factory.mktemp("stack")) as running:
        yield running


@pytest.fixture(scope="module")
def serving(overpaint: Stack) -> Iterator[Stack]:
    """The same stack with one worker on the embedded model."""
    with overpaint.worker():
        yield overpaint


@pytest.fixture
def idle(server: S3Server, tmp_path: Path) -> Iterator[Stack]:
    """A stack of its own that no worker ever joined."""
    with stack(server, tmp_path) as running:
        yield running


@pytest.fixture
def producer(overpaint: Stack) -> Iterator[Producer]:
    with overpaint.producer() as producer:
        yield producer
        overpaint.proxy.clear()
