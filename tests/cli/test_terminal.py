"""Output reads well on a terminal of 80 columns, and is whole and plain in a pipe."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator

import click
import pytest
from click.testing import CliRunner
from hypothesis import given
from hypothesis import strategies as st

from overpaint_producer.cli import main
from overpaint_producer.cli.terminal import folded
from tests.cli.conftest import Place
from tests.support.terminal import Printed, print_to_terminal

ID = "5ac0f3a24e1c0c6c6b1d1e8e2f7a9b10"


@pytest.fixture(autouse=True)
def terminal_of_its_own(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TERM", "xterm-256color")
    for name in ("COLUMNS", "NO_COLOR"):
        monkeypatch.delenv(name, raising=False)


@pytest.fixture
def typed(place: Place, monkeypatch: pytest.MonkeyPatch) -> Place:
    """The place, its settings in this process's environment."""
    for name, value in place.variables.items():
        monkeypatch.setenv(name, value)
    return place


def shown(*arguments: str) -> Printed:
    return print_to_terminal(lambda: main(arguments, prog_name="overpaint"))


def too_long(printed: Printed) -> list[str]:
    """Lines beyond 80 columns, but for those that end in a path or reference that is too long for its place."""
    return [line for line in printed.lines if len(line) > 80 and len(line.split()[-1]) < 40]


def commands(command: click.Command, path: tuple[str, ...] = ()) -> Iterator[tuple[str, ...]]:
    yield path
    if isinstance(command, click.Group):
        context = click.Context(command)
        for name in command.list_commands(context):
            below = command.get_command(context, name)
            assert below is not None
            yield from commands(below, (*path, name))


def test_help_of_every_command_fits_80_columns() -> None:
    found = {path: CliRunner().invoke(main, [*path, "--help"]).output for path in commands(main)}
    assert ("dead", "replay") in found
    assert [(path, line) for path, text in found.items() for line in text.splitlines() if len(line) > 80] == []


@pytest.mark.parametrize(
    ("arguments", "code"),
    [
        (("doctor",), 0),
        (("presets",), 0),
        (("plan", "--no-chart"), 0),
        (("settings",), 0),
        (("jobs",), 0),
        (("status", ID), 2),
        (("submit", "nowhere.png", "out", "-p", "a cat"), 2),
        (("submit", "s3://photos/cat.png", "s3://elsewhere/", "-p", "a cat", "--model", "mini"), 2),
        (("dead", "show", "jobs/nothing-of-that-name-here"), 2),
        (("dead", "list"), 0),
    ],
    ids=lambda value: " ".join(value[:2]) if isinstance(value, tuple) else None,
)
def test_nothing_is_wider_than_the_terminal(typed: Place, arguments: tuple[str, ...], code: int) -> None:
    typed.submit()
    printed = shown(*arguments)
    assert (printed.code, too_long(printed)) == (code, [])
    assert any(printed.lines)


def test_a_wrapped_line_goes_on_below_its_own_beginning(typed: Place) -> None:
    lines = shown("doctor", "--only", "fleet").lines
    start = next(number for number, line in enumerate(lines) if "-> start one" in line)
    assert lines[start].index("start") == len(lines[start + 1]) - len(lines[start + 1].lstrip())
    (piped,) = (line for line in typed.run("doctor", "--only", "fleet").stdout.splitlines() if "-> start one" in line)
    assert " ".join(f"{lines[start]} {lines[start + 1]}".split()) == " ".join(piped.split())


def test_a_terminal_of_another_width_is_used_whole(typed: Place) -> None:
    del typed
    wide = print_to_terminal(lambda: main(["doctor", "--only", "fleet"]), columns=200)
    assert [line for line in wide.lines if "-> start one" in line and line.endswith("wait for it)")]


