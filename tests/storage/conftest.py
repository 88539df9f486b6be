from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import pytest

from overpaint_common.references import Reference
from overpaint_common.storage import LocalStore, ObjectStore, S3Options, S3Store
from tests.support.faulty_http import FaultyProxy
from tests.support.s3 import S3Server, moto_server


@dataclass(frozen=True)
class Place:
    """A store, and an empty prefix in it that belongs to one test."""

    store: ObjectStore
    root: Reference

    def at(self, *names: str) -> Reference:
        return self.root.join(*names)


@pytest.fixture(scope="session")
def s3(server: S3Server) -> S3Store:
    return S3Store(server.options())


@pytest.fixture
def bucket(server: S3Server) -> Iterator[Reference]:
    with server.bucket() as fresh:
        yield fresh


@pytest.fixture
def local_place(tmp_path: Path) -> Place:
    return Place(LocalStore(), Reference.from_path(tmp_path / "objects"))


@pytest.fixture(params=["local", "s3"])
def place(request: pytest.FixtureRequest) -> Place:
    """Each test that takes this runs against both stores."""
    if request.param == "local":
        local: Place = request.getfixturevalue("local_place")
        return local
    return Place(request.getfixturevalue("s3"), request.getfixturevalue("bucket"))


@pytest.fixture(scope="session")
def moto(server: S3Server) -> Iterator[S3Server]:
    """A moto server even where the other tests use a store that cannot be proxied."""
    if server.environment:
        yield server
        return
    with moto_server() as running:
        yield running


@pytest.fixture(scope="session")
def running_proxy(moto: S3Server) -> Iterator[FaultyProxy]:
    with FaultyProxy(moto.endpoint_url) as running:
        yield running


@pytest.fixture
def proxy(moto: S3Server, running_proxy: FaultyProxy, monkeypatch: pytest.MonkeyPatch) -> Iterator[FaultyProxy]:
    for name, value in moto.environment.items():
        monkeypatch.setenv(name, value)
    yield running_proxy
    running_proxy.clear()


@pytest.fixture(scope="session")
def options_behind_proxy(running_proxy: FaultyProxy) -> S3Options:
    """Limits short enough to wait for: two attempts of half a second."""
    return S3Server(running_proxy.url).options(max_attempts=2, connect_timeout=0.5, read_timeout=0.5)


@pytest.fixture(scope="session")
def store_behind_proxy(options_behind_proxy: S3Options) -> S3Store:
    return S3Store(options_behind_proxy)


@pytest.fixture(scope="session")
def impatient_store(options_behind_proxy: S3Options) -> S3Store:
    return S3Store(replace(options_behind_proxy, max_attempts=1))


@pytest.fixture
def behind_proxy(moto: S3Server, proxy: FaultyProxy, store_behind_proxy: S3Store) -> Iterator[Place]:
    """An S3 store whose requests pass `proxy`, in a bucket of its own."""
    assert store_behind_proxy.options.endpoint_url == proxy.url
    with moto.bucket() as fresh:
        yield Place(store_behind_proxy, fresh)


@pytest.fixture
def impatient_place(behind_proxy: Place, impatient_store: S3Store) -> Place:
    """The same, with a single attempt."""
    return Place(impatient_store, behind_proxy.root)
