"""Whole jobs that come as messages: accepted, refused and kept, or left to be tried again; signed where asked."""

from __future__ import annotations

import hashlib
import hmac
import json
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from redis import Redis

from overpaint_common import wire
from overpaint_common.acceptance import Acceptance, Accepted
from overpaint_common.errors import BrokerUnavailable, InvalidSignature, StorageError
from overpaint_common.job import MAX_JOB_BYTES, Job
from overpaint_common.ledger import Ledger
from overpaint_common.live import connect
from overpaint_common.signing import sign, verify
from overpaint_common.storage.writing import is_temporary
from overpaint_producer.local.redis import EmbeddedRedis, free_port
from overpaint_worker.settings import WorkerSettings
from overpaint_worker.submissions import accept_submission, signed_job

SECRET = "a secret for the tests only"
JOB: dict[str, Any] = {
    "id": "order-1234-cover",
    "source": "s3://photos/cat.jpg",
    "model": "some-model",
    "passes": [{"op": "img2img", "prompt": "a cat in snow, 猫"}],
    "output": {"prefix": "s3://pictures/"},
}
QUEUE = wire.queue_name("some-model", "standard")


@dataclass
class Door:
    """The parts of a worker that take submissions."""

    settings: WorkerSettings
    acceptance: Acceptance
    ledger: Ledger
    folder: Path

    def accepted(self) -> list[str]:
        return sorted(path.parent.name for path in self.folder.glob("jobs/*/request.json"))

    def letters(self) -> dict[str, dict[str, Any]]:
        files = [path for path in self.folder.glob("dead/submissions/*") if not is_temporary(path.name)]
        return {path.name: json.loads(path.read_bytes()) for path in files}


def door(folder: Path, redis_url: str, **settings: Any) -> Door:
    chosen = WorkerSettings.load(
        redis_url=redis_url, ledger=folder.as_uri(), read="s3://photos/", write="s3://pictures/", **settings
    )
    ledger = Ledger(chosen.open_store(), chosen.ledger_root)
    redis = connect(redis_url, patience=1)
    return Door(chosen, Acceptance(ledger, redis), ledger, folder)


@pytest.fixture(scope="module")
def redis(tmp_path_factory: pytest.TempPathFactory) -> Iterator[EmbeddedRedis]:
    with EmbeddedRedis(tmp_path_factory.mktemp("redis"), append_only=False) as running:
        yield running


@pytest.fixture
def client(redis: EmbeddedRedis) -> Iterator[Redis]:
    with Redis.from_url(redis.url) as client:
        client.flushall()
        yield client


@pytest.fixture
def opened(redis: EmbeddedRedis, tmp_path: Path) -> Door:
    """A worker without a secret."""
    return door(tmp_path / "ledger", redis.url)


@pytest.fixture
def guarded(redis: EmbeddedRedis, tmp_path: Path) -> Door:
    """A worker with a secret."""
    return door(tmp_path / "ledger", redis.url, submit_secret=SECRET)


def signed(text: str, secret: str = SECRET) -> list[str]:
    """The arguments of a signed message, by another hand than ours."""
    return [text, hmac.digest(secret.encode(), text.encode(), "sha256").hex()]


def without_id(job: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in job.items() if name != "id"}


def test_a_job_is_accepted_and_queued(opened: Door, client: Redis) -> None:
    """Given a job as an object, when it is submitted, then the ledger holds it and its queue has a ticket."""
    accept_submission(opened, "message-1", [JOB])
    assert opened.accepted() == ["order-1234-cover"]
    assert client.llen(QUEUE) == 1
    assert opened.letters() == {}


def test_a_job_without_an_id_takes_that_of_its_message(opened: Door, client: Redis) -> None:
    """Given a job without an id, when its message comes twice, then it is one job under the message's id."""
    for _ in range(2):
        accept_submission(opened, "message-1", [without_id(JOB)])
    assert opened.accepted() == ["message-1"]
    assert client.llen(QUEUE) == 1


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        ([{**JOB, "variants": 99}], "variants: "),
        ([{**JOB, "labels": {"a": "x" * MAX_JOB_BYTES}}], f"the limit is {MAX_JOB_BYTES}"),
        ([{**JOB, "seed": float("inf")}], "seed: "),
        (["no", "object", 1], "takes one argument"),
        ([None], "takes one argument"),
        ([], "takes one argument"),
        (signed(json.dumps(JOB)), "signed, but this worker has no secret .*; set OVERPAINT_SUBMIT_SECRET"),
    ],
)
def test_a_refused_job_is_kept_with_the_reason(opened: Door, arguments: list[Any], says: str) -> None:
    """Given what is no job, when it is submitted, then message, code, reason and body are a dead letter."""
    accept_submission(opened, "message-1", arguments)
    letter = opened.letters()["message-1"]
    assert (letter["id"], letter["code"]) == ("message-1", "invalid_job")
    assert letter["body"] == (arguments[0] if len(arguments) == 1 else arguments)
    assert re.search(says, letter["error"])
    assert opened.accepted() == []


