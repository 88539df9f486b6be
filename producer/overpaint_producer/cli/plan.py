"""`overpaint plan`: what will run of a trajectory, before anything runs."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, TextIO

import click

from overpaint_producer.cli.display import emit
from overpaint_producer.cli.lists import FLOATS
from overpaint_producer.cli.options import as_json

if TYPE_CHECKING:
    from overpaint_common.job import Job
    from overpaint_common.plan import Stretch

FAMILY_NAMES = ("stable-diffusion", "stable-diffusion-xl", "flow-matching")
"""As in `overpaint_common.plan`, which help need not import."""

CHART = "overpaint-plan.png"
_WIDTH = 30
"""Characters of a bar in the terminal."""


@click.command()
@click.option("--steps", type=click.IntRange(1, 1000), default=50, show_default=True, help="Of the whole trajectory.")
@click.option(
    "--family",
    type=click.Choice(FAMILY_NAMES),
    default=FAMILY_NAMES[0],
    show_default=True,
    help="How the model counts: the first two round down, the last one up.",
)
@click.option("--strengths", type=FLOATS, metavar="S,S,...", help="Default: 0 to 1 by tenths.")
@click.option("--job", type=click.File(), metavar="FILE", help="The passes of a job as JSON instead; - reads stdin.")
@click.option(
    "--chart",
    type=click.Path(dir_okay=False, path_type=Path),
    default=CHART,
    show_default=True,
    metavar="FILE",
    help="Where to draw it, as PNG.",
)
@click.option("--no-chart", is_flag=True, help="Draw none.")
@as_json
def plan(
    steps: int,
    family: str,
    strengths: tuple[float, ...] | None,
    job: TextIO | None,
    chart: Path,
    no_chart: bool,
    as_json: bool,
) -> None:
    """Say how many denoising steps run at each strength, and draw it: strength against steps.

    Strength decides where on the trajectory a pass starts: at strength 0.6 of 50 steps the first 20 are skipped, and 30
    run. A strength that leaves no step is refused at submission. Needs no Redis, no storage and no worker.

    With --job it says what each pass of one variant runs; --steps counts for passes that leave theirs to the model.

    \b
    Examples:
      overpaint plan --steps 50
      overpaint plan --steps 28 --family flow-matching --chart flow.png
      overpaint plan --job job.json --no-chart
    """
    from overpaint_common.plan import FAMILIES, STRENGTHS, plan_job, stretches

    rule = FAMILIES[family]
    if job is None:
        title, axis = f"What runs of {steps} steps, by strength", "strength"
        wrong = next((each for each in strengths or () if not 0 <= each <= 1), None)
        if wrong is not None:
            raise click.UsageError(f"strength {wrong:g} is not between 0 and 1")
        planned = stretches(rule, steps, strengths or STRENGTHS)
    else:
        if strengths is not None:
            raise click.UsageError("--job brings its own strengths: leave out --strengths")
        title, axis = "What each pass runs", "pass"
        read = _read(job)
        planned = plan_job(read, rule, steps)
    file = None if no_chart else chart
    if file is not None:
        from overpaint_producer.chart import steps_chart

        steps_chart(title, axis, planned).save(file, format="PNG")
    if as_json:
        emit({"family": family, axis: [_document(each) for each in planned], "chart": str(file) if file else None})
        return
    _show(axis, planned)
    if job is not None:
        total = sum(each.running for each in planned)
        click.echo(
            f"{total} steps in each of {read.variants} variants" if read.variants > 1 else f"{total} steps in all"
        )
    if file is not None:
        click.echo(f"drawn in {file}", err=True)


def _read(file: TextIO) -> Job:
    """The job, whose model no plan needs."""
    from overpaint_common.job import MAX_JOB_BYTES, Job

    body = file.read(MAX_JOB_BYTES + 1)
    try:
        fields = json.loads(body)
    except (ValueError, RecursionError):
        return Job.parse(body)
    return Job.parse(json.dumps({"model": "any", **fields}) if isinstance(fields, dict) else body)


def _document(each: Stretch) -> dict[str, Any]:
    return {
        "label": each.label,
        "strength": each.strength,
        "steps": each.steps,
        "start_step": each.start,
        "effective_steps": each.running,
        "refused": each.refused,
    }


def _show(axis: str, planned: Sequence[Stretch]) -> None:
    width = max(len(axis), *(len(each.label) for each in planned))
    bars = max((each.steps for each in planned), default=0) or 1
    click.echo(f"{axis:>{width}}  {'start':>5}  {'runs':>4}")
    for each in planned:
        skipped = round(each.start * _WIDTH / bars)
        running = round(each.steps * _WIDTH / bars) - skipped
        bar = click.style("\u00b7" * skipped, dim=True) + click.style("\u2588" * running, fg="blue")
        note = ""
        if each.refused:
            note = click.style("  refused: runs nothing", fg="red")
        elif each.running == 0:
            note = "  the source itself" if each.steps else "no model"
        start = str(each.start) if each.running else "-"
        click.echo(f"{each.label:>{width}}  {start:>5}  {each.running:>4}  {bar}{note}")
