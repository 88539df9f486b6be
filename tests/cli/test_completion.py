"""A real bash completes the command line, quickly and without a word about what is not there."""

from __future__ import annotations

import os
import shlex
import subprocess
import sys
import sysconfig
from collections.abc import Mapping

import pytest
from click.shell_completion import BashComplete

from overpaint_producer.cli import main
from overpaint_producer.cli.commands import SECTIONS
from overpaint_producer.cli.doctor import SUBJECTS
from tests.cli.conftest import Place
from tests.support.programs import required
from tests.support.terminal import Terminal

PRESS = """
source <(overpaint completion bash)
press() {
    COMP_WORDS=("$@"); COMP_CWORD=$(($# - 1)); COMPREPLY=()
    _overpaint_completion overpaint
    printf '%s\\n' "${COMPREPLY[@]}" --
}
"""


def press(*lines: list[str], **variables: str) -> list[list[str]]:
    """What bash offers for the last word of each line when the tab key is pressed."""
    script = PRESS + "".join(f"press overpaint {shlex.join(line)} 2>&1\n" for line in lines)
    return [part.split() for part in _told([required("bash"), "--norc", "-c", script], variables).split("--\n")[:-1]]


def press_in_fish(*lines: str, **variables: str) -> list[list[str]]:
    """What fish offers to complete each line by, without what it says of them."""
    asks = "".join(f"complete --do-complete {shlex.quote(line)}; echo =\n" for line in lines)
    script = f"source (overpaint completion fish | psub)\n{asks}"
    told = _told([required("fish"), "--no-config", "-c", script], variables)
    return [[line.split("\t")[0] for line in part.split("\n") if line] for part in told.split("=\n")[:-1]]


def press_in_zsh(becomes: Mapping[str, str], variables: Mapping[str, str]) -> None:
    """Type each line and a tab into a zsh at a terminal; fails unless it becomes what is said."""
    with Terminal([required("zsh"), "-f", "-i"], environment(variables)) as zsh:
        zsh.type("autoload -U compinit; compinit -u -D; source <(overpaint completion zsh); PS1='press'' the tab> '\n")
        for line, completed in becomes.items():
            zsh.read_until("press the tab> ")
            zsh.type(f"{line}\t")
            zsh.read_until(f"{completed} ")
            zsh.type("\x15\n")  # Ctrl-U: without the line to the next prompt.


def environment(variables: Mapping[str, str]) -> dict[str, str]:
    path = f"{sysconfig.get_path('scripts')}{os.pathsep}{os.environ['PATH']}"
    return {**os.environ, **variables, "PATH": path, "TERM": "dumb"}


def _told(command: list[str], variables: Mapping[str, str]) -> str:
    done = subprocess.run(command, env=environment(variables), capture_output=True, text=True, timeout=60, check=True)
    assert done.stderr == ""
    return done.stdout


def test_bash_offers_commands_options_and_their_values(place: Place) -> None:
    names = {command.name for section in SECTIONS.values() for command in section}
    commands, begun, options, presets, models, subjects = press(
        [""],
        ["comp"],
        ["submit", "--pre"],
        ["submit", "cat.jpg", "out", "--preset", "key", "--preset", "keep"],
        ["submit", "--model", ""],
        ["doctor", "--only", "redis,sto"],
        **place.variables,
    )
    assert set(commands) == names
    assert begun == ["completion"]
    assert options == ["--preset", "--previews"]
    assert presets == ["keep-composition", "keep-colors"]
    assert models == ["mini"]
    assert subjects == ["redis,storage"]


def test_fish_offers_the_same(place: Place) -> None:
    """Given a value with a comma, which is what parts the program's answers to fish, then fish has the whole of it."""
    commands, options, models, subjects = press_in_fish(
        "overpaint comp", "overpaint submit --pre", "overpaint submit --model ", "overpaint doctor --only redis,sto",
        **place.variables,
    )  # fmt: skip
    assert commands == ["completion"]
    assert options == ["--preset", "--previews"]
    assert models == ["mini"]
    assert subjects == ["redis,storage"]


def test_zsh_completes_the_same(place: Place) -> None:
    lines = {
        "overpaint comp": "overpaint completion",
        "overpaint submit --prev": "overpaint submit --previews",
        "overpaint submit --model ": "overpaint submit --model mini",
        "overpaint doctor --only redis,sto": "overpaint doctor --only redis,storage",
    }
    press_in_zsh(lines, place.variables)


def test_a_job_id_that_is_begun_is_completed(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in place.variables.items():
        monkeypatch.setenv(name, value)
    ids = [place.submit() for _ in range(2)]

    assert sorted(offered(["status"], "")) == sorted(f"plain,{job_id}" for job_id in ids)
    assert offered(["wait"], ids[0][:20]) == [f"plain,{ids[0]}"]


def test_a_fleet_that_cannot_be_asked_offers_no_models(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OVERPAINT_REDIS_URL", "redis://127.0.0.1:1/0")
    for ledger in ("", "file:///books/"):
        monkeypatch.setenv("OVERPAINT_LEDGER", ledger)
        assert offered(["submit", "--model"], "") == []


def test_the_shell_itself_completes_files_but_for_references() -> None:
    """Given the first argument of submit, when the shell asks, then it is told to offer files, but not for s3://."""
    assert offered(["submit"], "pho") == ["file,pho"]
    assert offered(["submit"], "s3://pho") == []


def test_commands_are_completed_without_importing_what_they_need() -> None:
    code = (
        "import sys\nfrom overpaint_producer.cli import main\n"
        "try:\n    main(prog_name='overpaint')\nexcept SystemExit:\n    pass\n"
        "print(sorted({'boto3', 'botocore', 'celery', 'kombu', 'redis', 'pydantic', 'rich', 'PIL'} & set(sys.modules)))"
    )
    pressed = {"_OVERPAINT_COMPLETE": "bash_complete", "COMP_WORDS": "overpaint su", "COMP_CWORD": "1"}
    done = subprocess.run(
        [sys.executable, "-c", code], env={**os.environ, **pressed}, capture_output=True, text=True, check=True
    )
    assert done.stdout.splitlines() == ["plain,submit", "[]"]


@pytest.mark.parametrize(("shell", "sign"), [("bash", "complete -o nosort"), ("zsh", "#compdef"), ("fish", "function")])
def test_each_shell_gets_its_own_script(place: Place, shell: str, sign: str) -> None:
    script = place.run("completion", shell).stdout
    assert sign in script
    assert "_OVERPAINT_COMPLETE" in script


def test_the_subjects_of_doctor_are_in_its_help(place: Place) -> None:
    told = [line.split()[0] for line in place.run("doctor", "--help").stdout.splitlines() if line.startswith("  ")]
    assert set(SUBJECTS) <= set(told)


def offered(words: list[str], incomplete: str) -> list[str]:
    """What the program answers a bash that completes the last word of a line."""
    bash = BashComplete(main, {}, "overpaint", "_OVERPAINT_COMPLETE")
    return [bash.format_completion(item) for item in bash.get_completions(words, incomplete)]
