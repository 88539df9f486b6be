"""`overpaint presets` needs no settings, reads well in 80 columns, and gives programs all of it."""

from __future__ import annotations

import json

from click.testing import CliRunner

from overpaint_common.presets import PRESETS
from overpaint_producer.cli import main


def test_the_table_fits_80_columns_and_says_it_all() -> None:
    """Given no settings at all, when the presets are listed, then each has its use and its settings, in order."""
    done = CliRunner().invoke(main, ["presets"], env={"OVERPAINT_REDIS_URL": "", "OVERPAINT_LEDGER": ""})
    assert done.exit_code == 0, done.output
    lines = done.stdout.splitlines()
    assert max(map(len, lines)) <= 80
    assert len(lines) == 2 * len(PRESETS)
    margin = lines[0].index(PRESETS["light"].use)
    for preset, first, second in zip(PRESETS.values(), lines[::2], lines[1::2], strict=True):
        assert first.split(maxsplit=1) == [preset.name, preset.use]
        assert first.index(preset.use) == margin == len(second) - len(second.lstrip())
        assert second.strip().startswith(preset.settings)
        assert all(name in second for name in preset.needs)


def test_json_gives_a_preset_a_line() -> None:
    """Given --json, when the presets are listed, then each line is one of them, whole."""
    done = CliRunner().invoke(main, ["presets", "--json"])
    documents = [json.loads(line) for line in done.stdout.splitlines()]
    assert documents == [preset.as_json() for preset in PRESETS.values()]
    assert documents[0]["passes"] == [{"op": "img2img", "strength": 0.3}]
