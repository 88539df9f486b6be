"""`overpaint settings` shows what counts and whence; wrong settings end a program with all that is wrong."""

from __future__ import annotations

import json
import logging
import os
import subprocess
import sys
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from overpaint_common.configuration import FILE_VARIABLE
from overpaint_producer.cli import main
from overpaint_worker.settings import KeeperSettings, WorkerSettings

SECRET = "hunter2hunter2hunter2hunter2hunter2hunter2hu"
VARIABLES = {
    "OVERPAINT_REDIS_URL": f"redis://me:{SECRET}@127.0.0.1:1/0?socket_timeout=1",
    "OVERPAINT_READ": "s3://photos/,s3://archive/",
    "OVERPAINT_WRITE": "s3://pictures/",
    "OVERPAINT_WEBHOOKS": "hooks.example.com",
    "OVERPAINT_WEBHOOK_SECRET": f"whsec_{SECRET}",
    "OVERPAINT_SUBMIT_SECRET": SECRET,
}


@pytest.fixture
def file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Given the variables above and a file that names the ledger and slots."""
    for name in [name for name in os.environ if name.startswith("OVERPAINT_")]:
        monkeypatch.delenv(name)
    for name, value in VARIABLES.items():
        monkeypatch.setenv(name, value)
    file = tmp_path / "overpaint.toml"
    file.write_text('ledger = "s3://my-ledger/"\nslots = 4\n')
    monkeypatch.setenv(FILE_VARIABLE, str(file))
    return file


def run(*arguments: str, **variables: str) -> Result:
    return CliRunner().invoke(main, arguments, env=variables)


def test_every_setting_is_a_line_with_its_value_and_origin(file: Path) -> None:
    """Given settings from everywhere, when they are printed into a pipe, then each is a plain line that fits."""
    done = run("settings")

    assert done.exit_code == 0, done.output
    table, _, footer = done.stdout.partition("\n\n")
    rows = [line.split() for line in table.splitlines() if not line.startswith(" ")]
    assert [row[0] for row in rows] == list(WorkerSettings.model_fields)
    shown = {row[0]: row[1:] for row in rows}
    assert shown["slots"] == ["file", "4"]
    assert shown["read"] == ["environment", "s3://photos/"]
    assert shown["grace"] == ["default", "120"]
    assert shown["keeper"] == ["default", "true"]
    assert shown["redis_url"] == ["environment", "redis://me:***@127.0.0.1:1/0?socket_timeout=1"]
    assert footer == f"file: {file}\n"
    assert max(map(len, table.splitlines())) <= 80
    assert "\x1b" not in done.stdout


def test_json_has_values_as_they_are_and_names_the_file(file: Path) -> None:
    """Given the same settings, when JSON is asked for, then each is an object on a line of its own."""
    found = {line["setting"]: line for line in map(json.loads, run("settings", "--json").stdout.splitlines())}

    assert found["slots"] == {
        "setting": "slots",
        "variable": "OVERPAINT_SLOTS",
        "value": 4,
        "origin": "file",
        "file": str(file),
    }
    assert found["read"]["value"] == ["s3://photos/", "s3://archive/"]
    assert (found["s3_region"]["value"], found["s3_region"]["origin"]) == (None, "default")


def test_a_program_is_shown_what_it_reads(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Given a program's name, or none and a producer's settings alone, when printed, then just its own are there."""

    def shown(*program: str) -> list[str]:
        return [json.loads(line)["setting"] for line in run("settings", *program, "--json").stdout.splitlines()]

    producers = shown("producer")
    assert "ledger" in producers
    assert "read" not in producers
    assert shown("keeper") == list(KeeperSettings.model_fields)
    for name in VARIABLES:
        monkeypatch.delenv(name)
    file.write_text('ledger = "s3://my-ledger/"')
    assert shown() == producers


def test_wrong_settings_end_it_with_all_mistakes(file: Path) -> None:
    """Given two mistakes, when settings are printed, then both are told, nothing is printed, and the status is 2."""
    file.write_text("slots = 0")

    done = run("settings")

    assert (done.exit_code, done.stdout) == (2, "")
    assert done.stderr.startswith("error[settings]: 2 things are wrong")
    assert f"slots in {file}: " in done.stderr
    assert "OVERPAINT_LEDGER: required" in done.stderr


@pytest.mark.usefixtures("file")
def test_a_variable_with_a_typing_error_is_warned_of() -> None:
    """Given OVERPAINT_SLOT, when settings are printed, then stderr names what was likely meant, and stdout is clean."""
    text, asked_for_json = (run("settings", *more, OVERPAINT_SLOT="3") for more in ((), ("--json",)))

    assert text.exit_code == 0
    assert text.stderr == "warning: OVERPAINT_SLOT: no program has this setting; did you mean OVERPAINT_SLOTS?\n"
    assert json.loads(asked_for_json.stderr)["warning"]["code"] == "settings"
    assert len(asked_for_json.stdout.splitlines()) == len(WorkerSettings.model_fields)


@pytest.mark.usefixtures("file")
def test_it_needs_no_worker_extra() -> None:
    """Given an installation without the worker extra, when a worker's settings are asked for, then all are printed."""
    absent = ("torch", "numpy", "diffusers", "transformers", "accelerate", "safetensors", "peft", "skimage", "greenlet")
    script = f"""
import sys
sys.modules.update(dict.fromkeys({absent!r}))
from overpaint_producer.cli import main
main(["settings", "worker"])
"""
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stderr
    assert len(done.stdout.splitlines()) > len(WorkerSettings.model_fields)


def test_a_worker_tells_all_mistakes_at_once_and_its_option_counts_first(file: Path) -> None:
    """Given devices twice and other mistakes, when a worker starts, then one error has them all and not the file's."""
    file.write_text('devices = "none"\nslots = 0')

    done = run("worker", "--devices", "0,0")

    assert done.exit_code == 78
    assert done.stderr.startswith("error[settings]: 3 things are wrong")
    assert "devices '0,0': name each device once" in done.stderr
    assert "none" not in done.stderr


@pytest.mark.usefixtures("file")
def test_a_keeper_says_at_its_start_which_variables_are_none(caplog: pytest.LogCaptureFixture) -> None:
    """Given a typing error and a store that is down, when a keeper starts, then it logs the error before it ends."""
    store = {"OVERPAINT_S3_ENDPOINT_URL": "http://127.0.0.1:1", "OVERPAINT_S3_MAX_ATTEMPTS": "1"}
    credentials = {"AWS_ACCESS_KEY_ID": "key", "AWS_SECRET_ACCESS_KEY": "secret", "AWS_DEFAULT_REGION": "us-east-1"}
    with caplog.at_level(logging.WARNING):
        done = run("keeper", OVERPAINT_LEDGER="s3://my-ledger/", OVERPAINT_SLOT="3", **store, **credentials)

    assert done.exit_code == 70
    assert "OVERPAINT_SLOT: no program has this setting; did you mean OVERPAINT_SLOTS?" in caplog.text
    assert "hunter2" not in caplog.text + done.output


@pytest.mark.parametrize(
    "command", [["settings"], ["settings", "--json"], ["settings", "worker"], ["doctor"], ["doctor", "--json"]]
)
@pytest.mark.parametrize("slots", ["4", "0"])
@pytest.mark.usefixtures("file")
def test_no_command_shows_a_secret(command: list[str], slots: str) -> None:
    """Given secrets in all places for them, when settings are shown, right or wrong, then none is in the output."""
    done = run(*command, OVERPAINT_SLOTS=slots)

    assert done.stdout + done.stderr
    assert "hunter2" not in done.output + done.stderr + repr(done.exception)
