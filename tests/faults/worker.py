"""`python -m tests.faults.worker`: a supervisor whose children are real workers that can be made to fail.

What a child does besides its work is told by its environment:

    OVERPAINT_TEST_FAILPOINTS   see overpaint_common.failpoints
    OVERPAINT_TEST_CONTROL      a file that tests.faults.control reads fail points from, again and again
    OVERPAINT_TEST_SKEW         seconds by which Python's clock in this process is ahead
    OVERPAINT_TEST_MODEL        light (default): see tests.faults.light; real: the registry's own
    OVERPAINT_TEST_STEP         seconds that a step of the light model takes
    OVERPAINT_TEST_WEAKENED     names of tests.faults.weakened, separated by commas

and the supervisor's own by OVERPAINT_TEST_BACKOFF, the longest pause in seconds before a dead child is replaced.
"""

from __future__ import annotations

import logging
import os
import sys
import time
from pathlib import Path


def skew_clock(seconds: float) -> None:
    """Set Python's clock ahead; to be called before anything else takes a reference to it."""
    if seconds:
        true = time.time
        time.time = lambda: true() + seconds


skew_clock(float(os.environ.get("OVERPAINT_TEST_SKEW", "0")))

from overpaint_common import failpoints  # noqa: E402
from overpaint_worker import child, supervisor  # noqa: E402
from overpaint_worker.keeper.build import build_keeper  # noqa: E402
from overpaint_worker.settings import WorkerSettings  # noqa: E402
from tests.faults.control import obey  # noqa: E402
from tests.faults.light import loader_of  # noqa: E402
from tests.faults.weakened import weaken  # noqa: E402


def serve_as_child() -> int:
    """Be one worker process."""
    failpoints.arm(os.environ.get("OVERPAINT_TEST_FAILPOINTS", ""))
    control = os.environ.get("OVERPAINT_TEST_CONTROL")
    if control:
        obey(Path(control))
    step = float(os.environ.get("OVERPAINT_TEST_STEP", "0.005"))
    return child.main(loader_of(os.environ.get("OVERPAINT_TEST_MODEL", "light"), step))


def supervise() -> int:
    """Be the supervisor, with a keeper unless the settings say otherwise."""
    logging.basicConfig(
        format="%(asctime)s %(levelname)s supervisor %(message)s", stream=sys.stderr, level=logging.INFO
    )
    settings = WorkerSettings.load()
    keeper = build_keeper(settings) if settings.keeper else None
    longest = float(os.environ.get("OVERPAINT_TEST_BACKOFF", "0.2"))
    supervisor.FIRST_BACKOFF = min(supervisor.FIRST_BACKOFF, longest)
    supervisor.LAST_BACKOFF = longest
    command = (sys.executable, "-m", "tests.faults.worker", "child")
    return supervisor.Supervisor(["cpu"], grace=settings.grace, command=command, keeper=keeper).run()


if __name__ == "__main__":
    weaken(name for name in os.environ.get("OVERPAINT_TEST_WEAKENED", "").split(",") if name)
    # As the worker's own end: libraries that hang must not keep the process.
    os._exit(serve_as_child() if sys.argv[1:] == ["child"] else supervise())
