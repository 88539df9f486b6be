"""Figures of a contest: as a table to read and as JSON to keep."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from bench.engine.contest import Run
from bench.engine.flops import Priced

if TYPE_CHECKING:
    from rich.table import Table


@dataclass(frozen=True)
class Figures:
    """What one peer did with one workload."""

    peer: str
    pictures: int
    seconds: float
    """From the first arrival to the last picture, of all rounds."""
    rate: float
    """Pictures a second."""
    p50: float
    """Seconds from a job's arrival to its picture."""
    p99: float
    rows: float
    """Of pictures in a forward, on average."""
    padding: float
    """Share of all rows that only filled a shape."""
    idle: float
    """Share of the seconds in which the peer did not work."""
    limit_share: float
    """Of what the device could paint at its peak, counted in FLOP of plain diffusers calls."""
    difference: float
    """The largest of any pixel to the first peer's, 0..1."""


def figures_of(peer: str, run: Run, costs: Priced, peak: float) -> Figures:
    """`peak`: FLOP a second."""
    p50, p99 = np.percentile(run.latencies, (50, 99))
    done = run.counters
    return Figures(
        peer=peer,
        pictures=len(run.jobs),
        seconds=run.seconds,
        rate=len(run.jobs) / run.seconds,
        p50=float(p50),
        p99=float(p99),
        rows=done.rows / max(1, done.forwards),
        padding=done.padded / max(1, done.rows + done.padded),
        idle=max(0.0, 1 - done.busy / run.seconds),
        limit_share=costs.total(run.jobs) / run.seconds / peak,
        difference=run.difference,
    )


@dataclass(frozen=True)
class Contest:
    """All peers on one workload with one kind of arrivals."""

    workload: str
    arrivals: str
    offered: float | None
    """Jobs that arrived a second, on average; None where all were there at once."""
    figures: tuple[Figures, ...]

    def gain(self, over: int, figures: Figures) -> float:
        """How many times as good as a peer.

        By pictures a second where all jobs were there at once, else by how soon the median picture is there: pictures
        a second then say no more than whether a peer keeps up.
        """
        other = self.figures[over]
        return figures.rate / other.rate if self.offered is None else other.p50 / figures.p50

    def as_json(self) -> dict[str, Any]:
        return asdict(self)


def table(contest: Contest, against: Sequence[int]) -> Table:
    """Under 80 columns wide; `against` are the peers that all others are compared with."""
    # Figures are made where there is no rich, too.
    from rich import box
    from rich.table import Table

    title = f"{contest.workload}, {contest.arrivals}: {contest.figures[0].pictures} jobs for each"
    if contest.offered is not None:
        title += f", {contest.offered:.2f} a second"
    by = "rate" if contest.offered is None else "p50"
    made = Table(
        title=title, title_justify="left", title_style="bold", box=box.SIMPLE_HEAD, padding=(0, 0, 0, 1), pad_edge=False
    )
    made.add_column("", no_wrap=True)
    for head in (
        *("pic-\ntures/s", "p50\nin s", "p99\nin s", "rows/\nforward", "pad-\nding", "idle", "of\nlimit"),
        *(f"{by}\nto {contest.figures[index].peer.split()[0]}" for index in against),
    ):
        made.add_column(head, justify="right", no_wrap=True)
    for each in contest.figures:
        made.add_row(
            each.peer,
            f"{each.rate:.2f}",
            f"{each.p50:.2f}",
            f"{each.p99:.2f}",
            f"{each.rows:.1f}",
            f"{each.padding:.0%}",
            f"{each.idle:.0%}",
            f"{each.limit_share:.1%}",
            *(f"{contest.gain(index, each):.2f} ×" for index in against),
        )
    return made
