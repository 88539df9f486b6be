"""The page of a sweep: what each cell is, and how they are laid out."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from PIL import Image, ImageDraw, ImageFont

from overpaint_common.errors import OverpaintError
from overpaint_common.job import Job
from overpaint_common.result import Failure, Result
from overpaint_producer.handle import JobHandle
from overpaint_producer.sheet import Row, Tile, contact_sheet

SIDE = 224
"""Pixels of a picture on the sheet."""

MOST_COLUMNS = 8
"""Pictures beside each other; a longer row goes on in the next line."""

_LONGEST_REASON = 120
"""Characters of an error in a cell."""

Values = Mapping[str, Any]
"""What a cell has of each axis that is swept."""


@dataclass(frozen=True, slots=True)
class Cell:
    """One place of the sheet: what it shows, and what became of it."""

    values: Values
    job: Job | None = None
    handle: JobHandle | None = None
    record: Result | None = None
    picture: Image.Image | None = None
    """Not larger than the sheet shows it."""
    change: float | None = None
    """Mean difference from the source, 0 to 255; None where that is not known."""
    error: OverpaintError | None = None
    """Why it was refused, or why its picture cannot be had."""

    @property
    def name(self) -> str:
        return words(self.values)

    @property
    def failure(self) -> Failure | None:
        """Why there is no picture."""
        if self.error is not None:
            return Failure.of(self.error)
        if self.record is None or self.record.status == "succeeded":
            return None
        status = self.record.status
        return self.record.failure or Failure(code=status, message=f"the job {status}", retryable=False)


Axes = Mapping[str, Sequence[Any]]
"""The values of what is swept: the columns, and the rows where there are two."""


def grid(axes: Axes) -> tuple[list[Values], list[Values]]:
    """What the columns and what the rows have of their axes; one empty row where only one axis is swept."""
    first, *second = axes.items()
    columns: list[Values] = [{first[0]: value} for value in first[1]]
    rows: list[Values] = [{name: value} for name, values in second for value in values]
    return columns, rows or [{}]


def page(title: str, axes: Axes, cells: Sequence[Cell], original: Image.Image | None, *, footer: str) -> Image.Image:
    """Lay the cells out, row by row, each row behind the source where that is known."""
    columns, rows = grid(axes)
    laid = []
    for number, row in enumerate(rows):
        own = cells[number * len(columns) : (number + 1) * len(columns)]
        tiles = [
            Tile(cell.picture or _blank(), words(column), _detail(cell))
            for cell, column in zip(own, columns, strict=True)
        ]
        if original is not None:
            tiles.insert(0, Tile(original, "the source", f"{original.width} x {original.height} pixels"))
        lines = [tiles[at : at + MOST_COLUMNS] for at in range(0, len(tiles), MOST_COLUMNS)]
        laid += [Row(words(row) if line is lines[0] else "", line) for line in lines]
    return contact_sheet(title, laid, footer=footer, side=SIDE)


def words(values: Values) -> str:
    """How a cell is called: `strength 0.4, guidance 7`."""
    return ", ".join(_word(name, value) for name, value in values.items())


def _word(name: str, value: Any) -> str:
    if name == "style":
        return str(value)
    return f"{name.removesuffix('_scale')} {value:.12g}"


def _detail(cell: Cell) -> str:
    if cell.failure is not None:
        message = cell.failure.message
        return (
            f"{cell.failure.code}: {message if len(message) <= _LONGEST_REASON else f'{message[:_LONGEST_REASON]}...'}"
        )
    parts = []
    if cell.record is not None and cell.record.passthrough:
        parts.append("the source itself")
    elif cell.record is not None:
        runs = [run for run in cell.record.variants[0].passes if run.steps]
        parts.append(f"{sum(run.effective_steps for run in runs)} of {sum(run.steps for run in runs)} steps")
    if cell.change is not None:
        parts.append(f"change {cell.change:.0f}")
    return ", ".join(parts)


def _blank() -> Image.Image:
    blank = Image.new("RGB", (SIDE, SIDE), (236, 233, 227))
    draw = ImageDraw.Draw(blank)
    draw.text((SIDE // 2, SIDE // 2), "no picture", font=ImageFont.load_default(18), fill=(176, 58, 46), anchor="mm")
    return blank
