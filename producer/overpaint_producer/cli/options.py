"""Arguments and options that several commands share."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from overpaint_common.errors import ObjectNotFound
from overpaint_producer.cli.candidates import jobs
from overpaint_producer.cli.exits import USAGE, Fault

if TYPE_CHECKING:
    from overpaint_producer.handle import JobHandle
    from overpaint_producer.producer import Producer

as_json = click.option(
    "--json", "as_json", is_flag=True, help="Print JSON for a program to read; errors too, on stderr."
)


def _job_id(context: click.Context, parameter: click.Parameter, value: str) -> str:
    from pydantic import TypeAdapter, ValidationError

    from overpaint_common.job import JobId

    try:
        return TypeAdapter[str](JobId).validate_python(value)
    except ValidationError:
        raise click.BadParameter(f"{value!r} is no job id; `overpaint submit` prints one", context, parameter) from None


def _job_ids(context: click.Context, parameter: click.Parameter, values: tuple[str, ...]) -> tuple[str, ...]:
    return tuple(dict.fromkeys(_job_id(context, parameter, value) for value in values))


job_id = click.argument("job_id", metavar="ID", callback=_job_id, shell_complete=jobs)
job_ids = click.argument("job_ids", metavar="ID...", nargs=-1, required=True, callback=_job_ids, shell_complete=jobs)


def find_job(producer: Producer, job_id: str) -> JobHandle:
    """The handle of a job that the ledger knows; an unknown id is the caller's mistake, not the storage's."""
    try:
        return producer.handle(job_id)
    except ObjectNotFound as error:
        raise Fault.of(error, USAGE) from None
