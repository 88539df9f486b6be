"""The pages that list the contract say what the code says: settings, registry, errors, protocol, keys."""

from __future__ import annotations

import base64
import hashlib
import hmac
import inspect
import json
import re
import tomllib
from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path
from types import ModuleType
from typing import Any, Literal, get_args, get_origin

import pytest
from click.testing import CliRunner
from jsonschema import Draft202012Validator
from pydantic import SecretStr
from pydantic.fields import FieldInfo
from standardwebhooks import Webhook

from overpaint_common import dead, naming, wire
from overpaint_common.configuration import FILE_VARIABLE
from overpaint_common.job import Job, Output
from overpaint_common.keys import LedgerKeys, picture, result_copy
from overpaint_common.live import FINAL_STATES, JobState, Progress
from overpaint_common.passes import Img2Img
from overpaint_common.references import Reference
from overpaint_common.result import Result
from overpaint_common.schema import schemas
from overpaint_common.settings import AccessSettings, Settings
from overpaint_common.signing import verify
from overpaint_common.webhooks import MAKE_SECRET, WebhookEvent, verify_webhook
from overpaint_producer.cli import main
from overpaint_worker.engine.registry import ModelSpec
from overpaint_worker.messages import MAX_MESSAGE_BYTES
from overpaint_worker.retry import BLOCKED, OUTAGE_ATTEMPTS, RULES, Backoff, Rule
from overpaint_worker.settings import KeeperSettings, WorkerSettings
from overpaint_worker.submissions import named_job, signed_job
from tests.docs.pages import DOCS, ROOT, page
from tools.errors_page import tree
from tools.settings_page import written

SETTINGS, ERRORS, PROTOCOL = page(DOCS / "settings.md"), page(DOCS / "errors.md"), page(DOCS / "protocol.md")
ARCHITECTURE = page(DOCS / "architecture.md")
JOB, MORE, MESSAGE, SIGNED, RECORD, EVENT = (json.loads(block) for block in PROTOCOL.blocks("json"))

_READ_DIRECTLY = re.compile(r'environ(?:\.get\(|\[)"(OVERPAINT_\w+)"')


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


def read_past_the_settings() -> set[str]:
    """Variables that the code takes from the environment by name."""
    sources = (file for part in ("common", "producer", "worker") for file in (ROOT / part).rglob("*.py"))
    return {name for source in sources for name in _READ_DIRECTLY.findall(source.read_text())}


def test_settings_lists_every_variable_with_its_default() -> None:
    """Given all that the programs read, when the tables are read, then they agree."""
    rows = SETTINGS.rows("variable")
    assert {row[0]: row[1] for row in rows} == {
        f"OVERPAINT_{name.upper()}": shown(field) for name, field in WorkerSettings.model_fields.items()
    }
    assert len({row[0] for row in rows}) == len(rows)


def test_no_setting_is_read_past_the_classes() -> None:
    """Given the code, when it is searched for variables read by name, then they are the supervisor's for its children.

    A setting that is read so would not count where the file gives it.
    """
    internal = {"OVERPAINT_DEVICE", "OVERPAINT_PARENT_PIPE"}
    assert read_past_the_settings() == internal
    assert all(f"`{name}`" in SETTINGS.text for name in internal)


@pytest.mark.parametrize(
    ("heading", "kind", "parent"),
    [
        ("Everybody", Settings, None),
        ("What jobs may touch", AccessSettings, Settings),
        ("Workers and keepers", KeeperSettings, AccessSettings),
        ("Workers", WorkerSettings, KeeperSettings),
    ],
)
def test_each_setting_stands_under_those_who_read_it(
    heading: str, kind: type[Settings], parent: type[Settings] | None
) -> None:
    """Given the classes of settings, when a section is read, then it has just the fields that its class adds."""
    added = set(kind.model_fields) - set(parent.model_fields if parent else ())
    expected = {f"OVERPAINT_{name.upper()}" for name in added}
    assert {row[0] for row in SETTINGS.section(heading).rows("variable")} == expected


def test_the_tables_of_settings_are_of_the_classes() -> None:
    """Given the settings classes and the registry's, when their tables are made again, then the page has them so."""
    assert written(SETTINGS.text) == SETTINGS.text
    assert len(SETTINGS.rows("variable")) + len(SETTINGS.rows("key")) == len(
        WorkerSettings.model_fields | {f"models.{name}": field for name, field in ModelSpec.model_fields.items()}
    )


