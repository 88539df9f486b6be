"""`overpaint dead`: what could not be done is listed, shown, done again and dropped."""

from __future__ import annotations

import json
import os
import pty
import subprocess
import sys
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from types import SimpleNamespace
from typing import Any

import pytest
from redis import Redis

from overpaint_common import wire
from overpaint_common.dead import DeadLetter, DeadLetters
from overpaint_common.errors import WorkerCrashed
from overpaint_common.ledger import Request
from overpaint_common.raw import RawMessage
from overpaint_common.result import Failure, Result
from overpaint_common.webhooks import DeadWebhook, PendingWebhook, WebhookEvent
from overpaint_producer import Producer
from overpaint_worker.settings import WorkerSettings
from overpaint_worker.submissions import accept_submission
from tests.cli.conftest import Place

UNDERSTOOD = b'{"body": 1}'


@pytest.fixture
def producer(place: Place, monkeypatch: pytest.MonkeyPatch) -> Iterator[Producer]:
    with place.producer(monkeypatch) as producer:
        yield producer


@pytest.fixture
def letters(producer: Producer) -> DeadLetters:
    return DeadLetters(producer.store, producer.settings.ledger_root)


@pytest.fixture
def redis(place: Place) -> Iterator[Redis]:
    with Redis.from_url(place.redis.url) as client:
        yield client


def ended(producer: Producer, job_id: str) -> tuple[Request, Result]:
    """A job that workers died at, as the keeper ends it."""
    request = producer.ledger.request(job_id)
    record = Result(
        job_id=job_id,
        status="failed",
        attempt="abc",
        attempts=3,
        job=request.job,
        failure=Failure.of(WorkerCrashed("3 workers died while they worked on it, the last one gpu-1")),
        accepted_at=request.accepted_at,
        finished_at=datetime.now(UTC),
    )
    return request, producer.ledger.commit(record)


def bury_job(place: Place, producer: Producer, letters: DeadLetters, *options: str) -> str:
    """The name of a new dead job."""
    request, record = ended(producer, place.submit(*options))
    letters.bury_job(DeadLetter.of(request, record, crashes=3, worker="gpu-1"))
    return f"jobs/{request.job.id}"


def bury_message(producer: Producer, data: bytes = UNDERSTOOD, queue: str = wire.SUBMIT_QUEUE) -> str:
    """The name of a message that a worker put aside."""
    raw = RawMessage(queue=queue, reason="headers: Field required", received_at=datetime.now(UTC), data=data)
    producer.ledger.bury("raw", raw.name, raw.model_dump_json().encode())
    return f"raw/{raw.name}"


def bury_submission(place: Place, producer: Producer, body: object, **settings: Any) -> str:
    """The name of a message that a worker refused."""
    folder = place.folder.as_uri()
    places = {"ledger": producer.settings.ledger, "read": f"{folder}/in/", "write": f"{folder}/out/"}
    worker = SimpleNamespace(
        settings=WorkerSettings.load(**places, **settings),
        acceptance=producer._acceptance,
        ledger=producer.ledger,
    )
    accept_submission(worker, "message-1", [body])
    return "submissions/message-1"


def bury_webhook(place: Place, producer: Producer, letters: DeadLetters) -> tuple[str, str]:
    """The name of a webhook that was given up, and its job's id."""
    request, record = ended(producer, place.submit())
    pending = PendingWebhook.model_validate(
        {
            "webhook": "https://hooks.example.com/secret-path",
            "event": WebhookEvent.of(record, None),
            "handed_over_at": datetime.now(UTC),
            "tries": 17,
            "error": "answered 500",
        }
    )
    letters.put("webhooks", request.job.id, DeadWebhook.of(pending, datetime.now(UTC)))
    return f"webhooks/{request.job.id}", request.job.id


def body(place: Place, **changes: object) -> dict[str, object]:
    """A job as a client in another language sends it."""
    prefix = place.folder.as_uri()
    return {
        "source": place.source.as_uri(),
        "model": "mini",
        "passes": [{"op": "img2img", "prompt": "a blue house"}],
        "output": {"prefix": f"{prefix}/out/"},
        **changes,
    }


