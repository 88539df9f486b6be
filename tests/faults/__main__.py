"""`python -m tests.faults --seed 7 --minutes 10 --report DIR`: a fleet under load and attack, and a report.

Exits with 1 where a promise was broken. `--only kill --kills 200` does nothing but kill -9 workers at random moments.
Ctrl-C ends the attack; what was accepted by then is still finished and judged. Once more ends it at once.
"""

from __future__ import annotations

import argparse
import os
import signal
import sys
import threading
from functools import partial
from pathlib import Path
from types import FrameType

from tests.faults.chaos import Plan, play
from tests.faults.report import write_report
from tests.faults.troubles import LANES
from tests.support.s3 import s3_server


def main() -> int:
    given = _arguments()
    plan = Plan(
        seed=given.seed,
        seconds=given.minutes * 60,
        workers=given.workers,
        rate=given.rate,
        lanes=tuple(LANES) if given.only in (None, "kill") else (given.only,),
        kills=given.kills if given.only == "kill" else None,
        lease=given.lease,
        every=given.every,
    )
    stop = _stopped_by_signals()
    with s3_server() as server:
        os.environ.update(server.environment)
        run = play(plan, server, logs=given.report / "logs", say=partial(print, flush=True), stop=stop)
    page = write_report(run, given.report)
    print(run.verdict, *run.complaints, f"report: {page}", sep="\n")
    return 0 if run.ok else 1


def _stopped_by_signals() -> threading.Event:
    """What the first SIGINT or SIGTERM sets."""
    stop = threading.Event()

    def end(_: int, __: FrameType | None) -> None:
        if stop.is_set():
            raise KeyboardInterrupt
        print("ending; once more to end at once", flush=True)
        stop.set()

    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, end)
    return stop


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m tests.faults", description=__doc__)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--minutes", type=float, default=10, help="of attack, at most; peace takes up to 3 more")
    parser.add_argument("--workers", type=int, default=3)
    parser.add_argument("--lease", type=float, default=3, help="seconds")
    parser.add_argument("--rate", type=float, default=5, help="jobs a second")
    parser.add_argument("--only", choices=["kill", *LANES], help="nothing but this kind of fault")
    parser.add_argument("--kills", type=int, default=200, help="with --only kill: stop after that many")
    parser.add_argument("--every", type=float, default=0, help="with --only kill: seconds between two at least")
    parser.add_argument("--report", type=Path, default=Path("faults-report"))
    return parser.parse_args()


if __name__ == "__main__":
    sys.exit(main())
