"""Following a job to its end: a bar on a terminal, lines in a pipe, JSON lines for a program."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Protocol

import click

from overpaint_common.live import Progress
from overpaint_common.result import Result
from overpaint_producer.cli.display import emit, moment_as_json, record_as_json, time_left, words
from overpaint_producer.cli.text import printable
from overpaint_producer.handle import JobHandle

TENTHS = 10
"""Lines in a pipe report this many stations of a long run, not each step."""


class Watcher(Protocol):
    """Is told each moment of one job."""

    def see(self, moment: Progress) -> None: ...


def follow(handle: JobHandle, *, timeout: float | None = None, as_json: bool = False) -> Result:
    """Wait for a job and report on the way; raises WaitTimeout. With `as_json` the last line holds the record."""
    with _watcher(handle.id, as_json) as watcher:
        start = handle.status()
        if start.detail and not start.finished:
            watcher.see(start)
        for moment in handle.progress(timeout):
            if not moment.finished:
                watcher.see(moment)
    record = handle.result()
    if as_json:
        emit(record_as_json(record))
    return record


@contextmanager
def _watcher(job_id: str, as_json: bool) -> Iterator[Watcher]:
    if as_json:
        yield _JsonLines(job_id)
    elif sys.stderr.isatty():
        with _bar(job_id) as bar:
            yield bar
    else:
        yield _Lines()


class _JsonLines:
    def __init__(self, job_id: str) -> None:
        self._job_id = job_id

    def see(self, moment: Progress) -> None:
        emit(moment_as_json(self._job_id, moment))


class _Lines:
    def __init__(self) -> None:
        self._last: tuple[object, ...] = ()

    def see(self, moment: Progress) -> None:
        station = moment.step * TENTHS // moment.steps if moment.steps else 0
        now = (moment.state, moment.phase, moment.detail, station)
        if now != self._last:
            self._last = now
            click.echo(words(moment), err=True)


@contextmanager
def _bar(job_id: str) -> Iterator[Watcher]:
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeElapsedColumn
    from rich.progress import Progress as Bars

    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    with Bars(*columns, console=Console(stderr=True), transient=True) as bars:
        task = bars.add_task(job_id[:8], total=None)

        class Bar:
            told = ""

            def see(self, moment: Progress) -> None:
                if moment.detail not in ("", self.told):
                    # Too long for beside the bar.
                    bars.console.print(printable(moment.detail), markup=False, highlight=False)
                self.told = moment.detail
                what = moment.phase if moment.state == "running" else moment.state
                note = printable(", ".join(part for part in (what, time_left(moment)) if part))
                bars.update(
                    task, description=f"{job_id[:8]}  {note}", total=moment.steps or None, completed=moment.step
                )

        yield Bar()
