"""How several jobs are doing: a bar for each on a terminal, a line for each end in a pipe."""

from __future__ import annotations

import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Protocol

import click

from overpaint_common.live import Progress
from overpaint_common.result import Result
from overpaint_producer.cli.display import time_left
from overpaint_producer.cli.text import printable
from overpaint_producer.handle import JobHandle


class Board(Protocol):
    """Shows how the jobs are doing, each under its name."""

    def see(self, name: str, moment: Progress) -> None: ...


def follow_each(handles: Mapping[str, JobHandle], *, timeout: float | None = None) -> dict[str, Result]:
    """Wait for all of them and report on the way; the records by the same names. Raises WaitTimeout.

    `timeout` is in seconds and for each job by itself, counted from the end of the one before.
    """
    records = {}
    with board(list(handles)) as shown:
        for name, handle in handles.items():
            for moment in handle.progress(timeout):
                shown.see(name, moment)
            records[name] = handle.result()
    return records


@contextmanager
def board(names: Sequence[str]) -> Iterator[Board]:
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, TextColumn
    from rich.progress import Progress as Bars

    if not sys.stderr.isatty():
        yield _Lines()
        return
    width = min(40, max(map(len, names), default=0))
    columns = (
        TextColumn(f"{{task.description:<{width}.{width}}}"),
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn("{task.fields[left]}"),
    )
    with Bars(*columns, console=Console(stderr=True)) as bars:
        tasks = {name: bars.add_task(name, total=None, start=False, left="") for name in names}

        class Bar:
            def see(self, name: str, moment: Progress) -> None:
                if moment.state != "queued":
                    bars.start_task(tasks[name])
                total = moment.steps or (1 if moment.finished else None)
                completed = moment.step if moment.steps else total or 0
                bars.update(tasks[name], total=total, completed=completed, left=time_left(moment))

        yield Bar()


class _Lines:
    def see(self, name: str, moment: Progress) -> None:
        if moment.finished:
            click.echo(printable(f"{moment.state}  {name}  {moment.detail}".rstrip()), err=True)
