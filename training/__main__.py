"""`python -m training`: draw the data, train the models, export and measure them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import wraps
from pathlib import Path
from typing import Any, Final, Literal

import click
import torch

from training.export import bytes_of
from training.operations import train_controlnet, train_upscaler
from training.recipe import (
    Recipe,
    export_model,
    train_autoencoder,
    train_classifier,
    train_denoiser,
    write_report,
)
from training.scenes import SEEDS, attributes_of, draw
from training.sheets import save_grid
from training.train import Plan
from training.words import SHAPES, STYLES

StageName = Literal["autoencoder", "denoiser", "classifier", "controlnet", "upscaler_autoencoder", "upscaler"]
"""The fields of `Recipe` that are plans."""

SHARES: Final[dict[StageName, float]] = {
    "autoencoder": 0.15,
    "denoiser": 0.5,
    "controlnet": 0.11,
    "upscaler_autoencoder": 0.06,
    "upscaler": 0.18,
}
"""Of the minutes, when there is a limit; the classifier takes its steps whatever they cost."""


@dataclass(frozen=True, slots=True)
class Hardware:
    """What differs between a small machine and one with a GPU."""

    steps: dict[StageName, int]
    batches: dict[StageName, int]
    families: int
    sheet_every: int


RATES: Final[dict[StageName, float]] = {
    "autoencoder": 3e-3,
    "denoiser": 1.2e-3,
    "classifier": 2e-3,
    "controlnet": 1.2e-3,
    "upscaler_autoencoder": 2e-3,
    "upscaler": 2e-3,
}
_STEPS: Final[dict[StageName, int]] = {
    "classifier": 2_000, "controlnet": 6_000, "upscaler_autoencoder": 3_000, "upscaler": 12_000,
}  # fmt: skip
_CPU = Hardware(
    steps={**_STEPS, "autoencoder": 20_000, "denoiser": 30_000},
    batches={"autoencoder": 4, "denoiser": 16, "controlnet": 16, "upscaler": 16},
    families=12_000,
    sheet_every=1_500,
)
_GPU = Hardware(
    steps={**_STEPS, "autoencoder": 12_000, "denoiser": 40_000},
    batches={"autoencoder": 64, "denoiser": 256, "controlnet": 128, "upscaler": 128},
    families=50_000,
    sheet_every=2_000,
)


@click.group()
def main() -> None:
    """Train overpaint-mini, its ControlNet and its upscaler from nothing but this folder's own drawings.

    A run lives in one folder and goes on from its latest checkpoint when started again.

    \b
    Examples:
      python -m training sheet scenes.png
      python -m training all --seed 0 --minutes 280
      python -m training all --seed 0 --devices cuda --workers 14 --minutes 18
    """


def _options(*stages: StageName) -> Callable[[Callable[..., None]], Callable[..., None]]:
    """The options that every command shares, gathered into a recipe; `stages` are those that it trains."""

    def decorate(command: Callable[..., None]) -> Callable[..., None]:
        @wraps(command)
        def with_recipe(threads: int, run: Path, seed: int, minutes: float | None, devices: str, workers: int,
                        steps: int | None, **rest: Any) -> None:  # fmt: skip
            torch.set_num_threads(threads)
            try:
                command(recipe_of(stages, run, seed, minutes, devices, workers, steps), **rest)
            except FileNotFoundError as missing:
                raise click.ClickException(str(missing)) from None

        options = (
            click.option("--run", type=click.Path(file_okay=False, path_type=Path), default=Path("training/runs/mini"),
                         show_default=True, help="Folder of the run: checkpoints, logs, sheets, the model."),
            click.option("--seed", default=0, show_default=True,
                         help="Decides the data, the noise and the first weights."),
            click.option("--minutes", type=click.FloatRange(min=0, min_open=True), default=None,
                         help="Of training, drawing not counted, over all runs; shared out among the stages."),
            click.option("--devices", default="auto", show_default=True, help="auto, cpu, cuda or cuda:N."),
            click.option("--threads", type=click.IntRange(min=1), default=1, show_default=True,
                         help="Of torch, on CPU."),
            click.option("--workers", type=click.IntRange(min=0), default=1, show_default=True,
                         help="Processes that draw the scenes."),
            click.option("--steps", type=click.IntRange(min=1), default=None,
                         help="Of each stage. [default: by device]"),
        )  # fmt: skip
        wrapped: Callable[..., None] = with_recipe
        for option in reversed(options):
            wrapped = option(wrapped)
        return wrapped

    return decorate


def recipe_of(
    stages: tuple[StageName, ...],
    run: Path,
    seed: int,
    minutes: float | None,
    devices: str,
    workers: int,
    steps: int | None,
) -> Recipe:
    """The recipe of the shipped sizes for a device, `minutes` shared out among `stages` alone."""
    device = ("cuda" if torch.cuda.is_available() else "cpu") if devices == "auto" else devices
    hardware = _GPU if device.startswith("cuda") else _CPU
    torch.manual_seed(seed)
    shares = {stage: SHARES.get(stage, 0.0) for stage in stages}

    def plan(stage: StageName) -> Plan:
        limit = minutes * shares[stage] / sum(shares.values()) if minutes and shares.get(stage) else None
        return Plan(steps or hardware.steps[stage], RATES[stage], seed, limit, device, sheet_every=hardware.sheet_every)

    return Recipe(
        run,
        autoencoder=plan("autoencoder"),
        denoiser=plan("denoiser"),
        classifier=plan("classifier"),
        controlnet=plan("controlnet"),
        upscaler_autoencoder=plan("upscaler_autoencoder"),
        upscaler=plan("upscaler"),
        autoencoder_batch=hardware.batches["autoencoder"],
        denoiser_batch=hardware.batches["denoiser"],
        controlnet_batch=hardware.batches["controlnet"],
        upscaler_batch=hardware.batches["upscaler"],
        families=hardware.families,
        workers=workers,
    )


def _tell(folder: Path) -> None:
    click.echo(f"{folder}: {bytes_of(folder) / 1e6:.2f} MB")


@main.command("autoencoder")
@_options("autoencoder")
def _autoencoder(recipe: Recipe) -> None:
    """Train the autoencoder."""
    train_autoencoder(recipe)


@main.command("denoiser")
@_options("denoiser")
def _denoiser(recipe: Recipe) -> None:
    """Train the UNet and the text encoder on a finished autoencoder."""
    train_denoiser(recipe)


@main.command("export")
@_options()
def _export(recipe: Recipe) -> None:
    """Write the model folder from the latest checkpoints."""
    _tell(export_model(recipe))


@main.command("controlnet")
@_options("controlnet")
def _controlnet(recipe: Recipe) -> None:
    """Train the ControlNet for edges on the exported model, and write its folder."""
    _tell(train_controlnet(recipe))


@main.command("upscaler")
@_options("upscaler_autoencoder", "upscaler")
def _upscaler(recipe: Recipe) -> None:
    """Train the x4 upscaler on a finished autoencoder, and write its folder."""
    _tell(train_upscaler(recipe))


@main.command("classifier")
@_options("classifier")
def _classifier(recipe: Recipe) -> None:
    """Train the judge that the report needs."""
    train_classifier(recipe)


@main.command("report")
@click.option("--pictures", type=click.IntRange(min=6), default=100, show_default=True, help="Of each experiment.")
@click.option("--model", type=click.Path(file_okay=False, path_type=Path), help="[default: the run's own]")
@_options("classifier")
def _report(recipe: Recipe, pictures: int, model: Path | None) -> None:
    """Measure the model on held-out scenes; a table here, that and a sheet of pictures in <run>/report."""
    click.echo(write_report(recipe, pictures, model).table())


@main.command("all")
@click.option("--pictures", type=click.IntRange(min=6), default=100, show_default=True, help="As in `report`.")
@_options(*SHARES, "classifier")
def _all(recipe: Recipe, pictures: int) -> None:
    """Train everything, one stage after the other, export it and measure it."""
    train_autoencoder(recipe)
    train_denoiser(recipe)
    _tell(export_model(recipe))
    _tell(train_controlnet(recipe))
    _tell(train_upscaler(recipe))
    click.echo(write_report(recipe, pictures).table())


@main.command("sheet")
@click.argument("file", type=click.Path(dir_okay=False, path_type=Path))
@click.option("--side", default=64, show_default=True, help="Pixels of one scene.")
def _sheet(file: Path, side: int) -> None:
    """Draw a sheet of scenes to FILE: each shape in each style."""
    first = SEEDS["train"].start
    rows = [
        [
            draw(attributes_of(first + 10 * y + x).evolve(style=style, shape=shape), side).picture
            for x, shape in enumerate(SHAPES)
        ]
        for y, style in enumerate(STYLES)
    ]
    save_grid(rows, file)


if __name__ == "__main__":
    main()
