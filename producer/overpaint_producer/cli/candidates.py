"""What shells offer for values that no option lists: files, and what the fleet has at the moment."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import click
from click.shell_completion import CompletionItem

OFFERED = 200
"""Jobs that are looked at for one whose id has been begun."""

PATIENCE = 0.3
"""Seconds that Redis may take: somebody waits with a finger on the key."""


def files(context: click.Context, parameter: click.Parameter, incomplete: str) -> list[CompletionItem]:  # noqa: ARG001 - click's signature
    """The shell's own completion of paths, but for references."""
    return [] if "://" in incomplete else [CompletionItem(incomplete, type="file")]


def jobs(context: click.Context, parameter: click.Parameter, incomplete: str) -> list[CompletionItem]:  # noqa: ARG001
    """The ids of the jobs queued last; none where Redis cannot be asked."""
    from overpaint_common.errors import OverpaintError
    from overpaint_common.index import JobIndex
    from overpaint_common.live import connect
    from overpaint_common.settings import Settings

    since = datetime.now(UTC) - timedelta(days=1)
    try:
        with connect(Settings.load().redis_url.get_secret_value(), patience=PATIENCE) as redis:
            found = JobIndex(redis).newest(since=since, until=None, after=None, size=OFFERED)
    except (OverpaintError, ValueError):
        return []
    return [
        CompletionItem(entry.job_id, help=entry.moment.state if entry.moment else None)
        for entry in found
        if entry.job_id.startswith(incomplete)
    ]


def models(context: click.Context, parameter: click.Parameter, incomplete: str) -> list[CompletionItem]:  # noqa: ARG001
    """The models that the fleet has announced; none where Redis cannot be asked."""
    from overpaint_common.errors import OverpaintError
    from overpaint_common.live import Live, connect
    from overpaint_common.settings import Settings

    try:
        live = Live(connect(Settings.load().redis_url.get_secret_value(), patience=PATIENCE))
        try:
            cards = live.models()
        finally:
            live.close()
    except (OverpaintError, ValueError):  # No settings, no Redis, or cards of another release.
        return []
    return [
        CompletionItem(name, help=f"{', '.join(card.operations)}; {card.native_size} pixels")
        for name, card in sorted(cards.items())
        if name.startswith(incomplete)
    ]
