"""`overpaint demo`: one picture, repainted many ways, on one page."""

from __future__ import annotations

import os
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import click
from PIL import Image

from overpaint_common.errors import WaitTimeout
from overpaint_common.result import Result
from overpaint_producer.cli.board import board
from overpaint_producer.cli.display import show_record
from overpaint_producer.cli.exits import JOB
from overpaint_producer.cli.program import program
from overpaint_producer.cli.save import save_picture
from overpaint_producer.cli.signals import interruptible
from overpaint_producer.cli.terminal import tell
from overpaint_producer.handle import JobHandle
from overpaint_producer.local.scene import draw_scene
from overpaint_producer.local.stack import LocalStack
from overpaint_producer.producer import Producer
from overpaint_producer.sheet import Row, Tile, contact_sheet, mean_change, save_sheet

MODEL = "overpaint-mini"
SEED = 8
FOOTER = (
    "{size} pixels, enlarged. Change: mean difference from the source, 0 to 255. {model} has a few megabytes and runs "
    "on any CPU: it shows that the parts work together, not what a large model paints."
)
JOB_LIMIT = 300.0
"""Seconds for one job; on a slow laptop it takes a few."""


@dataclass(frozen=True, slots=True)
class Shot:
    """One job of the demo."""

    name: str
    """Of its picture's file."""
    prompt: str
    strength: float
    seed: int = SEED


PROMPT = "a blue house on grass, oil painting"
STRENGTHS = tuple(Shot(f"strength-{strength:.1f}", PROMPT, strength) for strength in (0, 0.2, 0.4, 0.6, 0.8, 1.0))
STYLES = tuple(
    Shot(name, f"a red house on grass, {words}", 0.8)
    for name, words in (
        ("flat", "flat"),
        ("oil", "oil painting"),
        ("pencil", "pencil sketch"),
        ("watercolor", "watercolor"),
        ("pixel", "pixel art"),
        ("neon", "neon"),
    )
)


@click.command()
@click.argument("folder", default="overpaint-demo", type=click.Path(file_okay=False, path_type=Path))
def demo(folder: Path) -> None:
    """Repaint a bundled picture at several strengths and in several styles. [default FOLDER: ./overpaint-demo]

    Starts a real Redis, a store in FOLDER and one worker on this machine's CPU, with the small model that ships with
    Overpaint; ends them again, and keeps the pictures, their records and one contact sheet to look at. Needs
    `pip install 'overpaint[worker,local]'`, no GPU and no network. Run it as often as you like.

    \b
    Example:
      overpaint demo
    """
    began = time.monotonic()
    own = {name: value for name, value in os.environ.items() if not name.startswith("OVERPAINT_")}
    stack = LocalStack(folder, environment=own, say=tell)
    with interruptible(), stack, Producer(stack.settings) as producer:
        source = stack.inputs / "house.png"
        draw_scene().save(source)
        shots = (*STRENGTHS, *STYLES)
        handles = [_submit(producer, stack, source, shot) for shot in shots]
        records = _follow(stack, shots, handles)
        made = {
            shot.name: _fetched(producer, stack, shot, record)
            for shot, record in zip(shots, records, strict=True)
            if record.status == "succeeded"
        }
        sheet = stack.folder / "contact-sheet.png"
        save_sheet(_sheet(source, made), sheet)
    for record in records:
        if record.status != "succeeded":
            show_record(record)
    here = Path(os.path.relpath(stack.folder))
    click.echo(
        f"{len(made)} of {len(shots)} jobs succeeded; {time.monotonic() - began:.0f} s in all, start-up included."
    )
    click.echo(f"  look at   {here / sheet.name}")
    click.echo(f"  pictures  {here / 'pictures'}")
    click.echo(f"  records   {here / 'out'}, one result.json a job")
    click.echo(f"Next: `{program()} up` keeps this running, to submit pictures of your own.")
    if len(made) < len(shots):
        raise click.exceptions.Exit(JOB)


def _submit(producer: Producer, stack: LocalStack, source: Path, shot: Shot) -> JobHandle:
    return producer.img2img(
        source.as_uri(),
        prompt=shot.prompt,
        strength=shot.strength,
        model=MODEL,
        seed=shot.seed,
        output=stack.outputs.as_uri(),
        labels={"demo": shot.name},
    )


def _follow(stack: LocalStack, shots: Sequence[Shot], handles: Sequence[JobHandle]) -> list[Result]:
    records = []
    with board([shot.name for shot in shots]) as shown:
        for shot, handle in zip(shots, handles, strict=True):
            until = time.monotonic() + JOB_LIMIT
            while not (moment := handle.status()).finished:
                shown.see(shot.name, moment)
                if time.monotonic() > until:
                    raise WaitTimeout(f"{shot.name} did not finish within {JOB_LIMIT:g} s; see {stack.worker_log}")
                stack.watch(0.1)
            shown.see(shot.name, moment)
            records.append(handle.result())
    return records


def _fetched(producer: Producer, stack: LocalStack, shot: Shot, record: Result) -> tuple[Result, Image.Image]:
    file = stack.folder / "pictures" / f"{shot.name}.png"
    file.parent.mkdir(exist_ok=True)
    save_picture(producer.store, record.outputs[0], file)
    with Image.open(file) as picture:
        return record, picture.convert("RGB")


def _sheet(source: Path, made: dict[str, tuple[Result, Image.Image]]) -> Image.Image:
    with Image.open(source) as opened:
        original = opened.convert("RGB")

    def tiles(shots: Sequence[Shot], caption: str) -> list[Tile]:
        return [
            Tile(picture, caption.format(shot=shot), _detail(record, shot, picture, original))
            for shot in shots
            if shot.name in made
            for record, picture in [made[shot.name]]
        ]

    return contact_sheet(
        f"One picture, repainted by {MODEL}",
        [
            Row(f'"{PROMPT}", at growing strength', tiles(STRENGTHS, "strength {shot.strength:g}")),
            Row("The same picture in each style that the model knows", tiles(STYLES, "{shot.prompt}")),
        ],
        footer=FOOTER.format(size=f"{original.width} x {original.height}", model=MODEL),
    )


def _detail(record: Result, shot: Shot, picture: Image.Image, original: Image.Image) -> str:
    change = mean_change(picture, original)
    if record.passthrough:
        return "the source, pixel for pixel" if change == 0 else f"change {change:.0f}"
    run = record.variants[0].passes[0]
    how = f"{run.effective_steps} of {run.steps} steps" if shot in STRENGTHS else f"strength {shot.strength:g}"
    return f"{how}, change {change:.0f}"
