"""How jobs and records read on a terminal, and as JSON lines."""

from __future__ import annotations

import json
from typing import Any

import click

from overpaint_common.live import Progress
from overpaint_common.result import Result, StoredObject

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
    return "  ".join(part for part in parts if part)


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


def coloured(state: str) -> str:
    return click.style(state, fg=_COLOURS.get(state), bold=True)


def show_record(record: Result) -> None:
    """The record in a few lines: how it ended, on what, why not, and where each picture is."""
    click.echo(f"{coloured(record.status)}  {record.job_id}{_how(record)}")
    if record.failure is not None:
        hint = "submitting it again may help" if record.failure.retryable else "submitting it again will not help"
        click.echo(f"  {record.failure.code}: {record.failure.message} ({hint})")
    for warning in record.warnings:
        click.echo(f"  note: {warning.message}")
    for variant in record.variants:
        for index, run in enumerate(variant.passes):
            if run.output is not None:
                click.echo(f"  {_place(run.output)}  after pass {index}, {run.op}")
        for output in variant.outputs:
            click.echo(f"  {_place(output)}  seed {variant.seed}")


def _place(picture: StoredObject) -> str:
    return f"{picture.uri}  {picture.width}x{picture.height}"


def _how(record: Result) -> str:
    if record.started_at is None:
        return ""
    how = f"  in {(record.finished_at - record.started_at).total_seconds():.1f} s"
    if record.passthrough:
        return f"{how}, untouched by any model"
    return f"{how}, {record.model.name} on {record.device}" if record.model else how