def test_a_pipe_gets_one_line_for_each_letter_the_newest_first(
    place: Place, producer: Producer, letters: DeadLetters
) -> None:
    """Given a dead job and a raw message, when listed, then name, time, reason and summary stand in columns."""
    job, raw = bury_job(place, producer, letters), bury_message(producer)

    done = place.run("dead", "list")

    assert done.exit_code == 0, done.output
    first, second = done.stdout.splitlines()
    now = f"{datetime.now(UTC):%Y-%m-%d}"
    assert first.split()[:2] == [raw, now]
    assert first.endswith(f"invalid_message  {len(UNDERSTOOD)} bytes in overpaint.submit: headers: Field required")
    assert second.split()[:2] == [job, now]
    assert second.endswith("worker_crashed   3 workers died while they worked on it, the last one gpu-1")
    assert first.index("invalid_message") == second.index("worker_crashed")


def test_a_terminal_of_80_columns_wraps_no_line(place: Place, producer: Producer, letters: DeadLetters) -> None:
    """Given a dead job with a long reason, when it is listed on a real terminal, then no line is wider than that."""
    job = bury_job(place, producer, letters)
    ours, theirs = pty.openpty()
    command = [sys.executable, "-m", "overpaint_producer.cli", "dead", "list"]
    environment = {**os.environ, **place.variables, "COLUMNS": "80", "TERM": "dumb", "NO_COLOR": "1"}
    done = subprocess.run(command, stdout=theirs, stderr=subprocess.PIPE, env=environment, timeout=60, check=False)
    os.close(theirs)
    told = os.read(ours, 10_000).decode()
    os.close(ours)

    assert done.returncode == 0, done.stderr
    lines = told.replace("\x1b[1m", "").replace("\x1b[0m", "").splitlines()
    assert lines[0] == job
    assert len(lines) == 2
    assert all(len(line) <= 80 for line in lines)
    assert "worker_crashed  3 workers died" in lines[1]
    assert lines[1].endswith("...")


def test_a_listing_for_programs_is_one_object_a_line(place: Place, producer: Producer, letters: DeadLetters) -> None:
    """Given dead letters of two kinds, when one kind is listed as JSON, then its fields are the documented ones."""
    job = bury_job(place, producer, letters)
    bury_message(producer)

    done = place.run("dead", "list", "--kind", "jobs", "--json")

    (line,) = done.stdout.splitlines()
    found = json.loads(line)
    assert found.keys() == {"name", "when", "code", "summary"}
    assert (found["name"], found["code"]) == (job, "worker_crashed")
    assert datetime.fromisoformat(found["when"]) <= datetime.now(UTC)


def test_what_a_limit_leaves_out_is_told(place: Place, producer: Producer, letters: DeadLetters) -> None:
    """Given two dead jobs, when one may be listed, then the other is counted, apart from the list."""
    for _ in range(2):
        bury_job(place, producer, letters)

    done = place.run("dead", "list", "--limit", "1")

    assert len(done.stdout.splitlines()) == 1
    assert done.stderr == "1 more left out; list them with --limit or --kind\n"


def test_nothing_dead_is_no_error(place: Place) -> None:
    """Given an empty ledger, when dead letters are listed, then stdout stays empty."""
    done = place.run("dead", "list")
    assert (done.exit_code, done.stdout, done.stderr) == (0, "", "no dead letters\n")


def test_a_letter_is_shown_as_json(place: Place, producer: Producer, letters: DeadLetters) -> None:
    """Given a dead job, when it is shown, then all that is known of it can be read, and by programs too."""
    name = bury_job(place, producer, letters, "--seed", "5")

    for options in ((), ("--json",)):
        done = place.run("dead", "show", name, *options)
        shown = json.loads(done.stdout)
        assert (done.exit_code, shown["crashes"], shown["worker"], shown["job"]["seed"]) == (0, 3, "gpu-1", 5)