def test_the_file_on_the_settings_page_is_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Given the page's file with the handbook's registry beside it, when a worker reads it, then it has each value."""
    (example,) = [block for block in SETTINGS.section("The file").blocks("toml") if "ledger" in block]
    (registry,) = (block for block in page(DOCS / "handbook.md").blocks("toml") if "[models." in block)
    (tmp_path / "overpaint.toml").write_text(example)
    (tmp_path / "models.toml").write_text(registry)
    monkeypatch.setenv(FILE_VARIABLE, str(tmp_path / "overpaint.toml"))
    monkeypatch.setenv("OVERPAINT_WEBHOOK_SECRET", f"whsec_{base64.b64encode(bytes(32)).decode()}")
    settings = WorkerSettings.load()
    given = tomllib.loads(example)
    assert len(given) > 10
    found = {name: getattr(settings, name) for name in given}
    assert found.pop("redis_url").get_secret_value() == given.pop("redis_url")
    assert found.pop("registry") == tmp_path / given.pop("registry")
    assert found == {name: tuple(value) if isinstance(value, list) else value for name, value in given.items()}


def test_the_settings_page_makes_a_secret_as_the_messages_do() -> None:
    """Given the command that errors name for making a secret, when the page is read, then it is the same."""
    assert MAKE_SECRET in SETTINGS.spans


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


def test_every_error_says_itself_what_it_means_and_what_to_do() -> None:
    """Given the error tree, from which the page's tables are made, when a class is read, then nothing is inherited."""
    kinds = tree()
    assert [
        kind.code for kind in kinds if not {"__doc__", "code", "remedy"} <= vars(kind).keys() or not kind.__doc__
    ] == []
    sentences = [text for kind in kinds for text in (" ".join((kind.__doc__ or "").split()), kind.remedy)]
    assert [text for text in sentences if not re.fullmatch(r"[A-Z][^|\n]+\.", text)] == []


def test_every_error_stands_in_one_table_of_the_page() -> None:
    """Given the page, when the first column of its tables is read, then it has each code with its class once."""
    shown = [row[0] for row in ERRORS.rows("code and class")]
    assert sorted(shown) == sorted(f"`{kind.code}` `{kind.__name__}`" for kind in tree())


def paused(backoff: Backoff) -> list[str]:
    """A back-off as the table writes it."""
    if backoff.longest == 0:
        return ["none", "", ""]
    return [f"{backoff.first:g} s", f"\u00d7 {backoff.factor:g}", f"{backoff.longest:g} s"]


def test_errors_lists_how_each_is_tried_again() -> None:
    """Given the worker's rules, when the table is read, then it has just these codes, with kind and pauses."""
    rules: Mapping[str, Rule] = {error.code: rule for error, rule in RULES.items()}
    section = ERRORS.section("Tried again")
    codes = {error.code for error in tree()}
    rows = {row[0]: row[1:] for row in section.rows("error")}
    assert {name for name in rows if name in codes} == rules.keys()
    for code, rule in rules.items():
        kind = {"try": "try", "outage": "outage", "crash": "crash; outage for jobs that it had not begun to paint"}
        assert rows[code] == [kind[rule.kind], *paused(rule.backoff)], code
    assert rows["a worker's death"][1:] == paused(Backoff(0, 1, 0))
    (blocked,) = [cells for name, cells in rows.items() if name.startswith("the ledger refuses")]
    assert blocked == [f"{BLOCKED.kind}, but never given up", *paused(BLOCKED.backoff)]
    assert f"{OUTAGE_ATTEMPTS} of them are forgiven" in section.prose


def test_the_architecture_page_says_when_a_death_is_no_crash() -> None:
    """Given the phases that the scripts count as waiting, when the page is read, then it names just these."""
    script = (ROOT / "common" / "overpaint_common" / "lua" / "prelude.lua").read_text()
    *first, last = (f"`{phase}`" for phase in re.findall(r"phase == '(\w+)'", script))
    assert f"in {', '.join(first)} or {last} it only waited" in ARCHITECTURE.prose


