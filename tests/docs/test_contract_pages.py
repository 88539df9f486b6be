"""The pages that list the contract say what the code says: settings, registry, errors, protocol, keys, figures."""

from __future__ import annotations

import json
import re
from typing import Any, Literal, get_args, get_origin

import pytest
from click.testing import CliRunner
from jsonschema import Draft202012Validator
from pydantic import SecretStr
from pydantic.fields import FieldInfo

from overpaint_common import errors, wire
from overpaint_common.errors import OverpaintError
from overpaint_common.job import Job, Output
from overpaint_common.keys import LedgerKeys, picture, result_copy
from overpaint_common.live import FINAL_STATES, STATUS_TTL, WORKER_TTL, Progress
from overpaint_common.passes import Img2Img, Pass
from overpaint_common.references import Reference
from overpaint_common.result import Result
from overpaint_common.schema import schemas
from overpaint_producer.cli import main
from overpaint_worker.cli import worker as worker_command
from overpaint_worker.engine.engine import PhaseLimits
from overpaint_worker.engine.registry import ModelSpec
from overpaint_worker.operations import SERVED
from overpaint_worker.retry import OUTAGE_ATTEMPTS, PAUSE
from overpaint_worker.settings import WorkerSettings
from overpaint_worker.supervisor import FIRST_BACKOFF, LAST_BACKOFF
from tests.docs.pages import DOCS, README, ROOT, page

SETTINGS, ERRORS, PROTOCOL = page(DOCS / "settings.md"), page(DOCS / "errors.md"), page(DOCS / "protocol.md")
ARCHITECTURE = page(DOCS / "architecture.md")
EXAMPLES = [json.loads(block) for block in PROTOCOL.blocks("json")]

_READ_DIRECTLY = re.compile(r'environ\.get\("(OVERPAINT_\w+)"(?:, "(\w*)")?\)')


def shown(field: FieldInfo) -> str:
    """A default as the pages write it."""
    if field.is_required():
        return "required"
    match field.get_default(call_default_factory=True):
        case None:
            return "none"
        case ():
            return "nothing"
        case bool(value):
            return str(value).lower()
        case SecretStr() as secret:
            return secret.get_secret_value()
        case value:
            return str(value)


def choices(annotation: Any) -> set[str]:
    """The values of the literals in a type."""
    if get_origin(annotation) is Literal:
        return set(get_args(annotation))
    return {choice for part in get_args(annotation) for choice in choices(part)}


def read_past_the_settings() -> dict[str, str]:
    """Variables that the code takes from the environment by name, with their defaults."""
    found: dict[str, str] = {}
    for source in (file for part in ("common", "producer", "worker") for file in (ROOT / part).rglob("*.py")):
        found.update(_READ_DIRECTLY.findall(source.read_text()))
    return found


def test_settings_lists_every_variable_with_its_default() -> None:
    """Given all that the code reads from the environment, when the tables are read, then they agree."""
    direct = read_past_the_settings()
    internal = {"OVERPAINT_DEVICE", "OVERPAINT_PARENT_PIPE"}
    expected = {f"OVERPAINT_{name.upper()}": shown(field) for name, field in WorkerSettings.model_fields.items()}
    expected |= {name: default for name, default in direct.items() if name not in internal}
    expected |= {str(option.envvar): str(option.default) for option in worker_command.params if option.envvar}
    rows = SETTINGS.rows("variable")
    assert {row[0]: row[1] for row in rows} == expected
    assert len({row[0] for row in rows}) == len(rows)
    assert internal <= direct.keys()
    assert all(f"`{name}`" in SETTINGS.text for name in internal)


@pytest.mark.parametrize(
    ("column", "prefix", "fields"),
    [("variable", "OVERPAINT_", WorkerSettings.model_fields), ("key", "", ModelSpec.model_fields)],
    ids=["settings", "registry"],
)
def test_every_choice_of_a_setting_is_named(column: str, prefix: str, fields: dict[str, FieldInfo]) -> None:
    """Given fields that take one of a few words, when their rows are read, then each word is there."""
    meanings = {row[0].removeprefix(prefix).lower(): row[2] for row in SETTINGS.rows(column)}
    for name, field in fields.items():
        assert all(f"`{choice}`" in meanings[name] for choice in choices(field.annotation)), name


def test_the_registry_table_lists_every_key_with_its_default() -> None:
    """Given the fields of a registry entry, when the table is read, then they agree."""
    assert {row[0]: row[1] for row in SETTINGS.rows("key")} == {
        name: shown(field) for name, field in ModelSpec.model_fields.items()
    }


def test_errors_lists_every_code_with_its_class_and_whether_to_retry() -> None:
    """Given the error tree, when the tables are read, then codes, classes and answers agree, and each has a remedy."""
    tree = [kind for kind in vars(errors).values() if isinstance(kind, type) and issubclass(kind, OverpaintError)]
    rows = [row for row in ERRORS.rows("code") if len(row) == 5]
    assert sorted((code, name, retry) for code, name, _, retry, _ in rows) == sorted(
        (kind.code, kind.__name__, "yes" if kind.retryable else "no") for kind in tree
    )
    assert all(meaning and remedy for _, _, meaning, _, remedy in rows)


