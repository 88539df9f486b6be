"""`overpaint presets`: which there are and what each sets."""

from __future__ import annotations

import click

from overpaint_common.presets import PRESETS
from overpaint_producer.cli.display import emit
from overpaint_producer.cli.options import as_json


@click.command()
@as_json
def presets(as_json: bool) -> None:
    """List the presets: what each is for, and what it sets.

    With --json each is one line: name, use, passes, needs, prepare, variants, advice.

    \b
    Examples:
      overpaint presets
      overpaint presets --json | jq -r 'select(.needs == []) | .name'
    """
    margin = max(map(len, PRESETS)) + 2
    for preset in PRESETS.values():
        if as_json:
            emit(preset.as_json())
            continue
        click.echo(click.style(f"{preset.name:<{margin}}", bold=True) + preset.use)
        needs = f"; needs {', '.join(preset.needs)}" if preset.needs else ""
        click.echo(f"{'':<{margin}}{preset.settings}{needs}")
