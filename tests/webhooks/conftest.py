from __future__ import annotations

import base64
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from redis import Redis

from overpaint_common.job import Job
from overpaint_common.ledger import Ledger
from overpaint_common.live import connect
from overpaint_common.passes import Img2Img
from overpaint_common.references import Reference
from overpaint_common.result import Failure, Result
from overpaint_common.storage import LocalStore
from overpaint_common.storage.writing import is_temporary
from overpaint_producer.local.redis import EmbeddedRedis
from tests.webhooks.receivers import Receiver, receiver

KEY = bytes(range(32))
SECRET = "whsec_" + base64.b64encode(KEY).decode()


@dataclass(frozen=True)
class Place:
    """A ledger and an output place in folders."""

    folder: Path
    ledger: Ledger
    store: LocalStore

    def job(self, name: str, webhook: str | None, **changes: Any) -> Job:
        fields = {
            "id": name,
            "source": f"{self.folder.as_uri()}/in/cat.png",
            "model": "mini",
            "passes": (Img2Img(prompt="a cat"),),
            "output": {"prefix": f"{self.folder.as_uri()}/out/"},
            "webhook": webhook,
            **changes,
        }
        return Job.model_validate(fields)

    def end(self, job: Job, *, failure: Failure | None = None, finish: bool = True) -> Result:
        """Accept a job, record that it succeeded, or failed so, and finish it."""
        now = datetime.now(UTC)
        request = self.ledger.accept(job, job.digest(), now).request
        record = self.ledger.commit(
            Result(
                job_id=job.id,
                status="failed" if failure else "succeeded",
                attempt="0123456789ab",
                attempts=1,
                job=job,
                failure=failure,
                accepted_at=now,
                finished_at=now,
            )
        )
        if finish:
            self.ledger.finish(request, record, self.store)
        return record

    def text(self, *names: str) -> str:
        """What lies below the ledger, or beside it."""
        return self.folder.joinpath(*names).read_text()

    def names(self, *under: str) -> list[str]:
        """The objects below a folder, without those that are being written."""
        folder = self.folder.joinpath(*under)
        files = (file for file in folder.rglob("*") if file.is_file() and not is_temporary(file.name))
        return sorted(str(file.relative_to(folder)) for file in files)


@pytest.fixture
def place(tmp_path: Path) -> Place:
    store = LocalStore()
    return Place(tmp_path, Ledger(store, Reference.from_path(tmp_path / "ledger")), store)


@pytest.fixture(scope="package")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[EmbeddedRedis]:
    with EmbeddedRedis(tmp_path_factory.mktemp("redis"), append_only=False) as running:
        yield running


@pytest.fixture
def redis(server: EmbeddedRedis) -> Iterator[Redis]:
    """An empty Redis."""
    client = connect(server.url)
    client.flushall()
    yield client
    client.close()


@pytest.fixture
def allowed() -> list[str]:
    """What OVERPAINT_WEBHOOKS allows in this test: the receivers that it started."""
    return []


@pytest.fixture
def start(allowed: list[str]) -> Iterator[Callable[[], Receiver]]:
    """Starts receivers, for as long as the test runs."""

    def started() -> Receiver:
        running = stack.enter_context(receiver())
        allowed.append(running.url)
        return running

    with ExitStack() as stack:
        yield started
