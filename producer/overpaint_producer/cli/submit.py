"""`overpaint submit`: one job from options, one for each of several styles, or one whole from JSON."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any, TextIO, get_args

import click
from click.core import ParameterSource

from overpaint_common.job import MAX_JOB_BYTES, PRIORITIES, Job, PictureFormat
from overpaint_common.presets import preset
from overpaint_producer.cli.board import follow_each
from overpaint_producer.cli.candidates import files
from overpaint_producer.cli.display import emit, record_as_json, show_record
from overpaint_producer.cli.exits import JOB
from overpaint_producer.cli.follow import follow
from overpaint_producer.cli.lists import FLOATS, labels
from overpaint_producer.cli.options import as_json
from overpaint_producer.cli.painting import Given, painting_options, passes_of, picture, place, prepare_of, uploaded
from overpaint_producer.cli.sections import Sectioned, option, options
from overpaint_producer.cli.terminal import tell
from overpaint_producer.compose import styled
from overpaint_producer.handle import JobHandle
from overpaint_producer.producer import Producer

WITH_JOB = {"job", "key", "wait", "as_json"}
"""What goes together with --job; everything else describes a job itself."""

_MADE = options(
    "What is made",
    option(
        "--strengths",
        type=FLOATS,
        metavar="S,S,...",
        help="Refine: a pass for each strength, such as 0.6,0.4,0.2, each from the picture before.",
    ),
    option("--variants", type=int, metavar="N", help="Pictures to make, each with its own seed. Default: 1."),
    option("--seed", type=int, metavar="N", help="Same job, same seed, same picture. Default: made of the id."),
    option("--format", "format", type=click.Choice(get_args(PictureFormat)), default="png", show_default=True),
    option("--quality", type=int, metavar="1..100", help="Of jpeg and webp. Default: 90."),
    option(
        "--name",
        metavar="TEMPLATE",
        help="Publish each picture below OUTPUT, once it is done, as this: {stem}-{variant}.png. Other fields: {seed}, "
        "{id}, {model}, {format}, {label:NAME}.",
    ),
    option("--exact-size", is_flag=True, help="Pictures of the source's exact size. Default: the model's."),
    option("--save-passes", is_flag=True, help="Store the picture after each pass too."),
    option("--previews", is_flag=True, help="Small ones while it is painted; `overpaint status --preview` saves one."),
    option("--reproducible", is_flag=True, help="So that `overpaint replay` finds the same pixels; may be slower."),
)

_SENT = options(
    "How it is sent",
    option(
        "--priority",
        type=click.Choice(PRIORITIES),
        default="standard",
        show_default=True,
        help="An urgent job interrupts, for its own time, one that is not.",
    ),
    option("--label", "labels", multiple=True, callback=labels, metavar="NAME=VALUE", help="Kept in the record."),
    option(
        "--upload",
        metavar="PREFIX",
        help="First put pictures that are files here below this, where workers may read them.",
    ),
    option("--key", metavar="TEXT", help="Idempotency key: sending the same again gives the first job back."),
    option(
        "--job",
        type=click.File(),
        metavar="FILE",
        help="A whole job as JSON instead of options; - reads stdin. docs/protocol.md shows one.",
    ),
    option("--wait", is_flag=True, help="Follow the job to its end, as `overpaint wait` does."),
)


@click.command(cls=Sectioned)
@click.argument("source", required=False, shell_complete=files)
@click.argument("output", required=False, shell_complete=files)
@painting_options("Words about the manner, put behind the prompt. Repeated: a job for each.")
@_MADE
@_SENT
@as_json
def submit(job: TextIO | None, key: str | None, wait: bool, as_json: bool, **given: Any) -> None:
    """Send the picture SOURCE to be repainted; the pictures go below OUTPUT. Prints the job's id.

    Both are s3://bucket/key or file:///path references; a plain path means a file here, for workers that share this
    machine's disk. The workers' operator says which places they may read and write.

    \b
    Examples:
      overpaint submit s3://photos/cat.jpg s3://out/ -p "a cat, watercolor" -s 0.6
      overpaint submit cat.jpg out --prompt "a cat in snow" --variants 4 --wait
      overpaint submit cat.jpg out -p "a cat" --style oils --style "pencil sketch"
      overpaint submit cat.jpg out -p "a cat in oils" --strengths 0.6,0.4,0.2
      overpaint submit cat.jpg out -p "a red collar" --mask collar.png --feather 4
      overpaint submit cat.jpg s3://out/ -p "a cat" --upload s3://photos/in/
      overpaint submit cat.jpg out -p "a cat" --name "{stem}-{variant}.png"
      overpaint submit --job job.json --key order-1234
    """
    with Producer() as producer:
        handles = _from_options(producer, key, given) if job is None else {"": _from_json(producer, job, key)}
        for handle in handles.values():
            if handle.not_queued is not None:
                tell(f"accepted, but not queued yet: {handle.not_queued}; the keeper will queue it")
        if not wait:
            for style, handle in handles.items():
                _announce(handle, style, as_json)
            return
        succeeded = _follow_one(handles[""], as_json) if "" in handles else _follow_several(handles, as_json)
    if not succeeded:
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


def _from_options(producer: Producer, key: str | None, given: Given) -> dict[str, JobHandle]:
    """The jobs by their styles; one without a style by an empty name."""
    if given["source"] is None or given["output"] is None:
        raise click.UsageError("name the SOURCE picture and the OUTPUT folder, or give a whole job with --job")
    prompts, styles = given["prompts"], given["styles"]
    if not prompts and not styles:
        raise click.UsageError('say what the picture should become: --prompt "a cat, watercolor"')
    if given["upload"] is not None:
        prefix = place(given["upload"])
        given = uploaded(given, lambda file: producer.upload(file, prefix))
    if not styles:
        return {"": producer.submit(_composed(producer, given, prompts), idempotency_key=key)}
    manners = [[styled(prompt, style) for prompt in prompts or ("",)] for style in styles]
    jobs = {f"style/{i}": _composed(producer, given, each, {"style": str(i)}) for i, each in enumerate(manners)}
    return dict(zip(_apart(styles), producer.submit_many(jobs, idempotency_key=key), strict=True))


def _apart(styles: tuple[str, ...]) -> list[str]:
    """The styles, numbered where one comes twice."""
    return [style if styles.count(style) == 1 else f"{style} ({i})" for i, style in enumerate(styles)]


def _composed(
    producer: Producer, given: Given, prompts: list[str] | tuple[str, ...], more_labels: Mapping[str, str] | None = None
) -> Job:
    chosen = preset(given["preset"]).variants if given["preset"] else 1
    fields: dict[str, Any] = {
        "seed": given["seed"],
        "variants": chosen if given["variants"] is None else given["variants"],
        "format": given["format"],
        "size": "source" if given["exact_size"] else "model",
        "intermediates": given["save_passes"],
        "previews": given["previews"],
        "prepare": prepare_of(given),
        "priority": given["priority"],
        "labels": {**given["labels"], **(more_labels or {})},
        "reproducible": given["reproducible"],
    }
    fields |= {name: given[name] for name in ("quality", "name") if given[name] is not None}
    return producer.compose(
        picture(given["source"]),
        passes_of(given, prompts, given["strengths"] or ()),
        output=place(given["output"]),
        model=given["model"],
        option="--model",
        **fields,
    )


def _follow_one(handle: JobHandle, as_json: bool) -> bool:
    if not as_json:
        click.echo(handle.id, err=True)
    record = follow(handle, as_json=as_json)
    if not as_json:
        show_record(record)
    return record.status == "succeeded"


def _follow_several(handles: Mapping[str, JobHandle], as_json: bool) -> bool:
    records = follow_each(handles)
    for style, record in records.items():
        if as_json:
            emit({"style": style, **record_as_json(record)})
        else:
            show_record(record)
    return all(record.status == "succeeded" for record in records.values())


def _announce(handle: JobHandle, style: str, as_json: bool) -> None:
    if as_json:
        state = "queued" if handle.not_queued is None else "accepted"
        emit({"id": handle.id, "state": state, **({"style": style} if style else {})})
    else:
        click.echo(handle.id)