def test_errors_lists_every_kind_of_dead_letter() -> None:
    """Given the kinds of dead letters, when the table is read, then each has a row that is filled."""
    rows = ERRORS.section("Dead letters").rows("kind")
    assert tuple(row[0] for row in rows) == dead.KINDS
    assert all(all(row) and len(row) == 4 for row in rows)


def test_errors_and_help_list_the_same_exit_codes() -> None:
    """Given the command line's help, when the table of exit codes is read, then both have the same codes."""
    told = re.findall(r"^ +(\d+)  \w", CliRunner().invoke(main, ["--help"]).output, re.MULTILINE)
    assert [row[0] for row in ERRORS.rows("code") if len(row) == 2] == told


def valid(document: Any, name: str) -> None:
    """Held against the committed schema, which must be today's."""
    committed = json.loads((ROOT / "common" / "overpaint_common" / "schemas" / name).read_text())
    assert committed == schemas()[name]
    Draft202012Validator(committed, format_checker=Draft202012Validator.FORMAT_CHECKER).validate(document)


def test_the_jobs_and_records_of_the_protocol_page_fit_the_schemas() -> None:
    """Given the page's JSON, when it is held against the committed schemas and the models, then it is valid."""
    for job in (JOB, {**JOB, **MORE}, RECORD["job"]):
        valid(job, "job.schema.json")
    valid(RECORD, "result.schema.json")
    valid(EVENT, "webhook.schema.json")
    full = Job.parse(json.dumps({**JOB, **MORE}))
    assert full.deadline == datetime(2026, 3, 1, 9, 5, tzinfo=UTC)
    assert all(f"`{name}`" in PROTOCOL.text for name in ("deadline", "webhook"))
    assert Job.parse(json.dumps(JOB)).id == Result.model_validate(RECORD).job_id == JOB["id"]


def test_the_message_of_the_protocol_page_is_what_workers_take() -> None:
    """Given the page's message, when it is taken apart, then its parts are those of the code."""
    assert json.loads(MESSAGE["body"]) == [[JOB], {}, {}]
    assert MESSAGE["headers"]["task"] == wire.SUBMIT_TASK
    assert MESSAGE["properties"]["delivery_info"]["routing_key"] == wire.SUBMIT_QUEUE
    assert named_job([JOB], "message-id") == Job.parse(json.dumps(JOB))
    assert MAX_MESSAGE_BYTES == 1 << 20
    assert "more than 1 MiB" in PROTOCOL.prose


def test_the_signed_job_of_the_protocol_page_is_signed() -> None:
    """Given the page's signed job and secret, when the signature is computed as the page says, then workers take it."""
    text, signature = SIGNED
    (secret,) = re.findall(r"for the job above and the secret `([^`]+)`", PROTOCOL.prose)
    assert json.loads(text) == JOB
    assert signature == hmac.new(secret.encode(), text.encode(), hashlib.sha256).hexdigest()
    assert signed_job(SIGNED, secret) == Job.parse(text)
    assert not verify(text, signature, "another secret")


def test_the_webhook_of_the_protocol_page_is_that_of_its_record_and_signed() -> None:
    """Given the page's record, when its webhook is made, then body and headers are those on the page, and genuine."""
    body = PROTOCOL.blocks("json")[-1].rstrip("\n")
    record = Result.model_validate(RECORD)
    assert body.encode() == WebhookEvent.of(record, str(result_copy(record.job))).body()
    (block,) = PROTOCOL.blocks("http")
    headers = dict(line.split(": ", 1) for line in block.splitlines()[1:])
    (secret,) = re.findall(r"`(whsec_[^`]{30,})`", PROTOCOL.prose)
    sent = datetime.fromtimestamp(int(headers["webhook-timestamp"]), UTC)
    assert headers["webhook-id"] == EVENT["id"]
    assert headers["webhook-signature"] == Webhook(secret).sign(EVENT["id"], sent, body)
    content = f"{headers['webhook-id']}.{headers['webhook-timestamp']}.{body}".encode()
    key = base64.b64decode(secret.removeprefix("whsec_"))
    assert headers["webhook-signature"] == f"v1,{base64.b64encode(hmac.digest(key, content, 'sha256')).decode()}"
    assert verify_webhook(headers, body, secret, tolerance=float("inf")).job_id == JOB["id"]


