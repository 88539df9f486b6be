"""docs/cli.md: the help of every command, as the command line prints it.

python -m tools.cli_page            compare; exit 1 where it differs
python -m tools.cli_page --write    write it again
"""

from __future__ import annotations

import sys
from collections.abc import Iterator

import click
from click.testing import CliRunner

from overpaint_producer.cli import main
from tools.generated import ROOT, settle

PAGE = ROOT / "docs" / "cli.md"
WIDTH = 80

HEAD = """# The command line

What `overpaint` takes, command by command, as `--help` prints it. `python -m tools.cli_page --write` writes this page.

Data goes to stdout, everything else to stderr; `--json` gives data and errors that a program can read.
`overpaint completion bash` (or `zsh`, or `fish`) prints what lets your shell complete commands, options and models.
"""


def commands(group: click.Group = main, words: tuple[str, ...] = ()) -> Iterator[tuple[str, ...]]:
    """The words that call each command, groups before what is in them."""
    yield words
    context = click.Context(group)
    for name in group.list_commands(context):
        command = group.get_command(context, name)
        if isinstance(command, click.Group):
            yield from commands(command, (*words, name))
        else:
            yield (*words, name)


def helped(words: tuple[str, ...]) -> str:
    """What a command prints after `--help`, without blanks at the ends of lines."""
    ran = CliRunner().invoke(main, [*words, "--help"], prog_name="overpaint", terminal_width=WIDTH)
    return "\n".join(line.rstrip() for line in ran.output.splitlines())


def made() -> str:
    """The whole page."""
    sections = (
        f"\n{'#' * max(2, len(words) + 1)} {' '.join(('overpaint', *words))}\n\n```text\n{helped(words)}\n```\n"
        for words in commands()
    )
    return HEAD + "".join(sections)


if __name__ == "__main__":
    sys.exit(settle(PAGE, made(), sys.argv[1:], command="python -m tools.cli_page"))
