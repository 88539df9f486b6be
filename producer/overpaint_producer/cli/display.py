"""How jobs and records read on a terminal, and as JSON lines."""

from __future__ import annotations

import json
import sys
from typing import Any

import click

from overpaint_common.live import Progress
from overpaint_common.result import Result, StoredObject
from overpaint_producer.cli.terminal import columns, say
from overpaint_producer.cli.text import printable

_COLOURS = {"succeeded": "green", "failed": "red", "expired": "red", "cancelled": "yellow"}


def emit(document: dict[str, Any]) -> None:
    """One JSON object on one line of stdout, at once even into a pipe."""
    click.echo(json.dumps(document, ensure_ascii=False))


def moment_as_json(job_id: str, moment: Progress) -> dict[str, Any]:
    """The moment's fields after the job's id."""
    return {"id": job_id, **moment.model_dump(mode="json")}


def record_as_json(record: Result) -> dict[str, Any]:
    """How a job ended, and its whole record."""
    return {
        "id": record.job_id,
        "state": record.status,
        "record": record.model_dump(mode="json", exclude_none=True),
    }


def words(moment: Progress) -> str:
    """A moment in one line: `running  denoise  step 3 of 20  about 12 s left`."""
    parts: list[str] = [moment.state]
    if moment.state == "running":
        parts.append(moment.phase)
        if moment.steps:
            parts.append(f"step {moment.step} of {moment.steps}")
        parts.append(time_left(moment))
        parts.append(f"on {moment.worker}" if moment.worker else "")
    parts.append(moment.detail)
    return printable("  ".join(part for part in parts if part))


def time_left(moment: Progress) -> str:
    """The estimate as it was at that moment, such as `about 12 s left`; empty where there is none."""
    seconds = moment.seconds_left
    if seconds is None:
        return ""
    if seconds < 1:
        return "less than 1 s left"
    # Two units would claim more than an estimate knows.
    for size, unit in ((3600, "h"), (60, "min")):
        if seconds >= 2 * size:
            return f"about {seconds / size:.0f} {unit} left"
    return f"about {seconds:.0f} s left"


def show_moment(moment: Progress) -> None:
    """A moment in words, its state in colour."""
    text = words(moment).removeprefix(moment.state)
    say(text.strip(), first=f"{coloured(moment.state)}  ")


def coloured(state: str) -> str:
    return click.style(state, fg=_COLOURS.get(state), bold=True)


def show_record(record: Result) -> None:
    """The record in a few lines: how it ended, on what, why not, and where each picture is."""
    width = columns(sys.stdout)
    say(f"{record.job_id}{_how(record)}", first=f"{coloured(record.status)}  ")
    if record.failure is not None:
        hint = "submitting it again may help" if record.failure.retryable else "submitting it again will not help"
        say(f"{record.failure.message} ({hint})", first=f"  {printable(record.failure.code)}: ", margin="    ")
    for warning in record.warnings:
        say(warning.message, first="  note: ", margin="    ")
    for variant in record.variants:
        for index, run in enumerate(variant.passes):
            if run.output is not None:
                _show_place(run.output.uri, f"{_size(run.output)}  after pass {index}, {run.op}", width)
        for output in variant.outputs:
            _show_place(output.uri, f"{_size(output)}  seed {variant.seed}", width)
            if output.published is not None:
                _show_place(output.published, "a copy of it", width)


def _show_place(uri: str, note: str, width: int | None) -> None:
    """A reference and what there is to say of it: below it where the line would be too long."""
    line = f"  {uri}  {note}"
    click.echo(printable(line if width is None or len(line) <= width else f"  {uri}\n    {note}"))


def _size(picture: StoredObject) -> str:
    return f"{picture.width}x{picture.height}"


def _how(record: Result) -> str:
    if record.started_at is None:
        return ""
    how = f"  in {(record.finished_at - record.started_at).total_seconds():.1f} s"
    if record.passthrough:
        return f"{how}, untouched by any model"
    return f"{how}, {record.model.name} on {record.device}" if record.model else how