def test_a_message_cannot_steer_the_terminal(place: Place, producer: Producer) -> None:
    """Given a raw message with escape sequences, when it is listed and shown, then none of them gets through."""
    name = bury_message(producer, "plain \x1b[2J \x9b2J \u202e text".encode(), queue="overpaint.\x9b2J")

    for command in (("list",), ("show", name)):
        told = place.run("dead", *command).stdout
        assert not [char for char in told if not char.isprintable() and char != "\n"]
    assert "\\u009b" in place.run("dead", "show", name).stdout


def test_a_dead_job_is_replayed_as_the_same_job_under_a_new_id(
    place: Place, producer: Producer, letters: DeadLetters, redis: Redis
) -> None:
    """Given a dead job, when it is replayed, then a job with the same body and seeds is queued and its letter gone."""
    name = bury_job(place, producer, letters)
    old = name.removeprefix("jobs/")

    done = place.run("dead", "replay", name)

    assert done.exit_code == 0, done.output
    new = done.stdout.strip()
    first, again = (producer.ledger.request(job_id).job for job_id in (old, new))
    assert new != old
    assert first.seed is not None
    assert again == first.model_copy(update={"id": new})
    assert redis.zscore(wire.queued_key(wire.queue_name("mini", "standard")), new) is not None
    assert letters.names() == []
    record = producer.ledger.record(old)
    assert record is not None
    assert record.status == "failed"


def test_a_replay_that_was_interrupted_is_the_same_job_when_repeated(
    place: Place, producer: Producer, letters: DeadLetters
) -> None:
    """Given a replay that submitted and died before it dropped the letter, when repeated, then no job is added."""
    name = bury_job(place, producer, letters)
    letter = letters.read(name).document
    first = place.run("dead", "replay", name).stdout.strip()
    assert isinstance(letter, DeadLetter)
    letters.bury_job(letter)

    assert place.run("dead", "replay", name).stdout.strip() == first
    assert letters.names() == []


def test_a_replay_under_a_chosen_id_uses_it_and_never_the_old_one(
    place: Place, producer: Producer, letters: DeadLetters
) -> None:
    """Given a dead job, when it is replayed with --id, then under that id, unless it is the job's own or no id."""
    name = bury_job(place, producer, letters)
    for wrong in (name.removeprefix("jobs/"), "NO ID"):
        done = place.run("dead", "replay", name, "--id", wrong)
        assert (done.exit_code, done.stdout) == (2, "")
    assert letters.names() == [name]

    done = place.run("dead", "replay", name, "--id", "order-1234-again", "--json")

    assert json.loads(done.stdout) == {"name": name, "became": "order-1234-again"}
    assert producer.ledger.request("order-1234-again").job.id == "order-1234-again"


def test_a_deadline_that_has_passed_is_left_out(place: Place, producer: Producer, letters: DeadLetters) -> None:
    """Given a dead job whose deadline is over, when it is replayed, then without one, and that is said."""
    request, record = ended(producer, place.submit())
    late = request.job.model_copy(update={"deadline": datetime.now(UTC) - timedelta(minutes=1)})
    letters.bury_job(DeadLetter.of(request.model_copy(update={"job": late}), record))

    done = place.run("dead", "replay", f"jobs/{late.id}")

    assert "has passed and was left out" in done.stderr
    assert producer.ledger.request(done.stdout.strip()).job.deadline is None


def test_while_redis_is_down_a_replayed_job_is_accepted(place: Place, producer: Producer, letters: DeadLetters) -> None:
    """Given a dead Redis, when a job is replayed, then it is accepted, its letter dropped, and the delay told."""
    name = bury_job(place, producer, letters)

    done = place.run("dead", "replay", name, OVERPAINT_REDIS_URL="redis://127.0.0.1:1/0")

    assert done.exit_code == 0, done.output
    assert "the keeper will queue it" in done.stderr
    assert producer.ledger.request(done.stdout.strip()).job.id
    assert letters.names() == []


