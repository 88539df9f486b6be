"""What `overpaint doctor` looks at where workers run. The entry points in pyproject.toml name these functions.

They need the worker extra for little, and import none of it before they know that it is there.
"""

from __future__ import annotations

from collections.abc import Iterator
from importlib.util import find_spec

from overpaint_common.errors import SettingsError
from overpaint_common.findings import Finding, from_errors, ok
from overpaint_common.settings import AccessSettings
from overpaint_worker.settings import WorkerSettings

EXTRA = ("torch", "diffusers", "transformers", "safetensors", "huggingface_hub")


def missing() -> list[str]:
    """What of the worker extra is not installed."""
    return [name for name in EXTRA if find_spec(name) is None]


def check_worker() -> Iterator[Finding]:
    """Whether a worker could start here with these settings, and is meant to."""
    check = "worker settings"
    try:
        shared = AccessSettings.load()
    except SettingsError:
        return  # Said of the settings already.
    if lacking := missing():
        yield ok(check, f"{', '.join(lacking)} not installed: jobs can be submitted from here, but not painted")
        return
    if not shared.read and not shared.write:
        yield ok(check, "OVERPAINT_READ and OVERPAINT_WRITE are not set, so neither worker nor keeper would start")
        return
    try:
        settings = WorkerSettings.load()
    except SettingsError as error:
        yield from from_errors(check, error)
        return
    registry = settings.registry or "the embedded models"
    yield ok(check, f"{settings.slots} slots, devices {settings.devices}, {registry}")


def check_devices() -> Iterator[Finding]:
    """What a worker would find to paint on."""
    if not missing():
        from overpaint_worker.checks.devices import check_devices as look

        yield from look()


def check_models() -> Iterator[Finding]:
    """The registry's models and the files that each is made of."""
    if not missing():
        from overpaint_worker.checks.models import check_registry

        yield from check_registry()
