"""Checks and measures the engine on one CUDA GPU, with random weights at real sizes and without a network.

`python -m bench.gpu` ends within --minutes, and with 1 where a check failed or could not be made. README.md in bench/
says what it does. `--device cpu --size tiny` does the same with small models, to try the bench itself.
"""

from __future__ import annotations

import argparse
import multiprocessing
import os
import shutil
import sys
import tempfile
from collections.abc import Sequence
from contextlib import ExitStack
from functools import partial
from pathlib import Path

import torch

from bench.engine.jobs import WORKLOADS
from bench.gpu import sizes
from bench.gpu.booths import COMPILED, PEERS
from bench.gpu.clock import Clock, bounded
from bench.gpu.course import PARTS, Course, Options
from bench.gpu.device import described
from bench.gpu.plans import PLANS, REAL
from bench.gpu.report import Record


def main(arguments: Sequence[str] | None = None) -> int:
    given = _parser().parse_args(arguments)
    if given.device.startswith("cuda") and not torch.cuda.is_available():
        sys.exit(f"torch {torch.__version__} finds no CUDA device; --device cpu --size tiny tries the bench itself")
    clock = Clock(given.minutes)
    record = Record(clock, {**described(given.device), "size": given.size, "minutes": given.minutes})
    with ExitStack() as stack:
        scratch = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="overpaint-gpu-")))
        _set_environment(given, scratch)
        stack.enter_context(bounded(clock, partial(_give_up, record, scratch, given.json)))
        if os.environ.get("TORCH_COMPILE_DISABLE") == "1":
            record.say("TORCH_COMPILE_DISABLE is 1: peers that are called compiled are not")
        options = Options(
            given.device,
            given.size,
            *(tuple(getattr(given, name)) for name in ("families", "workloads", "peers", "only")),
        )
        Course(options, record, clock, stack).run(given.models or scratch / "models")
    record.say(record.verdict())
    if given.json is not None:
        record.save(given.json)
    return 0 if record.ok else 1


def _set_environment(given: argparse.Namespace, scratch: Path) -> None:
    """What libraries read when they are first used, here and in the processes that compile."""
    os.environ["TORCHINDUCTOR_CACHE_DIR"] = str(given.cache or scratch / "compiled")
    compiling = len(given.families) * sum(key in COMPILED for key in given.peers)
    threads = max(1, (os.cpu_count() or 1) // max(1, compiling))
    os.environ.setdefault("TORCHINDUCTOR_COMPILE_THREADS", str(threads))
    # As the worker sets it for its children: without it no product of matrices is deterministic.
    os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
    os.environ["HF_HUB_OFFLINE"] = "1"
    os.environ["TRANSFORMERS_VERBOSITY"] = "error"
    if given.device == "cpu":
        # Compiling for a CPU takes minutes, whatever the size of the model.
        os.environ.setdefault("TORCH_COMPILE_DISABLE", "1")


def _give_up(record: Record, scratch: Path, file: Path | None) -> None:
    """End the process: something did not come to its end in time."""
    record.skip("whatever has no line above", "the time is over", check=True)
    record.say(record.verdict())
    if file is not None:
        record.save(file)
    for child in multiprocessing.active_children():
        child.kill()
    shutil.rmtree(scratch, ignore_errors=True)
    os._exit(1)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m bench.gpu", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    families = [plan.name for plan in REAL]
    workloads = [*WORKLOADS, sizes.NAME]
    parser.add_argument("--device", default="cuda", choices=["cuda", "cpu"])
    parser.add_argument("--size", default="real", choices=PLANS, help="of the models")
    parser.add_argument("--minutes", type=float, default=7.0, help="after which it ends, whatever is not done by then")
    parser.add_argument("--only", nargs="+", choices=PARTS, default=list(PARTS))
    parser.add_argument("--families", nargs="+", choices=families, default=families)
    parser.add_argument("--workloads", nargs="+", choices=workloads, default=["mixed", "uniform"])
    parser.add_argument("--peers", nargs="+", choices=PEERS, default=list(PEERS))
    parser.add_argument("--models", type=Path, metavar="DIR", help="keep the models there, and take those that it has")
    parser.add_argument("--cache", type=Path, metavar="DIR", help="keep what was compiled there")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write everything there as well")
    return parser


if __name__ == "__main__":
    sys.exit(main())
