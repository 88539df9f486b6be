"""`overpaint ready`: a probe for those who start workers and keepers."""

from __future__ import annotations

import socket
from typing import TYPE_CHECKING

import click

from overpaint_producer.cli.exits import INFRASTRUCTURE

if TYPE_CHECKING:
    from overpaint_common.live import Live

PATIENCE = 5.0
"""Seconds for each answer of Redis; a probe is asked again soon."""


@click.command()
@click.argument("role", type=click.Choice(("worker", "keeper")))
def ready(role: str) -> None:
    """Say by the exit status whether a worker of this host serves, or whether a keeper leads.

    A worker serves once it has announced itself, with its first model loaded, and while it says so again. A keeper may
    lead here or elsewhere. Exits 3 with a line that says why where it is not so. Redis is read, and nothing else.

    \b
    Example:
      overpaint ready worker
    """
    from overpaint_common.live import Live, connect
    from overpaint_common.settings import Settings

    live = Live(connect(Settings.load().redis_url.get_secret_value(), patience=PATIENCE))
    missing = _missing(role, live)
    live.close()
    if missing:
        click.echo(missing, err=True)
        raise click.exceptions.Exit(INFRASTRUCTURE)


def _missing(role: str, live: Live) -> str:
    if role == "keeper":
        return "" if live.kept() else "no keeper leads"
    host = socket.gethostname()
    # A worker's name is its host, its process and a few random digits.
    served = any(worker.name.rsplit("-", 2)[0] == host for worker in live.workers())
    return "" if served else f"no worker of {host} has announced itself"
