"""`overpaint jobs`: the jobs of late, by state and label."""

from __future__ import annotations

import sys
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING

import click

from overpaint_producer.cli.candidates import models
from overpaint_producer.cli.display import coloured, emit
from overpaint_producer.cli.durations import Duration, spelled
from overpaint_producer.cli.lists import labels
from overpaint_producer.cli.options import as_json
from overpaint_producer.cli.terminal import columns, shortened
from overpaint_producer.cli.text import one_line

if TYPE_CHECKING:
    from overpaint_common.job import Priority
    from overpaint_common.live import JobState
    from overpaint_producer.listing import JobListing, ListedJob

STATES = ("accepted", "queued", "running", "succeeded", "failed", "cancelled", "expired")
"""As in `overpaint_common.live`, which help need not import."""

PRIORITIES = ("interactive", "standard", "bulk")
LONGEST = 7 * 24 * 3600
"""Seconds: what Redis keeps of them."""


@click.command()
@click.option("--state", "states", type=click.Choice(STATES), multiple=True, help="Only those; may be repeated.")
@click.option(
    "--label", "labelled", multiple=True, callback=labels, metavar="NAME=VALUE",
    help="Only those with this label; may be repeated, and all count.",
)  # fmt: skip
@click.option("--model", metavar="NAME", shell_complete=models, help="Only those of one model.")
@click.option("--priority", type=click.Choice(PRIORITIES), help="Only those of one priority.")
@click.option(
    "--since", type=Duration(LONGEST), default="1d", show_default=True, metavar="TIME",
    help="Queued within this time: such as 90s, 30m, 12h, at most 7d.",
)  # fmt: skip
@click.option("--until", type=Duration(LONGEST), metavar="TIME", help="Not queued within this time.")
@click.option("--limit", type=click.IntRange(min=1), default=50, show_default=True, help="Stop after so many.")
@click.option("--after", metavar="ID", help="Go on behind this job, where a listing stopped.")
@click.option("--ids", is_flag=True, help="Print nothing but the ids, one on each line.")
@as_json
def jobs(
    states: tuple[JobState, ...],
    labelled: dict[str, str],
    model: str | None,
    priority: Priority | None,
    since: int,
    until: int | None,
    limit: int,
    after: str | None,
    ids: bool,
    as_json: bool,
) -> None:
    """List the jobs queued lately, the last first, whoever submitted them.

    Each line has the job's id, state, time since it was accepted and steps, then the source's name, the model and the
    labels as far as there is room. A pipe gets all of it, tab-separated, and the source whole. Redis keeps the list
    for seven days; what it has lost is still found by its id. With --json each job is one object.

    \b
    Examples:
      overpaint jobs --state queued --state running
      overpaint jobs --state failed --label customer=acme --since 12h
      overpaint jobs --state queued --limit 9999 --ids |
        xargs -r overpaint cancel
    """
    from overpaint_producer.producer import Producer

    with Producer() as producer:
        listing = producer.jobs(
            state=states or None,
            labels=labelled,
            model=model,
            priority=priority,
            since=timedelta(seconds=since),
            until=None if until is None else timedelta(seconds=until),
            after=after,
            limit=limit,
        )
    if as_json:
        for job in listing:
            emit(job.model_dump(mode="json"))
    elif ids:
        for job in listing:
            click.echo(job.id)
    else:
        _show(listing)
    if listing.next is not None:
        click.echo(f"there may be more; go on with --after {listing.next}", err=True)
    elif not listing:
        click.echo(f"no such job within {spelled(since)}", err=True)


def _show(listing: JobListing) -> None:
    """Columns on a terminal, cut to its width; tab-separated and whole in a pipe, so that `cut` and `awk` can read."""
    now, width = datetime.now(UTC), columns(sys.stdout)
    if width is None:
        for job in listing:
            click.echo("\t".join([*_state(job, now), job.model, one_line(job.source), _labels(job)]))
        return
    rows = [(_state(job, now), _about(job)) for job in listing]
    sizes = [max(map(len, column)) for column in zip(*(cells for cells, _ in rows), strict=True)]
    room = max(0, width - sum(sizes) - 2 * len(sizes))
    for row, about in rows:
        cells = [cell.ljust(size) for cell, size in zip(row, sizes, strict=True)]
        cells[1] = cells[1].replace(row[1], coloured(row[1]), 1)
        click.echo("  ".join([*cells, shortened(about, room) if room > 3 else ""]).rstrip())


def _state(job: ListedJob, now: datetime) -> list[str]:
    moment = job.progress
    steps = f"{moment.step}/{moment.steps}" if moment.steps else "-"
    age = spelled(max(0, int((now - job.accepted_at).total_seconds())))
    return [job.id, job.state, age, steps]


def _about(job: ListedJob) -> str:
    name = one_line(job.source.rpartition("/")[2])
    return "  ".join(part for part in (name, job.model, _labels(job)) if part)


def _labels(job: ListedJob) -> str:
    return " ".join(f"{name}={one_line(text)}" for name, text in job.labels.items())
