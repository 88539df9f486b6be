"""The rules of the layout, and drift between the code and what it says of itself."""

from __future__ import annotations

import inspect
import subprocess
import sys
from pathlib import Path

from overpaint_common import errors
from overpaint_common.errors import OverpaintError

ROOT = Path(__file__).parents[2]


def all_errors(base: type[OverpaintError] = OverpaintError) -> list[type[OverpaintError]]:
    return [base, *(error for child in base.__subclasses__() for error in all_errors(child))]


def test_arrows_run_one_way() -> None:
    """Given the import rules in pyproject.toml, when import-linter checks them, then all are kept."""
    command = [str(Path(sys.executable).parent / "lint-imports"), "--no-cache"]
    ended = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=120)
    assert ended.returncode == 0, ended.stdout


def test_the_error_tree_is_drawn_as_it_is() -> None:
    """Given the tree at the top of errors.py, when it is compared with the classes, then they agree."""
    drawn: dict[str, int] = {}
    for line in (errors.__doc__ or "").splitlines():
        for mark in ("|-- ", "`-- "):
            if mark in line:
                drawn[line.split(mark)[1].split()[0]] = (line.index(mark) - 4) // 4
    in_file = [error for error in all_errors() if error.__module__ == errors.__name__ and error is not OverpaintError]
    depth = {e.__name__: len([b for b in e.__mro__ if issubclass(b, OverpaintError)]) - 2 for e in in_file}
    assert drawn == depth


def test_every_error_has_a_code_of_its_own() -> None:
    """Given all error classes of the tree, when their codes are collected, then no two share one."""
    in_file = [error for error in all_errors() if error.__module__ == errors.__name__]
    codes = [error.code for error in in_file]
    assert len(set(codes)) == len(codes)
    assert all("code" in vars(error) for error in in_file)


def test_nothing_is_connected_or_read_at_import() -> None:
    """Given a process without settings or network, when all packages are imported, then no module complains."""
    script = "import overpaint_producer, overpaint_worker.tasks, overpaint_worker.child, overpaint_worker.supervisor"
    ended = subprocess.run([sys.executable, "-c", script], env={}, capture_output=True, text=True, timeout=60)
    assert ended.returncode == 0, ended.stderr


def test_public_functions_say_what_they_do() -> None:
    """Given the public names of the contract, when their docstrings are looked for, then none is missing."""
    from overpaint_common import fleet, job, keys, ledger, live, result, seeds, steps, tickets

    silent = [
        f"{module.__name__}.{name}"
        for module in (fleet, job, keys, ledger, live, result, seeds, steps, tickets, errors)
        for name, thing in vars(module).items()
        if inspect.isfunction(thing)
        and thing.__module__ == module.__name__
        and not name.startswith("_")
        and not thing.__doc__
    ]
    assert silent == []
