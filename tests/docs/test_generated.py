"""Pages that are written by programs are what these would write today."""

from __future__ import annotations

import click
import pytest

from overpaint_producer.cli import main
from tests.docs.pages import DOCS, Page, page, typed
from tools import cli_page, errors_page
from tools.generated import settle

CLI = page(DOCS / "cli.md")


def _made() -> dict[str, tuple[Page, str]]:
    errors = page(errors_page.PAGE)
    return {"cli": (CLI, cli_page.made()), "errors": (errors, errors_page.made(errors.text))}


@pytest.mark.parametrize("name", ["cli", "errors"])
def test_the_page_is_what_the_code_says(name: str) -> None:
    committed, made = _made()[name]
    assert committed.text == made, f"run: python -m tools.{name}_page --write"


def test_a_page_that_is_out_of_date_fails(capsys: pytest.CaptureFixture[str]) -> None:
    """Given a page and what it should be, when they differ, then the check fails and says what to run."""
    assert settle(CLI.path, f"{CLI.text}more", [], command="python -m tools.cli_page") == 1
    assert "python -m tools.cli_page --write" in capsys.readouterr().err


def test_every_example_of_the_help_is_understood() -> None:
    """Given the examples in the help of all commands, when the command line parses them, then it knows all words."""
    lines = [line.split(" | ")[0].strip() for block in CLI.blocks("text") for line in typed(block)]
    examples = [line for line in lines if line.startswith("overpaint ")]
    assert len(examples) > 30
    for words in Page(CLI.path, "```sh\n{}\n```\n".format("\n".join(examples))).commands("overpaint"):
        command: click.Command = main
        context = click.Context(main)
        while isinstance(command, click.Group) and words and not words[0].startswith("-"):
            known = command.get_command(context, words[0])
            assert known is not None, words
            command, words = known, words[1:]
            context = click.Context(command, parent=context)
        command.make_parser(context).parse_args(list(words))
