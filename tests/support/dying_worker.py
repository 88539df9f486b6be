"""A supervisor whose children are real workers, but whose first engine thread is killed while it denoises.

`python -m tests.support.dying_worker` is the supervisor; `... child` is what it starts. OVERPAINT_TEST_DIED names the
file that remembers the death, so that it happens once.
"""

from __future__ import annotations

import ctypes
import os
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

from overpaint_worker import child
from overpaint_worker.engine.calls import Call, Loader, Model
from overpaint_worker.engine.registry import Registry
from overpaint_worker.supervisor import Supervisor


class Dying:
    """A model that asks Python to end the thread it runs on, once."""

    def __init__(self, model: Model) -> None:
        self._model = model
        self.info = model.info

    def run(self, call: Call, on_step: Callable[[int], None]) -> Any:
        def step(done: int) -> None:
            on_step(done)
            marker = Path(os.environ["OVERPAINT_TEST_DIED"])
            if done == 3 and not marker.exists():
                marker.touch()
                thread = ctypes.c_ulong(threading.get_ident())
                ctypes.pythonapi.PyThreadState_SetAsyncExc(thread, ctypes.py_object(SystemExit))

        return self._model.run(call, step)


def dying_loader(registry: Registry, device: str) -> Loader:
    from overpaint_worker.engine.loading import PipelineLoader

    loader = PipelineLoader(registry, device)
    return lambda name: Dying(loader(name))


if __name__ == "__main__":
    if sys.argv[1:] == ["child"]:
        sys.exit(child.main(dying_loader))
    sys.exit(Supervisor(["cpu"], grace=30, command=(sys.executable, "-m", "tests.support.dying_worker", "child")).run())
