"""`overpaint up`: the local stack in the foreground."""

from __future__ import annotations

import os
import shlex
from pathlib import Path
from urllib.parse import urlsplit

import click

from overpaint_common.fleet import WorkerCard
from overpaint_producer.cli.program import program
from overpaint_producer.cli.signals import interruptible
from overpaint_producer.cli.terminal import say, tell
from overpaint_producer.local.redis import is_free
from overpaint_producer.local.scene import draw_scene
from overpaint_producer.local.stack import LocalStack

WATCH_EVERY = 0.5
"""Seconds between two looks at whether the worker and Redis still run."""


@click.command()
@click.argument("folder", default="overpaint-local", type=click.Path(file_okay=False, path_type=Path))
@click.option(
    "--port", type=click.IntRange(1, 65535), help="For Redis. Default: that of the last time, else a free one."
)
def up(folder: Path, port: int | None) -> None:
    """Run Redis, a store in FOLDER and one CPU worker, to develop against, until Ctrl-C. [default: ./overpaint-local]

    The settings that make a program part of it are printed, and written to FOLDER/overpaint.env to be sourced. Jobs
    may read FOLDER/in and write FOLDER/out. Nothing is lost by stopping it: the same folder goes on next time.
    OVERPAINT_REGISTRY and other settings of the worker are passed on.

    \b
    Example:
      overpaint up
      # then, in another terminal:
      source overpaint-local/overpaint.env
      overpaint submit overpaint-local/in/house.png overpaint-local/out \\
        --prompt "a blue house" --wait
    """
    stack = LocalStack(folder, redis_port=port or _last_port(folder), say=tell)
    with interruptible():
        card = stack.start()
        try:
            _write_files(stack)
            _explain(stack, card)
            while True:
                stack.watch(WATCH_EVERY)
        except KeyboardInterrupt:
            click.echo("\nstopping", err=True)
        finally:
            stack.stop()


def _write_files(stack: LocalStack) -> None:
    _env(stack.folder).write_text("\n".join(stack.exports) + "\n")
    picture = stack.inputs / "house.png"
    if not picture.exists():
        draw_scene().save(picture)


def _explain(stack: LocalStack, card: WorkerCard) -> None:
    here = Path(os.path.relpath(stack.folder))
    env, source, output = (shlex.quote(str(here / name)) for name in ("overpaint.env", "in/house.png", "out"))
    say(f"Overpaint is up: Redis at {stack.redis.url}, one worker on {card.device}, {', '.join(card.models)}.")
    click.echo("\n".join(stack.exports))
    click.echo(
        f"\nIn another terminal:\n"
        f"  source {env}\n"
        f"  {program()} submit {source} {output} \\\n"
        f'    --prompt "a green house, oil painting" --strength 0.8 --wait\n'
    )
    say(f"Ctrl-C here or SIGTERM ends it; {here} keeps everything for the next time.")


def _env(folder: Path) -> Path:
    return folder / "overpaint.env"


def _last_port(folder: Path) -> int | None:
    """The port that terminals opened earlier still point at, if it can be had again."""
    try:
        lines = _env(folder).read_text().splitlines()
        words = next(shlex.split(line) for line in lines if "OVERPAINT_REDIS_URL=" in line)
        port = urlsplit(words[-1].partition("=")[2]).port
    except (OSError, StopIteration, ValueError):
        return None
    return port if port is not None and is_free(port) else None
