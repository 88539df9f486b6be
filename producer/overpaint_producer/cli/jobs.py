"""`overpaint status`, `wait`, `result` and `cancel`: what to do with the id of a job."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import click

from overpaint_producer.cli.display import coloured, emit, moment_as_json, show_moment, show_record
from overpaint_producer.cli.durations import Duration
from overpaint_producer.cli.exits import INTERRUPTED, JOB, Fault
from overpaint_producer.cli.options import as_json, find_job, job_id, job_ids
from overpaint_producer.cli.terminal import tell
from overpaint_producer.cli.text import printable

AT_ONCE = 16
"""Jobs that are cancelled side by side."""

LONGEST_URL = 7 * 24 * 60 * 60
"""Seconds that S3 signs for. Written out, so that the help need not wait for the stores to be imported."""


@click.command()
@job_id
@click.option(
    "--preview",
    type=click.Path(dir_okay=False, path_type=Path),
    metavar="FILE",
    help="Save the newest preview, a small WebP, of a running job that was submitted with --previews.",
)
@as_json
def status(job_id: str, preview: Path | None, as_json: bool) -> None:
    """Say where a job is now: queued, running at which step, or how it ended.

    The time left is of the painting, at the pace of the steps before. Exits 0 whatever the answer is, 2 for an id that
    nobody submitted.

    \b
    Examples:
      overpaint status 5ac0f3a24e1c0c6c6b1d1e8e2f7a9b10
      overpaint status 5ac0f3a24e1c0c6c6b1d1e8e2f7a9b10 --preview now.webp
    """
    from overpaint_producer.producer import Producer

    with Producer() as producer:
        handle = find_job(producer, job_id)
        moment = handle.status()
        shown = None if preview is None else handle.preview()
    if preview is not None and shown is not None:
        preview.write_bytes(shown)
        click.echo(f"saved {preview}", err=True)
    elif preview is not None:
        click.echo(f"there is no preview at the moment; {preview} was not written", err=True)
    if as_json:
        emit(moment_as_json(job_id, moment))
    else:
        show_moment(moment)


@click.command()
@job_id
@click.option("--timeout", type=click.FloatRange(min=0), metavar="SECONDS", help="Give up waiting; the job goes on.")
@as_json
def wait(job_id: str, timeout: float | None, as_json: bool) -> None:
    """Follow a job until it has ended, then show its record.

    Steps go to stderr: a bar on a terminal, lines in a pipe. With --json every moment is one line on stdout, and the
    last line holds the whole record. Exits 1 if the job failed, expired or was cancelled, 4 at the timeout.

    \b
    Example:
      overpaint wait 5ac0f3a24e1c0c6c6b1d1e8e2f7a9b10 --timeout 60
    """
    from overpaint_producer.cli.follow import follow
    from overpaint_producer.cli.signals import insistent
    from overpaint_producer.producer import Producer

    with Producer() as producer:
        handle = find_job(producer, job_id)
        try:
            with insistent():
                record = follow(handle, timeout=timeout, as_json=as_json)
        except KeyboardInterrupt:
            click.echo(f"\nthe job goes on; to end it: overpaint cancel {job_id}", err=True)
            raise click.exceptions.Exit(INTERRUPTED) from None
    if not as_json:
        show_record(record)
    if record.status != "succeeded":
        raise click.exceptions.Exit(JOB)


@click.command()
@job_id
@click.option(
    "--save",
    type=click.Path(file_okay=False, path_type=Path),
    metavar="FOLDER",
    help="Download the pictures and the record into this folder.",
)
@click.option("--urls", is_flag=True, help="Print instead a URL for each picture, by which anybody can download it.")
@click.option(
    "--expires",
    type=Duration(LONGEST_URL),
    metavar="TIME",
    default="1h",
    show_default=True,
    help="How long the URLs are good for: such as 90s, 30m, 12h, at most 7d.",
)
@as_json
def result(job_id: str, save: Path | None, urls: bool, expires: int, as_json: bool) -> None:
    """Show the record of a finished job: where its pictures are and how they were made.

    URLs are signed here, with your own credentials for the store, and end early where those do. They lead to the
    published copies of a job that was submitted with --name.

    Exits 1 if the job failed, expired or was cancelled, 4 while it is not finished.

    \b
    Examples:
      overpaint result 5ac0f3a24e1c0c6c6b1d1e8e2f7a9b10 --save pictures
      overpaint result 5ac0f3a24e1c0c6c6b1d1e8e2f7a9b10 --json |
        jq .variants[].outputs[].uri
      overpaint result 5ac0f3a24e1c0c6c6b1d1e8e2f7a9b10 --urls --expires 12h
    """
    from overpaint_producer.cli.save import save_result
    from overpaint_producer.producer import Producer

    with Producer() as producer:
        handle = find_job(producer, job_id)
        record = handle.result()
        files = save_result(producer.store, record, save) if save is not None else []
        signed = handle.urls(expires) if urls else []
    if urls and as_json:
        emit({"id": job_id, "urls": signed})
    elif urls:
        click.echo("\n".join(signed))
    elif as_json:
        emit(record.model_dump(mode="json", exclude_none=True))
    else:
        show_record(record)
    for file in files:
        click.echo(printable(f"saved {file}"), err=True)
    if record.status != "succeeded":
        raise click.exceptions.Exit(JOB)


@click.command()
@job_ids
@as_json
def cancel(job_ids: tuple[str, ...], as_json: bool) -> None:
    """End jobs, queued or running. They count as cancelled at once; a worker that has begun one stops at its next step.

    With several ids prints a line for each, and an id that nobody submitted holds no other up. Exits 1 if a job had
    ended in another way already, 2 if an id is unknown.

    \b
    Examples:
      overpaint cancel 5ac0f3a24e1c0c6c6b1d1e8e2f7a9b10
      overpaint jobs --state queued --label album=3 --ids |
        xargs -r overpaint cancel
    """
    from overpaint_producer.producer import Producer

    def end(job_id: str) -> str | Fault:
        try:
            return find_job(producer, job_id).cancel().status
        except Fault as fault:
            return fault

    ends: list[str] = []
    unknown: Fault | None = None
    with Producer() as producer, ThreadPoolExecutor(AT_ONCE) as pool:
        for job_id, outcome in zip(job_ids, pool.map(end, job_ids), strict=True):
            if isinstance(outcome, Fault):
                unknown = outcome
                if len(job_ids) > 1 and as_json:
                    emit({"id": job_id, "state": "unknown"})
                elif len(job_ids) > 1:
                    tell(f"{job_id}  unknown")
                continue
            ends.append(outcome)
            if as_json:
                emit({"id": job_id, "state": outcome})
            else:
                said = "{}" if outcome == "cancelled" else "too late: the job had {} already"
                click.echo((f"{job_id}  " if len(job_ids) > 1 else "") + said.format(coloured(outcome)))
    if unknown is not None:
        raise unknown
    if any(state != "cancelled" for state in ends):
        raise click.exceptions.Exit(JOB)
