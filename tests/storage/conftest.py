from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path

import pytest

from overpaint_common.references import Reference
from overpaint_common.storage import LocalStore, MemoryStore, ObjectStore, S3Options, S3Store, WeakStore
from tests.support.faulty_http import Exchange, FaultyProxy, requests
from tests.support.s3 import S3Server, moto_server


@dataclass(frozen=True)
class Place:
    """A store, and an empty prefix in it that belongs to one test."""

    store: ObjectStore
    root: Reference
    options: S3Options = field(default_factory=S3Options)
    """How another store reaches the same place, where it is in S3."""

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


@pytest.fixture
def s3_place(s3: S3Store, bucket: Reference) -> Place:
    return Place(s3, bucket, s3.options)


@pytest.fixture
def memory_place() -> Place:
    return Place(MemoryStore(), Reference.parse("s3://bucket/objects/"))


@pytest.fixture(params=["local_place", "s3_place", "memory_place"])
def place(request: pytest.FixtureRequest) -> Place:
    """Each test that takes this runs against every store."""
    found: Place = request.getfixturevalue(request.param)
    return found


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


def without_condition(exchange: Exchange) -> None:
    """A store that knows nothing of `If-None-Match` and passes over it."""
    headers = {name: value for name, value in exchange.request.headers.items() if name != "if-none-match"}
    exchange.request = replace(exchange.request, headers=headers)
    exchange.reply(exchange.forward())


@pytest.fixture
def unconditional(behind_proxy: Place, proxy: FaultyProxy) -> Place:
    """An S3 store that ignores the condition of a conditional put, as some lookalikes do."""
    proxy.on(requests("PUT"), without_condition)
    return behind_proxy


@pytest.fixture
def weak_place(unconditional: Place, options_behind_proxy: S3Options) -> Place:
    """The same store in the weaker mode."""
    return Place(WeakStore(unconditional.store), unconditional.root, options_behind_proxy)
