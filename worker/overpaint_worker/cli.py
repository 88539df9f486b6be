"""`overpaint worker`."""

from __future__ import annotations

import logging
import sys
from importlib.util import find_spec

import click

from overpaint_common.errors import OverpaintError, SettingsError
from overpaint_worker import exits


@click.command()
@click.option(
    "--devices",
    default="auto",
    show_default=True,
    envvar="OVERPAINT_DEVICES",
    help="auto (every CUDA device, else the CPU), cpu, or CUDA indices: 0,1",
)
def worker(devices: str) -> None:
    """Serve jobs: one child process per device, restarted when it dies.

    Stop it with SIGTERM or Ctrl-C: children finish what they have begun to paint, as far as OVERPAINT_GRACE seconds
    last, and the rest goes back to the queue. The models come from the TOML file that OVERPAINT_REGISTRY names; without
    one the small model that ships with Overpaint is served.

    \b
    Example:
      export OVERPAINT_REDIS_URL=redis://redis:6379/0 OVERPAINT_LEDGER=s3://my-ledger/
      export OVERPAINT_READ=s3://my-photos/ OVERPAINT_WRITE=s3://my-pictures/
      overpaint worker --devices 0,1
    """
    from overpaint_worker.devices import find_devices
    from overpaint_worker.settings import WorkerSettings
    from overpaint_worker.supervisor import Supervisor

    try:
        _require_extra()
        settings = WorkerSettings.load()
        settings.open_registry()
        _ = settings.access
        found = find_devices(devices)
    except OverpaintError as error:
        click.echo(f"error[{error.code}]: {error}", err=True)
        sys.exit(exits.CONFIG)
    logging.basicConfig(
        level=settings.log_level, format="%(asctime)s %(levelname)s supervisor %(message)s", stream=sys.stderr
    )
    sys.exit(Supervisor(found, grace=settings.grace).run())


def _require_extra() -> None:
    missing = [name for name in ("torch", "diffusers", "transformers", "numpy") if find_spec(name) is None]
    if missing:
        raise SettingsError(f"a worker needs {', '.join(missing)}, not installed here; pip install 'overpaint[worker]'")
