"""`python -m training`: draw the data, train the model, export it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

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

_AUTOENCODER_SHARE = 0.35
"""Of the minutes, when there is a limit."""
_UPSCALER_AUTOENCODER_SHARE = 0.25
"""Of the minutes of `upscaler`."""
_CONTROLNET_RATE, _UPSCALER_RATE = 1.2e-3, 2e-3
_OPERATION_SHEET = 1_000
"""Steps between the sheets of the ControlNet and the upscaler."""


@dataclass(frozen=True, slots=True)
class Hardware:
    """What differs between a small machine and one with a GPU."""

    autoencoder_steps: int
    autoencoder_batch: int
    autoencoder_rate: float
    denoiser_steps: int
    denoiser_batch: int
    denoiser_rate: float
    families: int
    sheet_every: int
    classifier_steps: int = 2_000
    controlnet_steps: int = 6_000
    upscaler_autoencoder_steps: int = 3_000
    upscaler_steps: int = 12_000


_CPU = Hardware(20_000, 4, 3e-3, 20_000, 16, 1.2e-3, 12_000, 1_500)
_GPU = Hardware(12_000, 64, 3e-3, 40_000, 256, 2e-3, 50_000, 2_000)


@click.group()
def main() -> None:
    """Train overpaint-mini from nothing but this folder's own drawings.

    A run lives in one folder and goes on from its latest checkpoint when started again.

    \b
    Examples:
      python -m training sheet scenes.png
      python -m training all --seed 0 --minutes 150 --threads 2
      python -m training all --seed 0 --devices cuda --workers 14 --minutes 18
    """


def _options(command: Callable[..., None]) -> Callable[..., None]:
    """The options that every stage shares, gathered into a recipe."""

    def with_recipe(
        run: Path,
        seed: int,
        minutes: float | None,
        devices: str,
        threads: int,
        workers: int,
        steps: int | None,
        **rest: Any,
    ) -> None:
        torch.set_num_threads(threads)
        try:
            command(_recipe(run, seed, minutes, devices, workers, steps), **rest)
        except FileNotFoundError as missing:
            raise click.ClickException(str(missing)) from None

    options = (
        click.option("--run", type=click.Path(file_okay=False, path_type=Path), default=Path("training/runs/mini"),
                     show_default=True, help="Folder of the run: checkpoints, logs, sheets, the model."),
        click.option("--seed", default=0, show_default=True, help="Decides the data, the noise and the first weights."),
        click.option("--minutes", type=click.FloatRange(min=0, min_open=True), default=None,
                     help="Of training in all, drawing not counted; 0.35 of it is the autoencoder's."),
        click.option("--devices", default="auto", show_default=True, help="auto, cpu, cuda or cuda:N."),
        click.option("--threads", type=click.IntRange(min=1), default=1, show_default=True, help="Of torch, on CPU."),
        click.option("--workers", type=click.IntRange(min=0), default=1, show_default=True,
                     help="Processes that draw the scenes."),
        click.option("--steps", type=click.IntRange(min=1), default=None, help="Of each stage. [default: by device]"),
    )  # fmt: skip
    wrapped: Callable[..., None] = with_recipe
    wrapped.__doc__, wrapped.__name__ = command.__doc__, command.__name__
    for option in reversed(options):
        wrapped = option(wrapped)
    return wrapped


def _recipe(run: Path, seed: int, minutes: float | None, devices: str, workers: int, steps: int | None) -> Recipe:
    device = ("cuda" if torch.cuda.is_available() else "cpu") if devices == "auto" else devices
    size = _GPU if device.startswith("cuda") else _CPU
    torch.manual_seed(seed)
    first, second = (_share(minutes, share) for share in (_AUTOENCODER_SHARE, 1 - _AUTOENCODER_SHARE))
    return Recipe(
        run,
        classifier=Plan(steps or size.classifier_steps, 2e-3, seed, device=device),
        controlnet=Plan(
            steps or size.controlnet_steps, _CONTROLNET_RATE, seed, minutes, device, sheet_every=_OPERATION_SHEET
        ),
        upscaler_autoencoder=Plan(
            steps or size.upscaler_autoencoder_steps,
            _UPSCALER_RATE,
            seed,
            _share(minutes, _UPSCALER_AUTOENCODER_SHARE),
            device,
            sheet_every=_OPERATION_SHEET,
        ),
        upscaler=Plan(
            steps or size.upscaler_steps,
            _UPSCALER_RATE,
            seed,
            _share(minutes, 1 - _UPSCALER_AUTOENCODER_SHARE),
            device,
            sheet_every=_OPERATION_SHEET,
        ),
        autoencoder=Plan(
            steps or size.autoencoder_steps, size.autoencoder_rate, seed, first, device, sheet_every=size.sheet_every
        ),
        denoiser=Plan(
            steps or size.denoiser_steps, size.denoiser_rate, seed, second, device, sheet_every=size.sheet_every
        ),
        autoencoder_batch=size.autoencoder_batch,
        denoiser_batch=size.denoiser_batch,
        families=size.families,
        workers=workers,
    )


def _share(minutes: float | None, share: float) -> float | None:
    return None if minutes is None else minutes * share


@main.command("autoencoder")
@_options
def _autoencoder(recipe: Recipe) -> None:
    """Train the autoencoder."""
    train_autoencoder(recipe)


@main.command("denoiser")
@_options
def _denoiser(recipe: Recipe) -> None:
    """Train the UNet and the text encoder on a finished autoencoder."""
    train_denoiser(recipe)


@main.command("export")
@_options
def _export(recipe: Recipe) -> None:
    """Write the model folder from the latest checkpoints."""
    folder = export_model(recipe)
    click.echo(f"{folder}: {bytes_of(folder) / 1e6:.2f} MB")


@main.command("controlnet")
@_options
def _controlnet(recipe: Recipe) -> None:
    """Train the ControlNet for edges on the exported model, and write its folder."""
    folder = train_controlnet(recipe)
    click.echo(f"{folder}: {bytes_of(folder) / 1e6:.2f} MB")


@main.command("upscaler")
@_options
def _upscaler(recipe: Recipe) -> None:
    """Train the x4 upscaler on a finished autoencoder, and write its folder."""
    folder = train_upscaler(recipe)
    click.echo(f"{folder}: {bytes_of(folder) / 1e6:.2f} MB")


@main.command("classifier")
@_options
def _classifier(recipe: Recipe) -> None:
    """Train the judge that the report needs."""
    train_classifier(recipe)


@main.command("report")
@click.option("--pictures", type=click.IntRange(min=6), default=100, show_default=True, help="Of each experiment.")
@click.option("--model", type=click.Path(file_okay=False, path_type=Path), help="[default: the run's own]")
@_options
def _report(recipe: Recipe, pictures: int, model: Path | None) -> None:
    """Measure the model on held-out scenes; a table here, that and a sheet of pictures in <run>/report."""
    click.echo(write_report(recipe, pictures, model).table())


@main.command("all")
@_options
def _all(recipe: Recipe) -> None:
    """Train the autoencoder, then the denoiser, and export the model."""
    train_autoencoder(recipe)
    train_denoiser(recipe)
    folder = export_model(recipe)
    click.echo(f"{folder}: {bytes_of(folder) / 1e6:.2f} MB")


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