def test_a_refused_submission_is_accepted_once_the_fleet_serves_it(
    place: Place, producer: Producer, letters: DeadLetters
) -> None:
    """Given a job for a model that nobody had, when replayed before and after, then only the second works."""
    name = bury_submission(place, producer, body(place, model="other"))
    assert letters.read(name).code == "unknown_model"

    refused = place.run("dead", "replay", name)
    assert (refused.exit_code, refused.stdout) == (2, "")
    assert refused.stderr.startswith("error[unknown_model]:")
    assert letters.names() == [name]

    place.announce(alive=True, model="other")
    assert place.run("dead", "replay", name).stdout == "message-1\n"
    assert producer.ledger.request("message-1").job.model == "other"
    assert letters.names() == []


def test_a_body_can_be_mended_and_submitted(place: Place, producer: Producer) -> None:
    """Given a refused body, when `show` gives it out and it is corrected, then `submit --job` takes it."""
    name = bury_submission(place, producer, body(place, colour="green"))
    mended = json.loads(place.run("dead", "show", name).stdout)["body"]
    del mended["colour"]

    done = place.run("submit", "--job", "-", stdin=json.dumps(mended))

    assert done.exit_code == 0, done.output


def test_a_submission_of_unknown_origin_is_not_let_in_by_a_replay(
    place: Place, producer: Producer, letters: DeadLetters
) -> None:
    """Given a message without the signature that workers ask for, when it is replayed, then it is refused and stays."""
    name = bury_submission(place, producer, body(place), submit_secret="correct horse battery staple")

    done = place.run("dead", "replay", name)

    assert done.exit_code == 2
    assert done.stderr.startswith("error[invalid_signature]: message message-1 is not signed")
    assert letters.names() == [name]


def test_a_raw_message_goes_back_to_its_queue_as_it_came(
    place: Place, producer: Producer, letters: DeadLetters, redis: Redis
) -> None:
    """Given a message that nobody understood, when it is replayed, then its queue has the very same bytes."""
    data = b"\x80\x02}q\x00."
    name = bury_message(producer, data)

    done = place.run("dead", "replay", name)

    assert done.stdout == "overpaint.submit\n"
    assert redis.lrange(wire.SUBMIT_QUEUE, 0, -1) == [data]
    assert letters.names() == []


def test_a_raw_message_is_pushed_to_no_other_key(
    place: Place, producer: Producer, letters: DeadLetters, redis: Redis
) -> None:
    """Given a letter that names a key which is no queue, when it is replayed, then nothing is written there."""
    name = bury_message(producer, queue=wire.RAW_KEY)

    done = place.run("dead", "replay", name)

    assert done.exit_code == 2
    assert "no queue of Overpaint's" in done.stderr
    assert not redis.exists(wire.RAW_KEY)
    assert letters.names() == [name]


def test_while_redis_is_down_a_raw_message_stays_a_letter(
    place: Place, producer: Producer, letters: DeadLetters
) -> None:
    """Given a dead Redis, when a raw message is replayed, then it is the infrastructure's turn and the letter stays."""
    name = bury_message(producer)

    done = place.run("dead", "replay", name, OVERPAINT_REDIS_URL="redis://127.0.0.1:1/0")

    assert done.exit_code == 3
    assert letters.names() == [name]


def test_a_webhook_is_handed_over_anew_with_all_its_tries(
    place: Place, producer: Producer, letters: DeadLetters, redis: Redis
) -> None:
    """Given a webhook that was given up, when it is replayed, then it is pending and due, and its URL not shown."""
    name, job_id = bury_webhook(place, producer, letters)
    shown = place.run("dead", "show", name).stdout

    done = place.run("dead", "replay", name)

    assert done.stdout.strip() == job_id
    pending = producer.ledger.webhook(job_id)
    assert pending is not None
    assert (pending.tries, pending.error) == (0, None)
    assert str(pending.webhook) == "https://hooks.example.com/secret-path"
    due: Any = redis.zscore(wire.WEBHOOKS_KEY, job_id)
    assert abs(due / 1000 - datetime.now(UTC).timestamp()) < 60
    assert letters.names() == []
    assert "secret-path" not in shown + done.output
    assert json.loads(shown)["receiver"] == "hooks.example.com"