def test_following_a_job_draws_a_bar_on_a_terminal_and_lines_in_a_pipe(typed: Place) -> None:
    job_id = typed.submit()
    on_terminal = shown("wait", job_id, "--timeout", "0.2")
    assert (on_terminal.code, too_long(on_terminal)) == (4, [])
    assert f"{job_id[:8]}  queued" in on_terminal.raw
    assert "\x1b[?25l" in on_terminal.raw  # The bar hides the cursor while it is drawn,
    assert on_terminal.raw.rindex("\x1b[?25h") > on_terminal.raw.rindex("\x1b[?25l")  # and gives it back.
    piped = typed.run("wait", job_id, "--timeout", "0.2")
    assert piped.exit_code == 4
    assert piped.stderr.startswith("queued")
    assert not set("\x1b\r") & set(piped.output)
    assert piped.stdout == ""


@pytest.mark.parametrize(("name", "value"), [("NO_COLOR", "1"), ("TERM", "dumb")])
def test_colours_are_left_out_where_they_are_not_wanted(
    typed: Place, monkeypatch: pytest.MonkeyPatch, name: str, value: str
) -> None:
    del typed
    looks = (("doctor", "--only", "redis"), ("plan", "--no-chart"), ("status", ID))
    assert all("\x1b[" in shown(*look).raw for look in looks)
    monkeypatch.setenv(name, value)
    assert not any("\x1b[" in shown(*look).raw for look in looks)


def test_in_a_pipe_nothing_is_cut_or_coloured(typed: Place) -> None:
    file = typed.folder / ("a-long-name-" * 15 + ".toml")
    done = typed.run("doctor", "--only", "settings", OVERPAINT_CONFIG=str(file))
    assert done.exit_code == 3
    assert str(file) in done.stdout.splitlines()[0]
    assert "\x1b" not in done.output


@pytest.mark.parametrize("arguments", [["presets"], ["doctor", "--only", "versions,disk"], ["--help"]])
def test_a_reader_that_leaves_causes_no_traceback(arguments: list[str]) -> None:
    # Given a pipe whose reader has gone, as head does after its lines
    reader, writer = os.pipe()
    os.close(reader)
    # When a command prints into it, then it ends without a word
    done = subprocess.run(
        [sys.executable, "-m", "overpaint_producer.cli", *arguments],
        stdout=writer,
        stderr=subprocess.PIPE,
        text=True,
        timeout=60,
        check=False,
    )
    os.close(writer)
    assert done.returncode == (1 if arguments == ["--help"] else 141)
    assert done.stderr == ""


@pytest.mark.parametrize("arguments", [("status", ID), ("submit", "nowhere.png", "out"), ("nonsense",)])
def test_errors_go_to_stderr_alone(place: Place, arguments: tuple[str, ...]) -> None:
    done = place.run(*arguments)
    assert done.exit_code == 2
    assert done.stdout == ""
    assert done.stderr
    assert "error" in json.loads(place.run(*arguments, "--json").stderr)


@given(
    words=st.lists(st.text("abc/", min_size=1, max_size=30), min_size=1, max_size=40),
    width=st.integers(40, 100),
    taken=st.integers(0, 30),
)
def test_folding_keeps_every_word_and_breaks_none(words: list[str], width: int, taken: int) -> None:
    """Given any words, when they are folded, then all are there in order, and only a line of one word is too long."""
    first, margin = "x" * taken, " " * taken
    text = folded(" ".join(words), width, first=first, margin=margin)
    assert text.removeprefix(first).split() == words
    for line in text.removeprefix(first).splitlines()[1:]:
        assert line.startswith(margin)
        assert len(line) <= width or len(line.split()) == 1
    assert folded(" ".join(words), None, first=first) == first + " ".join(words)


def test_colours_take_no_room() -> None:
    plain = folded("one two three four", 16, first="state  ", margin="  ")
    assert click.unstyle(folded("one two three four", 16, first=click.style("state  ", "red"), margin="  ")) == plain
    assert plain == "state  one two\n  three four"
