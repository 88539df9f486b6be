"""`overpaint replay`: repeat a chain from its record, and see whether the pictures are the same."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import click

from overpaint_producer.cli.candidates import files
from overpaint_producer.cli.display import emit
from overpaint_producer.cli.exits import JOB
from overpaint_producer.cli.options import as_json, find_job
from overpaint_producer.cli.terminal import say

if TYPE_CHECKING:
    from overpaint_common.result import Result
    from overpaint_producer.producer import Producer
    from overpaint_producer.replay import Compared, Replay

_ID = re.compile(r"[a-z0-9][a-z0-9-]{7,63}")
_COLOURS = {"identical": "green", "close": "yellow", "different": "red", "failed": "red"}


@click.command()
@click.argument("record", shell_complete=files)
@click.option("--output", metavar="PLACE", help="Where the new pictures go. Default: below the record's own output.")
@click.option(
    "--tolerance",
    type=click.IntRange(0, 255),
    metavar="0..255",
    help="Largest difference of an 8-bit value that counts as close. Default: 4; of jpeg and webp 24.",
)
@click.option("--timeout", type=click.FloatRange(min=0), metavar="SECONDS", help="Give up waiting; the job goes on.")
@as_json
def replay(record: str, output: str | None, tolerance: int | None, timeout: float | None, as_json: bool) -> None:
    """Repeat the chain of a RECORD with all its seeds, and compare the new pictures with the recorded ones.

    RECORD is a job's id, or a result.json: s3://bucket/key, file:///path or a file here. The chain runs as a new job.
    Compared are the pixels, exactly, since a file's metadata names its job; and what ran: seeds, steps, the models'
    weights, the source.

    Where the record says reproducible, and software and device are the same, only identical pixels will do. Otherwise a
    difference within the tolerance counts as close, and it is told where software or device differ. JPEG and WebP are
    lossy: a difference of one level in the painting becomes several there, hence their larger tolerance. Recorded
    pictures that are gone, or are not those that the record describes, end it before anything runs.

    Exits 0 for identical and for close where that is enough, 1 otherwise, 4 at the timeout. With --json prints one
    object: verdict, held, promised, tolerance, chain, surroundings, pictures.

    \b
    Examples:
      overpaint replay 5ac0f3a24e1c0c6c6b1d1e8e2f7a9b10
      overpaint replay s3://pictures/order-1234-cover/result.json --tolerance 8
      overpaint replay saved/5ac0f3a24e1c0c6c6b1d1e8e2f7a9b10.json --json
    """
    from overpaint_producer.cli.follow import follow
    from overpaint_producer.cli.painting import place
    from overpaint_producer.compose import reference
    from overpaint_producer.producer import Producer
    from overpaint_producer.replay import check_pictures, compare, repeated

    with Producer() as producer:
        before = _read(producer, record)
        job = repeated(before, output=None if output is None else reference(place(output)))
        check_pictures(producer.store, before)
        handle = producer.submit(job)
        click.echo(f"replaying {before.job_id} as {handle.id}", err=True)
        after = handle.wait(timeout) if as_json else follow(handle, timeout=timeout)
        report = compare(producer.store, before, after, tolerance)
    if as_json:
        emit({**report.model_dump(mode="json"), "held": report.held})
    else:
        for first, text in _lines(report, before):
            say(text, first=first, margin="    ")
    if not report.held:
        raise click.exceptions.Exit(JOB)


def _read(producer: Producer, record: str) -> Result:
    from overpaint_common.references import Reference
    from overpaint_producer.replay import MAX_RECORD_BYTES, read_record

    if "://" in record:
        return read_record(producer.store.read(Reference.parse(record), limit=MAX_RECORD_BYTES), record)
    file = Path(record)
    if file.is_file():
        with file.open("rb") as opened:
            return read_record(opened.read(MAX_RECORD_BYTES), record)
    if not _ID.fullmatch(record):
        raise click.UsageError(
            f"{record!r} is neither a job's id nor a file; an object in S3 is written s3://bucket/key"
        )
    return find_job(producer, record).result()


def _lines(report: Replay, before: Result) -> Iterator[tuple[str, str]]:
    """What each line begins with, and its text."""
    verdict = click.style(report.verdict, fg=_COLOURS[report.verdict], bold=True)
    yield f"{verdict}  ", f"{report.job_id}, replayed as {report.replay_id}"
    for compared in report.pictures:
        yield f"  {_name(compared)}  ", _difference(compared, report.tolerance)
    if report.verdict == "failed":
        yield from (("  ", line) for line in report.chain)
        return
    for heading, found in (("what ran", report.chain), ("where it ran", report.surroundings)):
        for line in found:
            yield f"  {heading} differs: ", line
    if not report.chain:
        yield "  ", _expected(report, before)


def _expected(report: Replay, before: Result) -> str:
    """What the record let expect, and whether it was that where anything else is a fault."""
    if report.promised:
        found = "and they are" if report.held else "and they are not"
        return f"the record promises the same pixels on the same software and device, {found}"
    why = "software or device are others" if before.reproducible else "the record does not say reproducible"
    return f"{why}: a difference of up to {report.tolerance} of 255 counts as close"


def _name(compared: Compared) -> str:
    name = f"variant {compared.variant}"
    return name if compared.after_pass is None else f"{name} after pass {compared.after_pass}"


def _difference(compared: Compared, tolerance: int) -> str:
    if compared.max_difference is None or compared.mean_difference is None:
        return "not to be compared: another size, other channels or more than 8 bits"
    if compared.identical:
        return "identical"
    within = "within" if compared.max_difference <= tolerance else "beyond"
    return (
        f"differs by up to {compared.max_difference} of 255, {compared.mean_difference:.3g} on average; "
        f"{within} the tolerance of {tolerance}"
    )
