"""Help comes at once and teaches; what is missing says how to get it."""

from __future__ import annotations

import os
import subprocess
import sys
import sysconfig
from importlib import import_module
from pathlib import Path

import click
import pytest
from click.testing import CliRunner

import overpaint_producer
from overpaint_producer.cli import main
from overpaint_producer.cli.commands import SECTIONS
from overpaint_producer.cli.program import program

COMMANDS = [command.name for section in SECTIONS.values() for command in section]


def python(code: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=False)


def test_help_imports_nothing_heavy() -> None:
    # Given a fresh process, when it prints the help, then no library that takes long to import was touched.
    done = python(
        "import sys; from overpaint_producer.cli import main; main(['--help'], standalone_mode=False)\n"
        "print(sorted({'boto3', 'celery', 'kombu', 'redis', 'pydantic', 'rich', 'PIL', 'torch'} & set(sys.modules)))"
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines()[-1] == "[]"


def test_help_names_every_command_and_exit_code() -> None:
    text = CliRunner().invoke(main, ["--help"]).output
    for name in (*COMMANDS, "Exit codes", "overpaint demo"):
        assert name in text


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_shows_an_example(command: str) -> None:
    done = CliRunner().invoke(main, [command, "--help"])
    assert done.exit_code == 0, done.output
    assert "Example" in done.output
    assert f"overpaint {command}" in done.output


def test_an_unknown_command_is_a_usage_error() -> None:
    done = CliRunner().invoke(main, ["repaint"])
    assert done.exit_code == 2
    assert "repaint" in done.stderr


@pytest.mark.parametrize("when", ["on import", "when called"])
def test_a_command_without_its_extra_says_how_to_install_it(when: str, tmp_path: Path) -> None:
    # Given a worker command that meets a missing torch, early or late
    fail = """raise ModuleNotFoundError("No module named 'torch'", name="torch")"""
    late = f"import click\n@click.command()\ndef worker():\n    {fail}\n"
    package = tmp_path / "overpaint_worker"
    package.mkdir()
    (package / "__init__.py").touch()
    (package / "cli.py").write_text(fail if when == "on import" else late)
    # When it is called
    done = subprocess.run(
        [sys.executable, "-m", "overpaint_producer.cli", "worker"],
        env={**os.environ, "PYTHONPATH": str(tmp_path)},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    # Then one line names the package and the way to get it
    assert done.returncode == 2
    assert done.stderr.startswith("error[settings]: `overpaint worker` needs torch")
    assert "pip install 'overpaint[worker]'" in done.stderr
    assert "Traceback" not in done.stderr


def test_the_console_script_is_the_same_program() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "overpaint_producer.cli", "--version"], capture_output=True, text=True, check=True
    )
    assert done.stdout.startswith("overpaint ")


@pytest.mark.parametrize("on_path", [True, False])
def test_what_is_to_be_typed_next_can_be_typed(on_path: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    # Given a shell in which the environment is active, or is not
    scripts = Path(sysconfig.get_path("scripts"))
    monkeypatch.setenv("PATH", f"{scripts if on_path else tmp_path}{os.pathsep}{os.defpath}")
    # When it types the program as the messages spell it, in the folder of that environment or elsewhere
    for folder in (scripts.parents[1], tmp_path):
        monkeypatch.chdir(folder)
        typed = program()
        assert (typed == "overpaint") is on_path
        assert subprocess.run(f"{typed} --version", shell=True, check=False).returncode == 0


def test_every_exported_name_exists() -> None:
    for name in overpaint_producer.__all__:
        assert getattr(overpaint_producer, name) is not None
    assert set(overpaint_producer.__all__) == {n for names in overpaint_producer._HOMES.values() for n in names}
    with pytest.raises(AttributeError, match="no attribute 'Consumer'"):
        _ = overpaint_producer.Consumer


def test_every_lazy_command_is_where_the_table_says() -> None:
    for section in SECTIONS.values():
        for command in section:
            if command.target is not None:
                module, _, attribute = command.target.partition(":")
                found = getattr(import_module(module), attribute)
                assert isinstance(found, click.Command)
                assert found.name == command.name
