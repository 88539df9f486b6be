"""`overpaint worker` and `overpaint keeper`."""

from __future__ import annotations

import logging
import signal
import sys
import threading
from importlib.util import find_spec

import click

from overpaint_common.errors import OverpaintError, SettingsError
from overpaint_worker import exits


@click.command()
@click.option(
    "--devices",
    help="auto (every CUDA device, else the CPU), cpu, or CUDA indices: 0,1. Without it OVERPAINT_DEVICES counts.",
)
def worker(devices: str | None) -> None:
    """Serve jobs: one child process per device, restarted when it dies, and a keeper beside them.

    Stop it with SIGTERM or Ctrl-C: children finish what they have begun to paint, as far as OVERPAINT_GRACE seconds
    last, and the rest goes back to the queue. The models come from the TOML file that OVERPAINT_REGISTRY names; without
    one the small model that ships with Overpaint is served.

    \b
    Example:
      export OVERPAINT_REDIS_URL=redis://redis:6379/0
      export OVERPAINT_LEDGER=s3://my-ledger/
      export OVERPAINT_READ=s3://photos/ OVERPAINT_WRITE=s3://pictures/
      overpaint worker --devices 0,1
    """
    from overpaint_worker.devices import find_devices
    from overpaint_worker.keeper.build import build_keeper
    from overpaint_worker.settings import WorkerSettings
    from overpaint_worker.supervisor import Supervisor

    try:
        _require_extra()
        settings = WorkerSettings.load(**({} if devices is None else {"devices": devices}))
        found = find_devices(settings.devices)
    except OverpaintError as error:
        click.echo(f"error[{error.code}]: {error}", err=True)
        sys.exit(exits.CONFIG)
    _log("supervisor", settings.log_level)
    _warn_of_unknown_variables()
    companion = build_keeper(settings) if settings.keeper else None
    sys.exit(Supervisor(found, grace=settings.grace, keeper=companion).run())


@click.command()
def keeper() -> None:
    """Look after all jobs: return those of dead workers, lost tickets, retries, deadlines and webhooks.

    Every `overpaint worker` runs a keeper already, unless OVERPAINT_KEEPER is false; any number may run, and one of
    them leads. Run this where no worker may be up for a while, such as a fleet that scales to zero. It needs no torch
    and no GPU, and the same settings as a worker. Stop it with SIGTERM or Ctrl-C.

    \b
    Example:
      export OVERPAINT_REDIS_URL=redis://redis:6379/0
      export OVERPAINT_LEDGER=s3://my-ledger/
      export OVERPAINT_READ=s3://photos/ OVERPAINT_WRITE=s3://pictures/
      overpaint keeper
    """
    from overpaint_worker.keeper.build import build_keeper
    from overpaint_worker.settings import KeeperSettings

    try:
        settings = KeeperSettings.load()
        _log("keeper", settings.log_level)
        _warn_of_unknown_variables()
        built = build_keeper(settings)
        built.check()
    except OverpaintError as error:
        click.echo(f"error[{error.code}]: {error}", err=True)
        sys.exit(exits.SOFTWARE if error.retryable else exits.CONFIG)
    stopping = threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: stopping.set())
    built.start()
    while not stopping.wait(0.2):  # A bare wait would keep Python from running the signal handlers.
        pass
    built.stop()


def _log(name: str, level: str) -> None:
    logging.basicConfig(level=level, format=f"%(asctime)s %(levelname)s {name} %(message)s", stream=sys.stderr)


def _warn_of_unknown_variables() -> None:
    from overpaint_common.configuration import unknown_variables

    for message in unknown_variables():
        logging.getLogger(__name__).warning("%s", message)


def _require_extra() -> None:
    missing = [name for name in ("torch", "diffusers", "transformers", "numpy") if find_spec(name) is None]
    if missing:
        raise SettingsError(f"a worker needs {', '.join(missing)}, not installed here; pip install 'overpaint[worker]'")