def test_a_message_may_be_named_as_its_sender_likes(opened: Door) -> None:
    """Given a message whose id climbs out of its folder, when it is refused, then its letter lies under a hash."""
    accept_submission(opened, "../../jobs/x", [])
    ((name, letter),) = opened.letters().items()
    assert name == hashlib.sha256(b"../../jobs/x").hexdigest()
    assert letter["id"] == "../../jobs/x"


def test_a_signed_job_is_accepted(guarded: Door, client: Redis) -> None:
    """Given a worker with a secret, when texts signed with it come in any JSON spelling, then each is accepted."""
    accept_submission(guarded, "message-1", signed(json.dumps(JOB)))
    text = json.dumps({**JOB, "id": "order-1234-back"}, indent=3, ensure_ascii=False, sort_keys=True)
    text, signature = signed(text)
    accept_submission(guarded, "message-2", [text, signature.upper()])
    assert guarded.letters() == {}
    assert guarded.accepted() == ["order-1234-back", "order-1234-cover"]
    assert client.llen(QUEUE) == 2


@pytest.mark.parametrize(
    "arguments",
    [
        [JOB],
        [json.dumps(JOB)],
        [json.dumps(JOB), ""],
        [json.dumps(JOB), None],
        [json.dumps(JOB) + " ", signed(json.dumps(JOB))[1]],
        signed(json.dumps(JOB), "another secret"),
        [json.dumps(JOB), hashlib.sha256(json.dumps(JOB).encode()).hexdigest()],
        [json.dumps(JOB), signed(json.dumps(JOB))[1][:-1]],
        [json.dumps(JOB), "é" * 64],
        [JOB, signed(json.dumps(JOB))[1]],
        [*signed(json.dumps(JOB)), "more"],
        [],
    ],
)
def test_without_the_right_signature_nothing_is_accepted(guarded: Door, client: Redis, arguments: list[Any]) -> None:
    """Given a worker with a secret, when a job comes unsigned or wrongly signed, then it is kept and not accepted."""
    accept_submission(guarded, "message-1", arguments)
    letter = guarded.letters()["message-1"]
    assert letter["code"] == InvalidSignature.code
    assert letter["body"] == (arguments[0] if len(arguments) == 1 else arguments)
    assert SECRET not in json.dumps(letter)
    assert guarded.accepted() == []
    assert client.llen(QUEUE) == 0


def test_what_is_not_signed_is_not_parsed() -> None:
    """Given a text that is no JSON at all, when its signature is wrong, then that alone is complained of."""
    with pytest.raises(InvalidSignature, match="OVERPAINT_SUBMIT_SECRET"):
        signed_job(["<", "0" * 64], SECRET)


def test_a_signed_job_names_its_own_id(guarded: Door) -> None:
    """Given a signed job without an id, when it comes, then it is refused: who repeats it could choose its id."""
    accept_submission(guarded, "message-1", signed(json.dumps(without_id(JOB))))
    assert guarded.letters()["message-1"]["error"].startswith("id: required in a signed job")
    assert guarded.accepted() == []


def test_a_signature_is_the_one_of_the_standard() -> None:
    """Given a test case of RFC 4231, when it is signed, then it is the digest printed there, and no other verifies."""
    text, digest = "what do ya want for nothing?", "5bdcc146bf60754e6a042426089575c75a003f089d2739839dec58b964ec3843"
    assert sign(text, "Jefe") == digest
    assert verify(text, digest, "Jefe")
    assert not verify(text, digest, "jefe")
    assert not verify(text + "\ud800", digest, "Jefe")


def test_without_storage_the_message_is_to_be_tried_again(redis: EmbeddedRedis, client: Redis) -> None:
    """Given a ledger that cannot be written, when good or bad jobs come, then the error reaches the caller."""
    broken = door(Path("/dev/null/ledger"), redis.url)
    for job in (JOB, {**JOB, "variants": 99}):
        with pytest.raises(StorageError):
            accept_submission(broken, "message-1", [job])
    assert client.llen(QUEUE) == 0


def test_without_redis_the_job_is_accepted_and_the_message_tried_again(tmp_path: Path) -> None:
    """Given no Redis, when a job comes, then the ledger has it, and the caller hears that it is not queued."""
    alone = door(tmp_path, f"redis://127.0.0.1:{free_port()}/0")
    with pytest.raises(BrokerUnavailable):
        accept_submission(alone, "message-1", [JOB])
    assert alone.accepted() == ["order-1234-cover"]
    assert alone.letters() == {}


def test_what_nobody_foresaw_does_not_come_back_for_ever(opened: Door) -> None:
    """Given a bug in accepting, when a job meets it, then the job is kept as a dead letter like any refused one."""

    class Broken(Acceptance):
        def accept(self, job: Job) -> Accepted:
            raise ZeroDivisionError(job.id)

    opened.acceptance = Broken(opened.ledger, Redis())
    accept_submission(opened, "message-1", [JOB])
    letter = opened.letters()["message-1"]
    assert (letter["code"], letter["body"]) == ("internal", JOB)
