from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.support.s3 import S3Server, s3_server

LONG = frozenset({"system", "docs", "infra", "test_demo.py", "test_up.py", "test_keeper.py", "test_alone.py"})
"""Folders and files whose tests start programs, and wait for them."""


@pytest.hookimpl(trylast=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """The longest first: processes that share the tests are given whole files, and should end together."""
    items.sort(key=lambda item: LONG.isdisjoint({*item.path.parts, item.path.name}))


@pytest.fixture(scope="session")
def server() -> Iterator[S3Server]:
    """One S3 server for all tests, its credentials in this process's environment."""
    with s3_server() as running, pytest.MonkeyPatch.context() as patch:
        for name, value in running.environment.items():
            patch.setenv(name, value)
        yield running
