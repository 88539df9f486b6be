"""A worker whose model does nothing: what is left is the system itself. `... child` is what its supervisor starts."""

from __future__ import annotations

import sys
from collections.abc import Callable

import numpy as np

from overpaint_common.result import ModelInfo
from overpaint_worker import child
from overpaint_worker.engine.calls import Call, Loader, Made, Model
from overpaint_worker.engine.registry import Registry
from overpaint_worker.keeper.build import build_keeper
from overpaint_worker.settings import KeeperSettings
from overpaint_worker.supervisor import Supervisor


class Noop(Model):
    """Gives the picture back as it came, after one step."""

    info = ModelInfo(name="noop", revision="local", digest="0" * 64, pipeline="none", scheduler="none", dtype="float32")

    def run(self, call: Call, on_step: Callable[[int], None]) -> Made:
        on_step(1)
        return Made(np.asarray(call.picture, dtype=np.float32) / np.float32(255), 1)


def noop_loader(_: Registry, __: str) -> Loader:
    return lambda _: Noop()


COMMAND = (sys.executable, "-m", "bench.noop_worker")

if __name__ == "__main__":
    if sys.argv[1:] == ["child"]:
        sys.exit(child.main(noop_loader))
    keeper = build_keeper(KeeperSettings.load())
    sys.exit(Supervisor(["cpu"], grace=30, command=(*COMMAND, "child"), keeper=keeper).run())
