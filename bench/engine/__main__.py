"""The engine beside two ways of calling diffusers: the same jobs, in turn, on the CPU threads of one process.

(a) calls the pipeline on one job after another. (b) batches whole jobs: whenever the pipeline is free, it takes the
oldest job and all that wait with the same size, steps, strength and guidance scale. (c) is Overpaint's engine.
`python -m bench.engine` exits with 1 where (c) paints other pictures than (a). README.md in bench/ says more.
"""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path

import torch
from rich.console import Console
from rich.progress import MofNCompleteColumn, Progress, TimeElapsedColumn

from bench.engine.contest import warm_up
from bench.engine.flops import costs_of, measure_peak
from bench.engine.jobs import WORKLOADS
from bench.engine.peers import EnginePeer, Peer, PipelinePeer, running
from bench.engine.pipelines import open_pipeline
from bench.engine.report import Contest, table
from bench.engine.trials import ARRIVALS, Plan, Trials
from overpaint_worker.engine.loading import PipelineLoader
from overpaint_worker.engine.registry import EMBEDDED, Registry

MODEL = "overpaint-mini"
SIZE = (64, 64)
"""Pixels; what the model was trained on."""
TOLERANCE = 1e-4
"""That a pixel may differ by, of 0..1."""
LOOP, BATCHING, ENGINE = range(3)


def main() -> int:
    given = _parser().parse_args()
    torch.set_num_threads(given.threads)
    console = Console()
    pipeline = open_pipeline("StableDiffusionImg2ImgPipeline", EMBEDDED)
    costs = costs_of(pipeline, SIZE)
    peak = measure_peak("cpu", torch.float32)
    engine = EnginePeer("(c) engine", PipelineLoader(Registry.embedded(), "cpu"), MODEL, in_flight=given.in_flight)
    peers: list[Peer] = [
        PipelinePeer("(a) loop", pipeline, most=1),
        PipelinePeer("(b) batches", pipeline, most=given.most),
        engine,
    ]
    plan = Plan(given.rounds, given.jobs, given.poisson_jobs or max(1, given.jobs // 2), given.load, SIZE)
    console.print(
        f"{MODEL}, {SIZE[0]} x {SIZE[1]}, {given.threads} threads that do {peak / 1e9:.0f} GFLOP/s together\n"
        f"{costs.row / 1e6:.0f} MFLOP a row of the UNet, {costs.fixed / 1e6:.0f} a picture besides\n"
        f"(b) has at most {given.most} pictures in a call, (c) {given.in_flight} calls in flight\n",
        highlight=False,
    )
    contests: list[Contest] = []
    total = len(given.workloads) * sum(plan.count(arrivals) for arrivals in given.arrivals) * plan.rounds * len(peers)
    with running(peers), _progress(console) as progress:
        bar = progress.add_task("pictures", total=total)
        warm_up(peers, given.in_flight, SIZE)
        for name in given.workloads:
            trials = Trials(
                *(peers, WORKLOADS[name], plan, BATCHING, costs, peak), painted=lambda: progress.advance(bar)
            )
            for arrivals in given.arrivals:
                contests.append(trials.contest(arrivals))
                console.print(table(contests[-1], against=(LOOP, BATCHING)))
        caches = engine.caches()
    for name, use in caches.items():
        console.print(f"(c) found {use.hits} of {use.hits + use.misses} {name} in its cache", highlight=False)
    if given.json is not None:
        setting = {name: getattr(given, name) for name in ("threads", "most", "in_flight", "load", "rounds")}
        document = {**setting, "peak": peak, "contests": [contest.as_json() for contest in contests]}
        given.json.write_text(json.dumps(document, indent=2) + "\n")
    return _verdict(console, contests)


def _verdict(console: Console, contests: list[Contest]) -> int:
    batching, engine = (max(contest.figures[peer].difference for contest in contests) for peer in (BATCHING, ENGINE))
    kept = engine <= TOLERANCE
    console.print(
        f"largest difference of a pixel to (a): {batching:.1e} in (b), {engine:.1e} in (c),\n"
        f"{'within' if kept else 'ABOVE'} the tolerance of {TOLERANCE:g}",
        highlight=False,
    )
    return 0 if kept else 1


def _progress(console: Console) -> Progress:
    columns = (*Progress.get_default_columns()[:2], MofNCompleteColumn(), TimeElapsedColumn())
    return Progress(*columns, console=console, transient=True, disable=not console.is_terminal)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m bench.engine", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--jobs", type=int, default=24, help="of a round, for each peer")
    parser.add_argument("--poisson-jobs", type=int, help="the same with Poisson arrivals; half as many by default")
    parser.add_argument("--rounds", type=int, default=2)
    parser.add_argument("--workloads", nargs="+", choices=WORKLOADS, default=list(WORKLOADS))
    parser.add_argument("--arrivals", nargs="+", choices=ARRIVALS, default=list(ARRIVALS))
    parser.add_argument("--load", type=float, default=0.8, help="rate of Poisson arrivals, a share of (b)'s at most")
    parser.add_argument("--threads", type=int, default=torch.get_num_threads(), help="of torch")
    parser.add_argument("--most", type=int, default=16, help="pictures in a call of (b)")
    parser.add_argument("--in-flight", type=int, default=16, help="calls in (c)")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the figures there as well")
    return parser


if __name__ == "__main__":
    sys.exit(main())
