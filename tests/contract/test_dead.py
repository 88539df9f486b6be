"""Dead letters: kept, listed, read and dropped, whatever lies in their place; nothing secret is shown."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from overpaint_common.dead import KINDS, DeadLetter, DeadLetters, DeadSubmission, Letter, parted
from overpaint_common.errors import InternalError, InvalidReference, ObjectNotFound, PipelineFailed
from overpaint_common.job import Job
from overpaint_common.keys import LedgerKeys
from overpaint_common.ledger import Request
from overpaint_common.raw import RawMessage
from overpaint_common.receivers import redacted
from overpaint_common.references import Reference
from overpaint_common.result import Failure, Result
from overpaint_common.storage import LocalStore
from overpaint_common.webhooks import DeadWebhook, PendingWebhook, WebhookEvent

NOW = datetime(2026, 11, 2, 14, 3, tzinfo=UTC)
TOKEN = "token-that-nobody-may-see"


@pytest.fixture
def root(tmp_path: Path) -> Reference:
    return Reference.from_path(tmp_path / "ledger").as_prefix()


@pytest.fixture
def letters(root: Reference) -> DeadLetters:
    return DeadLetters(LocalStore(), root)


def request(job_id: str = "job-that-died") -> Request:
    job = Job.model_validate(
        {
            "id": job_id,
            "source": "s3://photos/cat.png",
            "model": "mini",
            "passes": [{"op": "img2img", "prompt": "a cat", "seed": 5}],
            "seed": 7,
            "output": {"prefix": "s3://pictures/"},
            "webhook": f"https://hooks.example.com/{TOKEN}",
        }
    )
    return Request(job=job, digest="0" * 64, accepted_at=NOW)


def record(of: Request, *, failed: bool = True) -> Result:
    return Result(
        job_id=of.job.id,
        status="failed" if failed else "succeeded",
        attempt="abc",
        attempts=3,
        job=redacted(of.job),
        failure=Failure.of(PipelineFailed("the pipeline raised")) if failed else None,
        accepted_at=of.accepted_at,
        finished_at=NOW,
    )


def webhook() -> DeadWebhook:
    of = request()
    pending = PendingWebhook(
        webhook=of.job.webhook,
        event=WebhookEvent.of(record(of), None),
        handed_over_at=NOW,
        tries=17,
        error="answered 500",
    )
    return DeadWebhook.of(pending, NOW + timedelta(days=1))


def test_a_job_is_buried_whole_so_that_it_can_be_submitted_again(letters: DeadLetters) -> None:
    """Given a job's request and its failed record, when it is buried, then the letter has the job, webhook and all."""
    of = request()
    letter = DeadLetter.of(of, record(of), crashes=2, worker="gpu-3")

    letters.bury_job(letter)
    letters.bury_job(letter)

    (found,) = letters.list().letters
    assert found.name == "jobs/job-that-died"
    assert found.document == letter
    assert isinstance(found.document, DeadLetter)
    assert found.document.job == of.job
    assert (found.when, found.code, found.summary) == (NOW, "pipeline_failed", "the pipeline raised")
    assert (letter.attempts, letter.crashes, letter.worker) == (3, 2, "gpu-3")


def test_a_job_that_did_not_fail_cannot_be_buried() -> None:
    """Given the record of a job that succeeded, when a letter is made of it, then that is a bug, and said to be."""
    of = request()
    with pytest.raises(InternalError, match="job-that-died ended as succeeded"):
        DeadLetter.of(of, record(of, failed=False))


def test_the_newest_letters_come_first_and_those_without_a_time_last(letters: DeadLetters) -> None:
    """Given letters of all kinds, when they are listed, then by time, each with its reason in a word and in a line."""
    of = request()
    letters.bury_job(DeadLetter.of(of, record(of)))
    letters.put("submissions", "m1", DeadSubmission(id="m1", code="invalid_job", error="passes: required", body={}))
    later = NOW + timedelta(hours=1)
    letters.put("raw", "r1", RawMessage(queue="overpaint.submit", reason="no JSON", received_at=later, data=b"\0\1\2"))
    letters.put("webhooks", "job-that-died", webhook())

    found = letters.list().letters

    assert [(letter.name, letter.code, letter.summary) for letter in found] == [
        ("webhooks/job-that-died", "undelivered", "job.failed to hooks.example.com, 17 tries: answered 500"),
        ("raw/r1", "invalid_message", "3 bytes in overpaint.submit: no JSON"),
        ("jobs/job-that-died", "pipeline_failed", "the pipeline raised"),
        ("submissions/m1", "invalid_job", "passes: required"),
    ]
    assert [letter.kind for letter in letters.list("raw").letters] == ["raw"]
    assert letters.names() == ["jobs/job-that-died", "submissions/m1", "raw/r1", "webhooks/job-that-died"]


