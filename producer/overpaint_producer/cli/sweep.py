"""`overpaint sweep`: one picture over two settings, on one labelled page."""

from __future__ import annotations

import io
from collections.abc import Sequence
from dataclasses import replace
from math import prod
from pathlib import Path
from typing import Any

import click
from PIL import Image, ImageOps

from overpaint_common.errors import ForbiddenReference, InvalidJob, OverpaintError
from overpaint_common.job import PRIORITIES
from overpaint_common.references import Reference
from overpaint_common.result import Result
from overpaint_producer.cli.board import follow_each
from overpaint_producer.cli.candidates import files
from overpaint_producer.cli.display import emit
from overpaint_producer.cli.exits import JOB
from overpaint_producer.cli.lists import FLOATS, INTEGERS, labels
from overpaint_producer.cli.options import as_json
from overpaint_producer.cli.painting import Given, painting_options, passes_of, picture, place, prepare_of
from overpaint_producer.cli.sections import Sectioned, option, options
from overpaint_producer.cli.sweep_sheet import SIDE, Axes, Cell, Values, grid, page, words
from overpaint_producer.cli.terminal import say, tell
from overpaint_producer.compose import styled
from overpaint_producer.handle import MAX_PICTURE_BYTES
from overpaint_producer.producer import Producer
from overpaint_producer.sheet import mean_change, save_sheet

SHEET = "overpaint-sweep.png"
MAX_CELLS = 256
SEED = 0
"""The same in every cell, so that only what is swept makes a difference."""

_AXES = ("strength", "guidance_scale", "seed", "style")
_OPTIONS = {"strength": "--strengths", "guidance_scale": "--guidance", "seed": "--seeds", "style": "--style"}

_SWEPT = options(
    "What to sweep (one or two of these and --style)",
    option("--strengths", type=FLOATS, metavar="S,S,...", help="Such as 0.2,0.4,0.6,0.8."),
    option("--guidance", type=FLOATS, metavar="G,G,...", help="Guidance scales, such as 1,4,8."),
    option("--seeds", type=INTEGERS, metavar="N,N,...", help="Such as 1,2,3."),
)

_SENT = options(
    "How it is sent and shown",
    option(
        "--sheet", type=click.Path(dir_okay=False, path_type=Path), default=SHEET, show_default=True, metavar="FILE",
        help="Where to put the page, as PNG.",
    ),
    option("--seed", type=int, default=SEED, show_default=True, metavar="N", help="Of every cell."),
    option(
        "--priority", type=click.Choice(PRIORITIES), default="standard", show_default=True, help="Of every job."
    ),
    option("--label", "labels", multiple=True, callback=labels, metavar="NAME=VALUE", help="Kept in the records."),
    option("--key", metavar="TEXT", help="Idempotency key: the same sweep again goes on where it broke off."),
    option("--timeout", type=click.FloatRange(min=0), metavar="SECONDS", help="Longest wait for one cell."),
)  # fmt: skip


@click.command(cls=Sectioned)
@click.argument("source", shell_complete=files)
@click.argument("output", shell_complete=files)
@_SWEPT
@painting_options("Words about the manner, put behind the prompt. Repeated: the values of an axis.")
@_SENT
@as_json
def sweep(sheet: Path, timeout: float | None, as_json: bool, **given: Any) -> None:
    """Paint SOURCE with every combination of one or two settings, and lay the pictures out on one labelled page.

    Each cell is a job, whose picture and record go below OUTPUT. All have one seed unless seeds are swept. A cell that
    is refused or fails says so in its place, and the others go on. Exits 1 if there was any. With --json prints one
    object: sheet, and for each cell its values, id, state, effective steps and mean change from the source (0 to 255).

    \b
    Examples:
      overpaint sweep cat.jpg out -p "a cat in oils" --strengths 0.2,0.4,0.6,0.8
      overpaint sweep cat.jpg out -p "a cat" --strengths 0.3,0.6 --guidance 2,5,9
      overpaint sweep cat.jpg out -p "a cat" --style oils --style ink --seeds 1,2
    """
    axes = _axes(given)
    if not given["prompts"] and "style" not in axes:
        raise click.UsageError('say what the picture should become: --prompt "a cat, watercolor"')
    if not sheet.parent.is_dir():
        raise click.UsageError(f"there is no folder {str(sheet.parent)!r} to put the sheet into")
    columns, rows = grid(axes)
    with Producer() as producer:
        cells = [_composed(producer, given, {**column, **row}) for row in rows for column in columns]
        cells = [_submitted(producer, cell, given["key"]) for cell in cells]
        if all(cell.handle is None for cell in cells) and cells[0].error is not None:
            raise cells[0].error
        records = follow_each({c.name: c.handle for c in cells if c.handle is not None}, timeout=timeout)
        original = _source(producer, given["source"])
        cells = [_finished(cell, records.get(cell.name), original) for cell in cells]
    title = "; ".join(given["prompts"]) or "One picture in several styles"
    save_sheet(page(title, axes, cells, original, footer=_footer(cells, axes, given["seed"])), sheet)
    failed = [cell for cell in cells if cell.picture is None]
    if as_json:
        emit({"sheet": str(sheet), "cells": [_document(cell) for cell in cells]})
    else:
        for cell in failed:
            reason = f"{cell.failure.code}: {cell.failure.message}" if cell.failure else "no picture"
            say(f"{cell.name}  {reason}", first="failed  ")
        click.echo(f"{len(cells) - len(failed)} of {len(cells)} painted; look at {sheet}")
    if failed:
        raise click.exceptions.Exit(JOB)


