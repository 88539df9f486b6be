"""`overpaint dead`: what could not be done, to look at, to replay or to drop."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterable
from datetime import UTC
from typing import TYPE_CHECKING

import click

from overpaint_common.errors import InvalidMessage, InvalidSignature, ObjectNotFound
from overpaint_producer.cli.display import emit
from overpaint_producer.cli.exits import USAGE, Fault
from overpaint_producer.cli.options import as_json
from overpaint_producer.cli.terminal import columns, shortened, tell
from overpaint_producer.cli.text import one_line, printable

if TYPE_CHECKING:
    from overpaint_common.dead import DeadLetters, Kind, Letter, Listing

KINDS = ("jobs", "submissions", "raw", "webhooks")
"""As in `overpaint_common.dead`, which help need not import."""

kind_option = click.option("--kind", type=click.Choice(KINDS), help="Only those of one kind.")


@click.group()
def dead() -> None:
    """Look at what could not be done, and do it again or drop it.

    \b
    Dead letters, named KIND/NAME, stay in the ledger until somebody drops them:
      jobs         given up, after crashes or after all their attempts
      submissions  whole jobs that came as Celery messages and were refused
      raw          messages that could not be understood
      webhooks     that no receiver took

    \b
    Examples:
      overpaint dead list
      overpaint dead show jobs/5ac0f3a24e1c0c6c6b1d1e8e2f7a9b10
      overpaint dead replay jobs/5ac0f3a24e1c0c6c6b1d1e8e2f7a9b10
      overpaint dead drop --all --kind raw
    """


@dead.command("list", short_help="List them, the newest first.")
@kind_option
@click.option("--limit", type=click.IntRange(min=1), default=1000, show_default=True, help="Of each kind.")
@as_json
def list_letters(kind: Kind | None, limit: int, as_json: bool) -> None:
    """List dead letters, the newest first: name, time, reason, what happened.

    In a pipe each is one line; times are UTC. With --json each is one object: name, when, code, summary.

    \b
    Examples:
      overpaint dead list --kind jobs
      overpaint dead list --json |
        jq -r 'select(.code == "worker_crashed") | .name'
    """
    listing = _letters().list(kind, limit=limit)
    for letter in listing.letters:
        if as_json:
            when = letter.when.isoformat() if letter.when else None
            emit({"name": letter.name, "when": when, "code": letter.code, "summary": letter.summary})
    if not as_json:
        _show_table(listing)
    if listing.left_out:
        click.echo(f"{listing.left_out} more left out; list them with --limit or --kind", err=True)
    if not listing.letters:
        click.echo("no dead letters", err=True)


@dead.command(short_help="Show one as JSON.")
@click.argument("name")
@as_json
def show(name: str, as_json: bool) -> None:
    """Show one dead letter as JSON; of a job's webhook only the receiver, of a raw message its start.

    \b
    Examples:
      overpaint dead show jobs/5ac0f3a24e1c0c6c6b1d1e8e2f7a9b10
      overpaint dead show submissions/order-1234 | jq .body >job.json
    """
    letters = _letters()
    _require(letters, [name])
    document = letters.read(name).shown()
    if as_json:
        click.echo(json.dumps(document))
    else:
        click.echo(printable(json.dumps(document, indent=2, ensure_ascii=False)))


def _job_id(context: click.Context, parameter: click.Parameter, value: str | None) -> str | None:
    from pydantic import TypeAdapter, ValidationError

    from overpaint_common.job import JobId

    try:
        return None if value is None else TypeAdapter[str](JobId).validate_python(value)
    except ValidationError:
        how = "8 to 64 lower-case letters, digits and dashes"
        raise click.BadParameter(f"{value!r} is no job id: {how}", context, parameter) from None


@dead.command(short_help="Do again what they are about; each that was taken is dropped.")
@click.argument("names", nargs=-1, required=True, metavar="NAME...")
@click.option("--id", "new_id", callback=_job_id, metavar="ID", help="Of the new job. Default: made of the old one's.")
@as_json
def replay(names: tuple[str, ...], new_id: str | None, as_json: bool) -> None:
    """Do again what dead letters are about, and drop each that was taken. Prints what they became.

    \b
    jobs         the same job, with the same seeds, under a new id; prints the id
    submissions  the job of the message, under its own id; prints the id
    raw          the message goes back to its queue as it came; prints the queue
    webhooks     are delivered again, with all their tries; prints the job's id

    Replaying a job again after an interruption gives the same new id, so it is never painted twice.

    \b
    Examples:
      overpaint dead replay jobs/5ac0f3a24e1c0c6c6b1d1e8e2f7a9b10
      overpaint dead list --kind webhooks --json | jq -r .name |
        xargs -r overpaint dead replay
    """
    from overpaint_common.dead import DeadLetters
    from overpaint_common.live import connect
    from overpaint_producer import dead_letters
    from overpaint_producer.producer import PATIENCE, Producer

    if new_id is not None and len(names) > 1:
        raise click.UsageError("--id names one job; give one dead letter with it")
    with Producer() as producer, connect(producer.settings.redis_url.get_secret_value(), patience=PATIENCE) as redis:
        letters = DeadLetters(producer.store, producer.settings.ledger_root)
        _require(letters, names)
        for name in dict.fromkeys(names):
            try:
                done = dead_letters.replay(producer, redis, letters, name, job_id=new_id)
            except (InvalidMessage, InvalidSignature) as error:
                raise Fault.of(error, USAGE) from None
            for note in done.notes:
                tell(f"{name}: {note}")
            if as_json:
                emit({"name": name, "became": done.id})
            else:
                click.echo(printable(done.id))


@dead.command(short_help="Delete them for good, after asking.")
@click.argument("names", nargs=-1, metavar="[NAME]...")
@click.option("--all", "everything", is_flag=True, help="All of one --kind.")
@kind_option
@click.option("--yes", is_flag=True, help="Do not ask.")
def drop(names: tuple[str, ...], everything: bool, kind: Kind | None, yes: bool) -> None:
    """Delete dead letters for good, after asking. A job's record stays.

    \b
    Examples:
      overpaint dead drop jobs/5ac0f3a24e1c0c6c6b1d1e8e2f7a9b10
      overpaint dead drop --all --kind raw --yes
    """
    if everything == bool(names) or everything != (kind is not None):
        raise click.UsageError("name dead letters, or give --all with one --kind")
    letters = _letters()
    doomed = letters.names(kind) if everything else list(dict.fromkeys(names))
    if not everything:
        _require(letters, doomed)
    if not doomed:
        click.echo("no dead letters", err=True)
        return
    what = doomed[0] if len(doomed) == 1 else f"{len(doomed)} dead letters"
    if not yes and not _confirmed(f"Drop {what} for good?"):
        raise Fault("usage", "nothing was dropped; answer y, or give --yes", USAGE)
    for name in doomed:
        letters.drop(name)
    click.echo(f"dropped {what}")


def _letters() -> DeadLetters:
    from overpaint_common.dead import DeadLetters
    from overpaint_common.settings import Settings

    settings = Settings.load()
    return DeadLetters(settings.open_store(), settings.ledger_root)


def _require(letters: DeadLetters, names: Iterable[str]) -> None:
    """A name that is no letter's is the caller's mistake, not the storage's."""
    try:
        letters.check(names)
    except ObjectNotFound as error:
        raise Fault.of(error, USAGE) from None


def _confirmed(question: str) -> bool:
    try:
        return click.confirm(question, err=True)
    except click.Abort:  # No terminal to ask, or Ctrl-C.
        return False


def _show_table(listing: Listing) -> None:
    """Two lines a letter on a terminal, which names need most of the width of, and one in a pipe."""
    width = columns(sys.stdout)
    if width is not None:
        for letter in listing.letters:
            line = f"    {_when(letter)}  {printable(letter.code)}  "
            click.echo(click.style(printable(letter.name), bold=True))
            click.echo(line + shortened(one_line(letter.summary), max(width - len(line), 20)))
        return
    names = max((len(letter.name) for letter in listing.letters), default=0)
    codes = max((len(letter.code) for letter in listing.letters), default=0)
    for letter in listing.letters:
        line = f"{letter.name:<{names}}  {_when(letter)}  {letter.code:<{codes}}  {one_line(letter.summary)}"
        click.echo(printable(line))


def _when(letter: Letter) -> str:
    return f"{letter.when.astimezone(UTC):%Y-%m-%d %H:%MZ}" if letter.when else f"{'-':<17}"
