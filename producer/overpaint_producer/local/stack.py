"""The whole of Overpaint on one machine: Redis, a local store and one CPU worker."""

from __future__ import annotations

import fcntl
import os
import shlex
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from datetime import UTC, datetime
from importlib.util import find_spec
from pathlib import Path
from types import TracebackType
from typing import IO, Self

from overpaint_common.errors import BrokerUnavailable, EngineDied, SettingsError
from overpaint_common.fleet import WorkerCard
from overpaint_common.live import Live, connect
from overpaint_common.references import Reference
from overpaint_common.settings import AccessSettings
from overpaint_producer.local.child import Child
from overpaint_producer.local.redis import EmbeddedRedis

READY_LIMIT = 300.0
"""Seconds until the worker has announced its model; the first import of torch from a cold disk takes long."""

STOP_GRACE = 15.0
"""Seconds the worker may take to finish what it has begun, or to hand it back."""

LEASE = 10.0
"""Seconds after which the jobs of a worker that was killed go to the next one."""

WORKER = (sys.executable, "-m", "overpaint_worker", "--devices", "cpu")


class LocalStack:
    """Redis, a store and a worker below `folder`, running from `start` to `stop`.

        with LocalStack(folder) as stack:
            producer = Producer(stack.settings)

    Jobs may read below `in/` and `out/`, and write below `out/`. Everything is kept when it stops: a later start in
    the same folder goes on where this one ended. On Linux all of it dies with this process.
    """

    def __init__(
        self,
        folder: Path,
        *,
        redis_port: int | None = None,
        environment: Mapping[str, str] | None = None,
        command: Sequence[str] = WORKER,
        say: Callable[[str], None] = lambda _: None,
    ) -> None:
        """`environment` is what the worker inherits, this process's own by default; `command` starts it.

        `say` is told what is going on.
        """
        self.folder = Path(os.path.abspath(folder))  # noqa: PTH100 - Path.absolute() keeps `..`
        self.redis = EmbeddedRedis(self.folder / "redis", port=redis_port)
        self._inherited = dict(os.environ if environment is None else environment)
        self._command = command
        self._say = say
        self._worker: Child | None = None
        self._open = ExitStack()

    @property
    def inputs(self) -> Path:
        return self.folder / "in"

    @property
    def outputs(self) -> Path:
        return self.folder / "out"

    @property
    def worker_log(self) -> Path:
        return self.folder / "worker.log"

    @property
    def variables(self) -> dict[str, str]:
        """The environment variables that make a producer or a worker part of this stack."""
        inputs, outputs = _prefix(self.inputs), _prefix(self.outputs)
        return {
            "OVERPAINT_REDIS_URL": self.redis.url,
            "OVERPAINT_LEDGER": _prefix(self.folder / "ledger"),
            "OVERPAINT_READ": f"{inputs},{outputs}",
            "OVERPAINT_WRITE": outputs,
        }

    @property
    def exports(self) -> list[str]:
        """The same as lines for a shell."""
        return [f"export {name}={shlex.quote(value)}" for name, value in self.variables.items()]

    @property
    def settings(self) -> AccessSettings:
        values = {name.removeprefix("OVERPAINT_").lower(): value for name, value in self.variables.items()}
        return AccessSettings.load(**values)

    def start(self) -> WorkerCard:
        """Start everything and wait until the worker is ready to serve; returns what it announced.

        Raises SettingsError for what is not installed or a folder in use, BrokerUnavailable if Redis does not start,
        EngineDied with the end of its log if the worker ends or is not ready in time.
        """
        _require_worker()
        with ExitStack() as opened:
            for place in (self.inputs, self.outputs, self.folder / "ledger"):
                place.mkdir(parents=True, exist_ok=True)
            opened.enter_context(_claimed(self.folder))
            self._say("starting Redis")
            opened.enter_context(self.redis)
            self._say(f"starting the worker, its log is {self.worker_log}")
            began = datetime.now(UTC)
            self._worker = Child(self._command, log=self.worker_log, env=self._worker_environment())
            opened.callback(self._worker.stop, STOP_GRACE)
            card = self._announced(self._worker, began)
            self._open = opened.pop_all()
        return card

    def watch(self, seconds: float) -> None:
        """Wait while all is well; raises EngineDied or BrokerUnavailable as soon as a part has ended."""
        worker = self._running
        code = worker.wait(seconds)
        if code is not None:
            raise EngineDied(f"the worker ended with status {code}; {self.worker_log} ends:\n{worker.tail()}")
        if not self.redis.running:
            raise BrokerUnavailable(f"Redis has ended; see {self.redis.log}")

    def stop(self) -> None:
        """End the worker, then Redis."""
        self._open.close()

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    def _worker_environment(self) -> dict[str, str]:
        # The supervisor has to give up on its child before this stack gives up on the supervisor.
        settings = {"OVERPAINT_GRACE": f"{STOP_GRACE * 0.8:g}", "OVERPAINT_LEASE": f"{LEASE:g}"}
        return {**settings, **self._inherited, **self.variables}

    @property
    def _running(self) -> Child:
        if self._worker is None:
            raise BrokerUnavailable(f"the stack in {self.folder} does not run; start it")
        return self._worker

    def _announced(self, worker: Child, began: datetime) -> WorkerCard:
        live = Live(connect(self.redis.url))
        try:
            until = time.monotonic() + READY_LIMIT
            while time.monotonic() < until:
                # A card from before `began` is what an earlier worker left in this folder's Redis.
                ready = [card for card in live.workers() if card.models and card.started_at >= began]
                if ready:
                    return ready[0]
                self.watch(0.1)
        finally:
            live.close()
        raise EngineDied(f"the worker was not ready within {READY_LIMIT:g} s; {self.worker_log} ends:\n{worker.tail()}")


def _prefix(folder: Path) -> str:
    return str(Reference.from_path(folder).as_prefix())


def _require_worker() -> None:
    missing = [name for name in ("torch", "diffusers", "transformers") if find_spec(name) is None]
    if missing:
        raise SettingsError(
            f"a local worker needs {', '.join(missing)}, not installed here; run: pip install 'overpaint[worker,local]'"
        )


def _claimed(folder: Path) -> IO[str]:
    """A lock on the folder for as long as the file stays open: two Redis on the same data would ruin it."""
    lock = (folder / ".lock").open("a")
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        lock.close()
        raise SettingsError(f"another stack runs in {folder}; end it, or choose another folder") from None
    return lock