def test_errors_and_help_list_the_same_exit_codes() -> None:
    """Given the command line's help, when the table of exit codes is read, then both have the same codes."""
    told = re.findall(r"^ +(\d+)  \w", CliRunner().invoke(main, ["--help"]).output, re.MULTILINE)
    assert [row[0] for row in ERRORS.rows("code") if len(row) == 2] == told


def test_the_jobs_and_records_of_the_protocol_page_fit_the_schemas() -> None:
    """Given the page's JSON, when it is held against the committed schemas and the models, then it is valid."""
    job, message, record = EXAMPLES
    folder = ROOT / "common" / "overpaint_common" / "schemas"
    for document, name in (
        (job, "job.schema.json"),
        (record, "result.schema.json"),
        (record["job"], "job.schema.json"),
    ):
        committed = json.loads((folder / name).read_text())
        assert committed == schemas()[name]
        Draft202012Validator(committed, format_checker=Draft202012Validator.FORMAT_CHECKER).validate(document)
    assert Job.parse(json.dumps(job)).id == Result.model_validate(record).job_id == job["id"]
    assert json.loads(message["body"]) == [[job], {}, {}]
    assert message["headers"]["task"] == wire.SUBMIT_TASK
    assert message["properties"]["delivery_info"]["routing_key"] == wire.SUBMIT_QUEUE


def test_the_protocol_page_lists_every_state_and_status() -> None:
    """Given the states of a job, when the page's tables are read, then each is there."""
    assert {row[0] for row in PROTOCOL.rows("status")} == FINAL_STATES
    assert [row[0] for row in PROTOCOL.rows("field")] == list(Progress.model_fields)
    (state,) = [row[1] for row in PROTOCOL.rows("field") if row[0] == "state"]
    assert {f"{name}" for name in re.findall(r"`(\w+)`", state)} == {"queued", "running", *FINAL_STATES}


def test_the_architecture_page_names_the_keys_of_the_ledger() -> None:
    """Given the key layout, when the page's table is read, then it is spelled the same."""
    keys = LedgerKeys(Reference.parse("s3://bucket/L/"))
    job = Job(
        id="job-id-of-a-test",
        source="s3://bucket/source",
        model="m",
        passes=(Img2Img(),),
        output=Output(prefix="s3://bucket/out/"),
    )
    written = [
        keys.request(job.id),
        keys.marker("standard", job.model, job.id),
        keys.record(job.id),
        keys.dead("submissions", "<message id>"),
        picture(job, 0, "<attempt>"),
        result_copy(job),
    ]
    spelled = [
        key.key.replace(job.id, "<id>")
        .replace("standard/m/", "<priority>/<model>/")
        .replace("out/", "<output>/")
        .replace("/0-", "/<variant>-")
        .replace(".png", ".<format>")
        for key in written
    ]
    assert [row[0] for row in ARCHITECTURE.rows("key")][: len(spelled)] == spelled


def test_the_architecture_page_names_the_keys_of_redis() -> None:
    """Given the names on the wire, when the page is read, then each is there."""
    names = [wire.status_key("<id>"), wire.events_key("<id>"), wire.attempts_key("<id>"), wire.worker_key("<name>")]
    for name in (*names, wire.MODELS_KEY, wire.FLEET_KEY, wire.SUBMIT_QUEUE, "overpaint.<model>.<priority>"):
        assert f"`{name}`" in ARCHITECTURE.text, name
    assert wire.queue_name("<model>", "bulk") == "overpaint.<model>.bulk"


def test_the_figures_in_the_pages_are_those_of_the_code() -> None:
    """Given numbers that the pages give in words, when the code's are looked at, then they are the same."""
    transport = wire.celery_settings("redis://")["broker_transport_options"]
    assert transport["visibility_timeout"] == 2 * 3600
    assert "visibility timeout of two hours" in page(README).text
    assert "visibility timeout, 2 hours" in ARCHITECTURE.text
    assert (PAUSE, OUTAGE_ATTEMPTS) == (2, 100)
    assert "after 2 seconds, up to 100 times" in ARCHITECTURE.text
    assert Job.model_fields["max_attempts"].default == 3
    assert "`max_attempts` (3)" in ARCHITECTURE.text
    assert (PhaseLimits().step, PhaseLimits().load) == (5 * 60, 30 * 60)
    assert "a step of more than 5 minutes, or a load of more than 30" in ARCHITECTURE.text
    assert (FIRST_BACKOFF, LAST_BACKOFF) == (1, 30)
    assert "after 1 to 30 seconds" in ARCHITECTURE.text
    assert WORKER_TTL / 3 == 5
    assert "renewed every 5 seconds" in ARCHITECTURE.text
    assert STATUS_TTL == 24 * 3600
    assert "kept for a day" in ARCHITECTURE.text


def test_the_readme_says_which_operations_are_not_served() -> None:
    """Given the operations of the contract, when the README is read, then it names those that no worker serves."""
    kinds = get_args(get_args(Pass)[0])
    operations = [kind.model_fields["op"].default for kind in kinds]
    refused = ", ".join(f"`{name}`" for name in operations if name not in SERVED)
    first, _, last = refused.rpartition(", ")
    assert f"So are {first} and {last}" in page(README).text
