"""`overpaint submit`: one job from options, or whole from JSON."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any, TextIO, get_args

import click
from click.core import ParameterSource

from overpaint_common.job import MAX_JOB_BYTES, PRIORITIES, Job, PictureFormat, Prepare
from overpaint_producer.cli.display import emit, show_record
from overpaint_producer.cli.exits import JOB
from overpaint_producer.cli.follow import follow
from overpaint_producer.cli.options import as_json
from overpaint_producer.producer import Producer

if TYPE_CHECKING:
    from overpaint_producer.handle import JobHandle

WITH_JOB = {"job", "key", "wait", "as_json"}
"""What goes together with --job; everything else describes a job itself."""


def _labels(context: click.Context, parameter: click.Parameter, values: tuple[str, ...]) -> dict[str, str]:
    pairs = [value.partition("=") for value in values]
    wrong = next((name for name, equals, _ in pairs if not equals), None)
    if wrong is not None:
        raise click.BadParameter(f"{wrong!r} has no value; write NAME=VALUE", context, parameter)
    return {name: value for name, _, value in pairs}


@click.command()
@click.argument("source", required=False)
@click.argument("output", required=False)
@click.option("--prompt", "-p", help='What the picture should become; "" leaves it to the model.')
@click.option("--strength", "-s", type=float, default=0.5, show_default=True, help="0 keeps the source, 1 paints anew.")
@click.option("--steps", type=int, metavar="N", help="Of the whole trajectory; strength decides how many run.")
@click.option("--guidance-scale", "-g", type=float, help="How strongly the prompt pulls; 1 and below: not at all.")
@click.option("--negative-prompt", "-n", default="", help="What to keep away from.")
@click.option("--seed", type=int, help="Same job, same seed, same picture. Default: derived from the id.")
@click.option("--variants", type=int, default=1, show_default=True, help="Pictures to make, each with its own seed.")
@click.option("--model", "-m", help="A name from the workers' registry. Default: the only one there is.")
@click.option("--format", "file_format", type=click.Choice(get_args(PictureFormat)), default="png", show_default=True)
@click.option(
    "--fit",
    type=click.Choice(get_args(Prepare.model_fields["fit"].annotation)),
    default="pad",
    show_default=True,
    help="How the source meets the model's size.",
)
@click.option("--size", type=int, metavar="PIXELS", help="Side to fit to. Default: the model's native size.")
@click.option(
    "--priority",
    type=click.Choice(PRIORITIES),
    default="standard",
    show_default=True,
    help="Which job is begun first; an urgent one interrupts, for its own time, one that is not.",
)
@click.option("--label", "labels", multiple=True, callback=_labels, metavar="NAME=VALUE", help="Kept in the record.")
@click.option("--key", metavar="TEXT", help="Idempotency key: sending the same job again gives the first one back.")
@click.option(
    "--job",
    type=click.File(),
    metavar="FILE",
    help="A whole job as JSON instead of options; - reads stdin. docs/protocol.md shows one.",
)
@click.option("--wait", is_flag=True, help="Follow the job to its end, as `overpaint wait` does.")
@as_json
def submit(job: TextIO | None, key: str | None, wait: bool, as_json: bool, **given: Any) -> None:
    """Send the picture SOURCE to be repainted; the pictures go below OUTPUT. Prints the job's id.

    Both are s3://bucket/key or file:///path references; a plain path means a file here, for workers that share this
    machine's disk. The workers' operator says which places they may read and write.

    \b
    Examples:
      overpaint submit s3://photos/cat.jpg s3://pictures/ --prompt "a cat, watercolor" --strength 0.6
      overpaint submit photos/cat.jpg pictures --prompt "a cat in snow" --variants 4 --wait
      overpaint submit --job job.json --key order-1234
    """
    with Producer() as producer:
        handle = _from_json(producer, job, key) if job else _from_options(producer, key, given)
        if handle.not_queued is not None:
            click.echo(f"accepted, but not queued yet: {handle.not_queued}; the keeper will queue it", err=True)
        if not wait:
            _announce(handle, "queued" if handle.not_queued is None else "accepted", as_json)
            return
        if not as_json:
            click.echo(handle.id, err=True)
        record = follow(handle, as_json=as_json)
        if not as_json:
            show_record(record)
    if record.status != "succeeded":
        raise click.exceptions.Exit(JOB)


def _from_json(producer: Producer, file: TextIO, key: str | None) -> JobHandle:
    context = click.get_current_context()
    both = [
        parameter.opts[0]
        for parameter in context.command.params
        if parameter.name not in WITH_JOB
        and parameter.name is not None
        and context.get_parameter_source(parameter.name) is ParameterSource.COMMANDLINE
    ]
    if both:
        raise click.UsageError(f"--job brings the whole job: leave out {', '.join(both)}, or write it into the JSON")
    body = file.read(MAX_JOB_BYTES + 1)
    return producer.submit(Job.parse(_with_model(producer, body)), idempotency_key=key)


def _with_model(producer: Producer, body: str) -> str:
    """The job as it is, or with the fleet's only model where it names none."""
    try:
        job = json.loads(body)
    except (ValueError, RecursionError):
        return body  # Job.parse says what is wrong with it.
    if not isinstance(job, dict) or "model" in job:
        return body
    return json.dumps({**job, "model": producer.only_model(option='"model" in the job')})


def _from_options(producer: Producer, key: str | None, given: dict[str, Any]) -> JobHandle:
    source, output, prompt = given["source"], given["output"], given["prompt"]
    if source is None or output is None:
        raise click.UsageError("name the SOURCE picture and the OUTPUT folder, or give a whole job with --job")
    if prompt is None:
        raise click.UsageError('say what the picture should become: --prompt "a cat, watercolor"')
    if "://" not in source and not Path(source).is_file():
        if Path(source).is_dir():
            raise click.UsageError(f"{source!r} is a folder; name one picture in it")
        raise click.UsageError(f"there is no file {source!r}; an object in S3 is written s3://bucket/key")
    return producer.img2img(
        _place(source),
        prompt=prompt,
        output=_place(output),
        strength=given["strength"],
        model=given["model"] or producer.only_model(option="--model"),
        negative_prompt=given["negative_prompt"],
        steps=given["steps"],
        guidance_scale=given["guidance_scale"],
        seed=given["seed"],
        variants=given["variants"],
        format=given["file_format"],
        idempotency_key=key,
        prepare={"fit": given["fit"], "size": given["size"]},
        priority=given["priority"],
        labels=given["labels"],
    )


def _place(text: str) -> str | Path:
    return text if "://" in text else Path(text)


def _announce(handle: JobHandle, state: str, as_json: bool) -> None:
    if as_json:
        emit({"id": handle.id, "state": state})
    else:
        click.echo(handle.id)