def test_a_listing_has_a_limit_for_each_kind_and_says_what_it_left_out(letters: DeadLetters) -> None:
    """Given more letters than the limit, when they are listed, then the first of each kind come, and a number."""
    for number in range(5):
        of = request(f"job-that-died-{number}")
        letters.bury_job(DeadLetter.of(of, record(of)))
    letters.put("webhooks", "job-that-died", webhook())

    listing = letters.list(limit=2)

    assert {letter.name for letter in listing.letters} == {
        "jobs/job-that-died-0",
        "jobs/job-that-died-1",
        "webhooks/job-that-died",
    }
    assert listing.left_out == 3


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("body", [b"\xff\x00 no JSON", b'{"schema_version": 2}', b"[" * 100_000, b""])
def test_a_letter_that_is_not_understood_is_still_listed_shown_and_dropped(
    letters: DeadLetters, root: Reference, kind: str, body: bytes
) -> None:
    """Given anything at all in a letter's place, when letters are looked at, then it is one like the others."""
    LocalStore().put(LedgerKeys(root).dead(kind, "odd"), body, content_type="text/plain")

    (found,) = letters.list().letters
    assert (found.name, found.code, found.document) == (f"{kind}/odd", "unreadable", None)
    assert found.summary.startswith("not understood: ")
    assert json.dumps(letters.read(found.name).shown())

    letters.drop(found.name)
    assert letters.names() == []


def test_a_webhook_is_never_shown_in_full(letters: DeadLetters, root: Reference) -> None:
    """Given letters with a webhook's URL, of today and of a newer version, when shown, then only its receiver is."""
    of = request()
    letters.bury_job(DeadLetter.of(of, record(of)))
    letters.put("webhooks", "job-that-died", webhook())
    newer = json.loads(webhook().model_dump_json()) | {"schema_version": 2}
    LocalStore().put(LedgerKeys(root).dead("webhooks", "newer"), json.dumps(newer).encode(), content_type="text/plain")

    for found in letters.list().letters:
        shown = json.dumps(found.shown())
        assert TOKEN not in shown + found.summary + repr(found.document)
        assert found.key == "newer" or "hooks.example.com" in shown


@pytest.mark.parametrize(
    ("data", "field", "value"),
    [
        (b'{"body": 1}', "json", {"body": 1}),
        ("ein Gruß".encode(), "text", "ein Gruß"),
        (b"\x80\x02}q", "hex", "80027d71"),
        (b"[" * 100_000, "text", "[" * 4096),
    ],
)
def test_a_raw_message_is_shown_as_well_as_it_can_be_read(data: bytes, field: str, value: object) -> None:
    """Given a raw message, when its letter is shown, then as JSON, as text or in hex, and its size is told."""
    message = RawMessage(queue="overpaint.submit", reason="why", received_at=NOW, data=data)

    shown = Letter("raw", "x", message, b"").shown()

    assert shown[field] == value
    assert shown["bytes"] == len(data)


@pytest.mark.parametrize("name", ["", "jobs", "jobs/", "dead/x", "jobs/a/b", "../jobs/x", "jobs/../x"])
def test_what_is_no_name_of_a_letter_is_refused(letters: DeadLetters, name: str) -> None:
    """Given a name that is not KIND/NAME, when it is asked for, then no key is touched."""
    for call in (letters.read, letters.drop, lambda name: letters.check([name])):
        with pytest.raises(InvalidReference):
            call(name)


def test_a_name_without_a_letter_is_not_found(letters: DeadLetters) -> None:
    """Given a well-formed name, when there is no such letter, then it is not found; dropping it is no error."""
    assert parted("jobs/gone") == ("jobs", "gone")
    for call in (letters.read, lambda name: letters.check([name])):
        with pytest.raises(ObjectNotFound, match="there is no dead letter jobs/gone"):
            call("jobs/gone")
    letters.drop("jobs/gone")