def test_the_protocol_page_lists_every_state_and_status() -> None:
    """Given the states of a job, when the page's tables are read, then each is there."""
    assert {row[0] for row in PROTOCOL.rows("status")} == FINAL_STATES
    assert [row[0] for row in PROTOCOL.rows("field")] == list(Progress.model_fields)
    (state,) = [row[1] for row in PROTOCOL.rows("field") if row[0] == "state"]
    assert re.findall(r"`(\w+)`", state) == list(get_args(JobState))


NAMES_OF_THE_DEAD: Mapping[dead.Kind, str] = {
    "jobs": "<id>",
    "submissions": "<message id>",
    "raw": "<digest>",
    "webhooks": "<id>",
}


def test_the_architecture_page_names_the_keys_of_the_ledger() -> None:
    """Given the key layout, when the page's table is read, then it is spelled the same."""
    keys = LedgerKeys(Reference.parse("s3://bucket/L/"))
    job = Job(
        id="job-id-of-a-test",
        source="s3://bucket/source",
        model="m",
        passes=(Img2Img(),),
        output=Output(prefix="s3://bucket/out/", name="<name>.{format}"),
    )
    written = [
        keys.request(job.id),
        keys.marker("standard", job.model, job.id),
        keys.record(job.id),
        keys.webhook(job.id),
        *(keys.dead(kind, NAMES_OF_THE_DEAD[kind]) for kind in dead.KINDS),
        keys.root.join("probe", "<random>"),
        picture(job, 0, "<attempt>"),
        naming.published(job, 0),
        result_copy(job),
    ]
    spelled = [
        key.key.replace(job.id, "<id>")
        .replace("standard/m/", "<priority>/<model>/")
        .replace("out/", "<output>/")
        .replace("/0-", "/<variant>-")
        .replace(".png", ".<format>")
        for key in written
        if key is not None
    ]
    assert [row[0] for row in ARCHITECTURE.section("3. The ledger").rows("key")] == spelled


def test_the_protocol_page_lists_every_placeholder_of_a_name() -> None:
    """Given what a template may hold, when the page's table is read, then it has a row for each."""
    assert [row[0] for row in PROTOCOL.rows("placeholder")] == [
        f"{{{name}}}" for name in (*naming.FIELDS, "label:NAME")
    ]
    assert all(f"`{choice}`" in PROTOCOL.text for choice in naming.ENDINGS)


def redis_keys(module: ModuleType) -> set[str]:
    """Every key of Redis that the module names, with placeholders where it takes arguments."""
    named = {value for name, value in vars(module).items() if name.endswith("_KEY")}
    makers = [make for name, make in vars(module).items() if name.endswith("_key")]
    placeholders = {"job_id": "<id>", "name": "<name>", "queue": "<queue>", "model": "<model>"}
    made = {make(*(placeholders[name] for name in inspect.signature(make).parameters)) for make in makers}
    return named | made


def test_the_architecture_page_lists_every_key_of_redis() -> None:
    """Given the names on the wire, when the table is read, then it has a row for each, and no other."""
    section = ARCHITECTURE.section("4. What Redis holds")
    keys = redis_keys(wire)
    assert len(keys) > 15
    rows = [row[0] for row in section.rows("key")]
    assert len(set(rows)) == len(rows)
    assert set(rows) == keys
    for name in (wire.SUBMIT_QUEUE, "overpaint.<model>.<priority>"):
        assert f"`{name}`" in section.text, name
    assert wire.queue_name("<model>", "bulk") == "overpaint.<model>.bulk"


def test_the_picture_of_a_jobs_life_has_the_steps_of_the_page() -> None:
    """Given the numbered steps, when the picture's numbers are collected, then there is an arrow for each."""
    section = ARCHITECTURE.section("1. The life of a job")
    steps = re.findall(r"^(\d+)\. ", section.text, re.MULTILINE)
    svg = (DOCS / "life-of-a-job.svg").read_text()
    assert re.findall(r">(\d+)</text>", svg) == steps
    assert svg.count("<circle") == len(steps)
    assert f"with {('nine', 'ten', 'eleven')[len(steps) - 9]} numbered arrows" in section.prose
