from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from overpaint_common.references import Reference
from overpaint_common.storage import ObjectStore, open_store
from overpaint_producer.local.redis import EmbeddedRedis
from tests.producer.backends import Backend, for_real, in_memory
from tests.producer.played import Scene, scene_in
from tests.producer.shop import Shop
from tests.support.s3 import S3Server


@pytest.fixture
def local(tmp_path: Path) -> Iterator[Scene]:
    with scene_in(Reference.from_path(tmp_path / "scene")) as scene:
        yield scene


@pytest.fixture(scope="session")
def s3_store(server: S3Server) -> ObjectStore:
    """One for all tests: the clients of another would take a second to make."""
    return open_store(server.options())


@pytest.fixture
def s3(server: S3Server, s3_store: ObjectStore) -> Iterator[Scene]:
    with (
        server.bucket() as bucket,
        scene_in(bucket, s3_store, s3_endpoint_url=server.endpoint_url, s3_addressing_style="path") as scene,
    ):
        yield scene


@pytest.fixture(params=["local", "s3"])
def scene(request: pytest.FixtureRequest) -> Scene:
    found: Scene = request.getfixturevalue(request.param)
    return found


@pytest.fixture(scope="session")
def redis(tmp_path_factory: pytest.TempPathFactory) -> Iterator[EmbeddedRedis]:
    """One for the tests of this folder, one after another."""
    with EmbeddedRedis(tmp_path_factory.mktemp("redis"), append_only=False) as running:
        yield running


@pytest.fixture
def shop(redis: EmbeddedRedis, tmp_path: Path) -> Iterator[Shop]:
    opened = Shop.open(tmp_path, redis.url)
    yield opened
    opened.close()


@pytest.fixture
def memory() -> Iterator[Backend]:
    with in_memory() as backend:
        yield backend


@pytest.fixture
def real(redis: EmbeddedRedis, tmp_path: Path) -> Iterator[Backend]:
    with for_real(redis, tmp_path) as backend:
        yield backend


@pytest.fixture(params=["memory", "real"])
def backend(request: pytest.FixtureRequest) -> Backend:
    """Each test that takes this runs in memory and for real."""
    found: Backend = request.getfixturevalue(request.param)
    return found