def _axes(given: Given) -> Axes:
    """The values of each axis, columns first; raises click.UsageError for none or three of them, or too many cells."""
    found = {
        "strength": given["strengths"],
        "guidance_scale": given["guidance"],
        "seed": given["seeds"],
        "style": given["styles"],
    }
    axes: Axes = {name: tuple(dict.fromkeys(values)) for name in _AXES if (values := found[name])}
    if not 1 <= len(axes) <= 2:
        raise click.UsageError(
            f"sweep one or two of --strengths, --guidance, --seeds and --style, not {len(axes) or 'none'}"
        )
    for name in ("strength", "guidance_scale"):
        if name in axes and given[name] is not None:
            raise click.UsageError(f"{_OPTIONS[name]} gives the values: leave out --{name.replace('_', '-')}")
    count = prod(map(len, axes.values()))
    if count > MAX_CELLS:
        raise click.UsageError(f"{count} cells; sweep at most {MAX_CELLS} at once")
    return axes


def _composed(producer: Producer, given: Given, values: Values) -> Cell:
    fixed = {**given, **{name: values[name] for name in ("strength", "guidance_scale") if name in values}}
    prompts = [styled(prompt, values["style"]) for prompt in given["prompts"] or ("",)] if "style" in values else None
    try:
        job = producer.compose(
            picture(given["source"]),
            passes_of(fixed, prompts or given["prompts"]),
            output=place(given["output"]),
            model=given["model"],
            option="--model",
            seed=values.get("seed", given["seed"]),
            prepare=prepare_of(given),
            priority=given["priority"],
            labels={**given["labels"], **{f"sweep.{name}": f"{value}"[:256] for name, value in values.items()}},
        )
    except InvalidJob as error:
        return Cell(values, error=error)
    return Cell(values, job)


def _submitted(producer: Producer, cell: Cell, key: str | None) -> Cell:
    if cell.job is None:
        return cell
    try:
        (handle,) = producer.submit_many({f"sweep/{cell.name}": cell.job}, idempotency_key=key)
    except (InvalidJob, ForbiddenReference) as error:
        return replace(cell, error=error)
    if handle.not_queued is not None:
        tell(f"accepted, but not queued yet: {handle.not_queued}; the keeper will queue it")
    return replace(cell, handle=handle)


def _finished(cell: Cell, record: Result | None, original: Image.Image | None) -> Cell:
    if cell.handle is None or record is None:
        return cell
    if record.status != "succeeded":
        return replace(cell, record=record)
    try:
        (painted,) = cell.handle.pictures()
    except OverpaintError as error:
        return replace(cell, record=record, error=error)
    change = None if original is None else mean_change(_seen(original, cell, painted.size), painted.convert("RGB"))
    painted.thumbnail((SIDE, SIDE), Image.Resampling.LANCZOS)
    return replace(cell, record=record, picture=painted, change=change)


def _seen(original: Image.Image, cell: Cell, size: tuple[int, int]) -> Image.Image:
    """What the picture was made of, at its size: after crop that is the middle of the source."""
    if cell.job is not None and cell.job.prepare.fit == "crop":
        return ImageOps.fit(original, size, Image.Resampling.LANCZOS)
    return original.resize(size, Image.Resampling.LANCZOS)


def _footer(cells: Sequence[Cell], axes: Axes, seed: int) -> str:
    """By what it was painted, and what the cells share of the settings that can be swept."""
    models = dict.fromkeys(model.name for cell in cells if cell.record for model in cell.record.models)
    sentences = [f"Painted by {', '.join(models)}."] if models else []
    painted = next((cell.record.job for cell in cells if cell.picture and cell.record), None)
    fixed = {"seed": seed}
    if painted is not None and len(painted.passes) == 1:
        fixed = {**painted.passes[0].model_dump(include={"strength", "guidance_scale"}), **fixed}
    shared = {name: value for name, value in fixed.items() if name not in axes}
    if shared:
        sentences.append(f"{words(shared).capitalize()}.")
    return " ".join((*sentences, "Change: mean difference from the source, 0 to 255."))


def _source(producer: Producer, source: str) -> Image.Image | None:
    """The source as it is seen; None where only the workers may read it."""
    try:
        body = producer.store.read(Reference.parse(picture(source)), limit=MAX_PICTURE_BYTES)
        with Image.open(io.BytesIO(body)) as opened:
            return ImageOps.exif_transpose(opened).convert("RGB")
    except (OverpaintError, OSError, SyntaxError, Image.DecompressionBombError):
        return None


def _document(cell: Cell) -> dict[str, Any]:
    record, failure = cell.record, cell.failure
    runs = record.variants[0].passes if record and record.variants else ()
    return {
        **cell.values,
        "id": cell.handle.id if cell.handle else None,
        "state": record.status if record else "refused",
        "effective_steps": sum(run.effective_steps for run in runs) if runs else None,
        "change": cell.change,
        "uri": record.outputs[0].uri if record and record.outputs else None,
        "error": failure.model_dump(mode="json") if failure else None,
    }
