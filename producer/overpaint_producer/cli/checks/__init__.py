"""What `overpaint doctor` looks at, by subject. Each check yields findings; what breaks in it becomes one."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator
from functools import partial
from importlib.metadata import EntryPoint, entry_points

from overpaint_common.configuration import masked_url, unknown_variables
from overpaint_common.errors import OverpaintError, SettingsError
from overpaint_common.findings import Check, Finding, fail, from_error, from_errors, ok, warn
from overpaint_common.settings import AccessSettings
from overpaint_producer.cli.checks.clock import check_clocks
from overpaint_producer.cli.checks.disk import check_disk
from overpaint_producer.cli.checks.fleet import check_fleet
from overpaint_producer.cli.checks.ledger import check_ledger
from overpaint_producer.cli.checks.redis import check_redis
from overpaint_producer.cli.checks.storage import check_storage
from overpaint_producer.cli.checks.versions import check_versions

__all__ = ["CHECKS", "Finding", "check_ledger", "examine"]

CHECKS = "overpaint.checks"
"""Group of entry points under which other packages add checks, by subject; the worker does."""


def examine(only: Collection[str] = ()) -> Iterator[Finding]:
    """Every finding as soon as it is known, of the subjects in `only` or of all.

    Wrong settings are told whatever was asked for, and then what cannot do without them is left out.
    """

    def looked(subject: str, check: Check) -> Iterator[Finding]:
        return _safely(subject, check) if not only or subject in only else iter(())

    yield from looked("versions", check_versions)
    try:
        settings = AccessSettings.load()
        _ = settings.access
    except SettingsError as error:
        yield from from_errors("settings", error)
        here: dict[str, Check] = {}
    else:
        yield from looked("settings", partial(_settings, settings))
        here = _checks(settings)
    for subject, check in here.items():
        yield from looked(subject, check)
    for point in added():
        yield from looked(point.name, partial(_load_and_run, point))


def added() -> list[EntryPoint]:
    """The checks of other packages, in the order of their names."""
    return sorted(entry_points(group=CHECKS), key=lambda point: point.name)


def _checks(settings: AccessSettings) -> dict[str, Check]:
    """The checks that need settings, in the order in which their findings help most."""
    url, access = settings.redis_url.get_secret_value(), settings.access
    places = [access.ledger, *access.read, *access.write]
    return {
        "redis": partial(check_redis, url),
        "storage": partial(check_storage, settings),
        "clock": partial(check_clocks, settings),
        "fleet": partial(check_fleet, url, settings.ledger),
        "disk": partial(check_disk, places, settings.s3_max_connections),
    }


def _settings(settings: AccessSettings) -> Iterator[Finding]:
    yield ok("settings", f"ledger {settings.ledger}, Redis {masked_url(settings.redis_url.get_secret_value())}")
    for problem in unknown_variables():
        yield from_error("settings", problem, "warn")


def _safely(subject: str, check: Check) -> Iterator[Finding]:
    try:
        yield from check()
    except OverpaintError as error:
        yield from_error(subject, error)
    except Exception as error:
        # One look that breaks must not hide all the others.
        message = f"this check broke: {type(error).__name__}: {error}"
        yield fail(subject, message, "report it to the makers of Overpaint, with your versions")


def _load_and_run(point: EntryPoint) -> Iterable[Finding]:
    try:
        check: Check = point.load()
    except ModuleNotFoundError as error:
        remedy = "run: pip install 'overpaint[worker]', where workers are to run"
        return [warn(point.name, f"not looked at, since {error.name} is not installed", remedy)]
    return check()