def test_several_letters_are_replayed_in_one_go_but_not_under_one_id(
    place: Place, producer: Producer, letters: DeadLetters
) -> None:
    """Given two dead jobs, when both are replayed, then each has its new id; one --id for both is refused."""
    names = [bury_job(place, producer, letters) for _ in range(2)]

    assert place.run("dead", "replay", *names, "--id", "some-new-id").exit_code == 2
    done = place.run("dead", "replay", *names)

    assert len(set(done.stdout.split())) == 2
    assert letters.names() == []


@pytest.mark.parametrize("command", ["show", "replay", "drop"])
@pytest.mark.parametrize(
    ("name", "code"), [("jobs/never-was-there", "object_not_found"), ("nonsense", "invalid_reference")]
)
def test_a_name_that_is_no_letters_is_the_callers_mistake(
    place: Place, producer: Producer, letters: DeadLetters, command: str, name: str, code: str
) -> None:
    """Given a wrong name beside a right one, when a command is given it, then exit code 2 and nothing was done."""
    right = bury_message(producer)
    given = [name] if command == "show" else [right, name]

    done = place.run("dead", command, *given)

    assert done.exit_code == 2
    assert done.stderr.startswith(f"error[{code}]: ")
    assert "overpaint dead list" in done.stderr
    assert letters.names() == [right]


@pytest.mark.parametrize(("answer", "left"), [("y\n", 0), ("n\n", 2), ("", 2)])
def test_dropping_asks_first(place: Place, producer: Producer, letters: DeadLetters, answer: str, left: int) -> None:
    """Given two letters, when they are dropped, then only after a yes; without one the exit code tells scripts."""
    names = [bury_job(place, producer, letters), bury_message(producer)]

    done = place.run("dead", "drop", *names, stdin=answer)

    assert (done.exit_code, len(letters.names())) == (2 if left else 0, left)
    assert "Drop 2 dead letters for good?" in done.stderr
    assert done.stdout == ("" if left else "dropped 2 dead letters\n")


def test_all_of_one_kind_are_dropped_without_being_asked(
    place: Place, producer: Producer, letters: DeadLetters
) -> None:
    """Given letters of two kinds, one unreadable, when one kind is dropped with --yes, then the other stays."""
    job = bury_job(place, producer, letters)
    bury_message(producer)
    producer.ledger.bury("raw", "unreadable", b"\xff")

    done = place.run("dead", "drop", "--all", "--kind", "raw", "--yes")

    assert done.stdout == "dropped 2 dead letters\n"
    assert letters.names() == [job]


@pytest.mark.parametrize("options", [(), ("--all",), ("--kind", "raw"), ("jobs/x", "--all", "--kind", "jobs")])
def test_dropping_wants_names_or_all_of_a_kind(place: Place, options: tuple[str, ...]) -> None:
    """Given neither names nor all of one kind, when asked to drop, then that is a usage error."""
    done = place.run("dead", "drop", *options, "--yes")
    assert done.exit_code == 2
    assert "name dead letters, or give --all with one --kind" in done.stderr


def test_an_unreadable_letter_is_not_replayed(place: Place, producer: Producer, letters: DeadLetters) -> None:
    """Given a letter that is not understood, when it is replayed, then it says why and stays."""
    producer.ledger.bury("jobs", "odd", b"{}")

    done = place.run("dead", "replay", "jobs/odd")

    assert done.exit_code == 3
    assert done.stderr.startswith("error[ledger_unreadable]: jobs/odd cannot be replayed: not understood: ")
    assert letters.names() == ["jobs/odd"]


@pytest.mark.parametrize("command", ["list", "show", "replay", "drop"])
def test_every_subcommand_shows_an_example(place: Place, command: str) -> None:
    """Given a subcommand, when its help is asked for, then it teaches by example, with every line complete."""
    done = place.run("dead", command, "--help")
    assert done.exit_code == 0
    assert f"  overpaint dead {command} " in done.stdout
    assert command in place.run("dead", "--help").stdout
