"""The command line against a real Redis and a local store. No worker runs here: a test plays one where it needs it."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result
from redis import Redis

from overpaint_common.fleet import WorkerCard
from overpaint_common.live import Live, connect
from overpaint_producer import Producer
from overpaint_producer.cli import main
from overpaint_producer.local.redis import EmbeddedRedis
from overpaint_producer.local.scene import draw_scene
from tests.support.cards import model_card


@dataclass(frozen=True)
class Place:
    """A Redis, a store and the environment that names both."""

    redis: EmbeddedRedis
    folder: Path
    variables: dict[str, str] = field(default_factory=dict)

    @property
    def source(self) -> Path:
        return self.folder / "in" / "house.png"

    @property
    def output(self) -> Path:
        return self.folder / "out"

    def run(self, *arguments: str, stdin: str | None = None, **variables: str) -> Result:
        """`overpaint <arguments>` in this process; what it printed and its exit code."""
        return CliRunner().invoke(main, arguments, input=stdin, env={**self.variables, **variables})

    def submit(self, *arguments: str) -> str:
        """Submit the bundled picture; the job's id."""
        result = self.run("submit", str(self.source), str(self.output), "--prompt", "a blue house", *arguments)
        assert result.exit_code == 0, result.output
        return result.stdout.strip()

    def producer(self, monkeypatch: pytest.MonkeyPatch) -> Producer:
        for name, value in self.variables.items():
            monkeypatch.setenv(name, value)
        return Producer()

    def requests(self) -> list[dict[str, Any]]:
        """The accepted jobs as settled, in no order."""
        files = (self.folder / "ledger" / "jobs").glob("*/request.json")
        return [json.loads(file.read_text())["job"] for file in files]

    def announce(self, *, alive: bool, worker: str = "played", model: str = "mini", **fields: Any) -> None:
        """Say that a worker serves `model` here; one that is not alive leaves its model behind.

        `fields` are more of the model's card.
        """
        live = Live(connect(self.redis.url))
        prefix = self.folder.as_uri()
        card = model_card(
            model, default_steps=40, max_steps=200, reads=(f"{prefix}/in/",), writes=(f"{prefix}/out/",)
        ).model_copy(update=fields)
        now = datetime.now(UTC)
        live.announce(WorkerCard(name=worker, device="cpu", models=(model,), slots=8, pid=1, started_at=now), [card])
        if not alive:
            live.withdraw(worker)
        live.close()


@pytest.fixture(scope="session")
def redis_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[EmbeddedRedis]:
    with EmbeddedRedis(tmp_path_factory.mktemp("redis")) as redis:
        yield redis


@pytest.fixture
def place(redis_server: EmbeddedRedis, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Place:
    """Everything works, and the model `mini` is known although no worker is alive."""
    with Redis.from_url(redis_server.url) as client:
        client.flushall()
    variables = _variables(redis_server.url, tmp_path)
    for name in ("OVERPAINT_REDIS_URL", "OVERPAINT_LEDGER", "OVERPAINT_READ", "OVERPAINT_WRITE"):
        monkeypatch.delenv(name, raising=False)
    made = Place(redis_server, tmp_path, variables)
    made.source.parent.mkdir()
    draw_scene().save(made.source)
    made.announce(alive=False)
    return made


def _variables(redis_url: str, folder: Path) -> dict[str, str]:
    return {"OVERPAINT_REDIS_URL": redis_url, "OVERPAINT_LEDGER": f"{folder.as_uri()}/ledger/"}


def without(variables: Mapping[str, str], *names: str) -> dict[str, str]:
    return {name: value for name, value in variables.items() if name not in names}
