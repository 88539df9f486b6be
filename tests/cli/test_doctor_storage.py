"""What `overpaint doctor` says of places that may not be touched, in S3 and in folders, and of S3's clock and rules."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from overpaint_common.findings import Finding
from overpaint_common.references import Reference
from overpaint_common.settings import AccessSettings, Settings
from overpaint_common.storage import LocalStore, ObjectStore, S3Options
from overpaint_common.storage.s3 import connect
from overpaint_producer.cli.checks import examine
from overpaint_producer.cli.checks.clock import check_s3_clock
from overpaint_producer.cli.checks.disk import check_files
from overpaint_producer.cli.checks.ledger import check_ledger
from overpaint_producer.cli.checks.storage import PROBE, check_expiry, check_readable, check_storage, check_writable
from tests.support.faults import Answer, Exchange, Request, answer, requests
from tests.support.faulty_http import FaultyProxy
from tests.support.s3 import S3Server, moto_server

if TYPE_CHECKING:
    from mypy_boto3_s3 import S3Client

DENIED = answer(403, "AccessDenied")


@dataclass(frozen=True)
class Bucket:
    """A bucket behind a proxy, with a source in `in/`."""

    server: S3Server
    proxy: FaultyProxy
    store: ObjectStore
    client: S3Client
    root: Reference

    @property
    def ledger(self) -> Reference:
        return self.root.join("ledger").as_prefix()

    def touch(self) -> list[Finding]:
        """What is found of the places that jobs may read and write."""
        read, write = self.root.join("in").as_prefix(), self.root.join("out").as_prefix()
        return [check_readable(self.store, read), *check_writable(self.store, write)]

    def keys(self) -> list[str]:
        found = self.server.client.list_objects_v2(Bucket=self.root.bucket)
        return [entry["Key"] for entry in found.get("Contents", [])]

    def expire(self, prefix: str) -> None:
        rule: Any = {"ID": "old", "Status": "Enabled", "Filter": {"Prefix": prefix}, "Expiration": {"Days": 30}}
        self.server.client.put_bucket_lifecycle_configuration(
            Bucket=self.root.bucket, LifecycleConfiguration={"Rules": [rule]}
        )


@pytest.fixture(scope="module")
def moto() -> Iterator[S3Server]:
    with moto_server() as server, pytest.MonkeyPatch.context() as patch:
        for name, value in server.environment.items():
            patch.setenv(name, value)
        yield server


@pytest.fixture(scope="module")
def settings(moto: S3Server) -> Iterator[tuple[FaultyProxy, Settings]]:
    """Of a proxy before the server."""
    with FaultyProxy(moto.endpoint_url) as proxy:
        yield (
            proxy,
            Settings.load(
                ledger="s3://not-this-one/", s3_endpoint_url=proxy.url, s3_addressing_style="path", s3_max_attempts=1
            ),
        )


@pytest.fixture(scope="module")
def clients(settings: tuple[FaultyProxy, Settings]) -> tuple[ObjectStore, S3Client]:
    return settings[1].open_store(), connect(S3Options.of(settings[1]))


@pytest.fixture
def bucket(
    moto: S3Server, settings: tuple[FaultyProxy, Settings], clients: tuple[ObjectStore, S3Client]
) -> Iterator[Bucket]:
    proxy, (store, client) = settings[0], clients
    with moto.bucket() as root:
        moto.client.put_object(Bucket=root.bucket, Key="in/cat.png", Body=b"a cat")
        yield Bucket(moto, proxy, store, client, root)
    proxy.clear()


def wrong(found: list[Finding]) -> dict[str, Finding]:
    return {finding.check: finding for finding in found if finding.state != "ok"}


def test_a_bucket_whose_every_right_is_there_is_well_and_keeps_nothing_of_the_look(bucket: Bucket) -> None:
    settings = AccessSettings.load(
        ledger=str(bucket.ledger),
        read=(str(bucket.root.join("in")),),
        write=(str(bucket.root.join("out")),),
        s3_endpoint_url=bucket.proxy.url,
        s3_addressing_style="path",
    )
    found = list(check_storage(settings))
    assert wrong(found) == {}
    assert {finding.check for finding in found} == {"storage", "conditional put", "ledger expiry", "read", "write"}
    assert bucket.keys() == ["in/cat.png"]


def test_who_may_not_delete_from_the_ledger_is_told_who_needs_it_and_what_stays(bucket: Bucket) -> None:
    """Given a producer's rights, when it looks, then that is no failure, and conditional puts are tried as ever."""
    bucket.proxy.on(requests("DELETE"), DENIED)
    found = {finding.check: finding for finding in check_ledger(bucket.store, bucket.ledger)}
    assert {check: finding.state for check, finding in found.items()} == {
        "storage": "ok",
        "conditional put": "ok",
        "ledger deletes": "warn",
    }
    kept = sorted(set(bucket.keys()) - {"in/cat.png"})
    assert [key.split("/")[1] for key in kept] == ["doctor", "probe"]
    assert all(key in found["ledger deletes"].message for key in kept)
    assert "s3:DeleteObject" in found["ledger deletes"].remedy


@pytest.mark.parametrize(
    ("refused", "states"),
    [
        (requests("GET", "/doctor/"), {"storage": "fail", "conditional put": "ok"}),
        (requests("GET", "prefix="), {"storage": "fail", "conditional put": "ok"}),
        (requests("GET", "/probe/"), {"storage": "ok", "conditional put": "fail"}),
    ],
)
def test_a_look_that_breaks_off_leaves_nothing_in_the_ledger(
    bucket: Bucket, refused: Any, states: dict[str, str]
) -> None:
    """Given S3 that refuses to read or to list, when the ledger is looked at, then what was written is gone."""
    rule = bucket.proxy.on(refused, DENIED)
    found = {finding.check: finding.state for finding in check_ledger(bucket.store, bucket.ledger)}
    assert rule.hits
    assert found == states
    assert bucket.keys() == ["in/cat.png"]


def test_an_interrupted_look_leaves_nothing_in_the_ledger(tmp_path: Path) -> None:
    """Given Ctrl-C while it reads, when the ledger is looked at, then what was written is gone."""

    class Interrupted(LocalStore):
        def read(self, reference: Reference, *, limit: int) -> bytes:  # noqa: ARG002 - the base's signature
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        list(check_ledger(Interrupted(), Reference.from_path(tmp_path).as_prefix()))
    assert [path for path in tmp_path.rglob("*") if path.is_file()] == []


def test_missing_credentials_are_told_once_and_break_no_check(bucket: Bucket, monkeypatch: pytest.MonkeyPatch) -> None:
    """Given no AWS credentials, when storage and clock are looked at, then storage says what to give."""
    monkeypatch.delenv("AWS_ACCESS_KEY_ID")
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    for name, value in {
        "OVERPAINT_LEDGER": str(bucket.ledger),
        "OVERPAINT_S3_ENDPOINT_URL": bucket.proxy.url,
        "OVERPAINT_S3_ADDRESSING_STYLE": "path",
        "OVERPAINT_REDIS_URL": "redis://127.0.0.1:1/0",
    }.items():
        monkeypatch.setenv(name, value)
    found = wrong(list(examine(("storage", "clock"))))
    assert "give complete AWS credentials" in found["storage"].remedy
    assert "NoCredentialsError" in found["clock"].message
    assert not [finding for finding in found.values() if "this check broke" in finding.message]


def reads(request: Request) -> bool:
    return request.method == "GET" and "/in/" in request.path


def deletes(request: Request) -> bool:
    return request.method == "DELETE" and f"/out/{PROBE}" in request.path


def copies(request: Request) -> bool:
    return "x-amz-copy-source" in request.headers


def writes(request: Request) -> bool:
    return request.method == "PUT" and f"/out/{PROBE}" in request.path and not copies(request)


@pytest.mark.parametrize(
    ("refused", "check", "state", "says"),
    [
        (reads, "read", "fail", "cannot read"),
        (requests("GET", "prefix=in"), "read", "warn", "may not be listed"),
        (writes, "write", "fail", "cannot write"),
        (deletes, "write", "fail", "cannot delete"),
        (requests("GET", "prefix=out"), "write", "fail", "cannot list"),
        (copies, "write", "warn", "names of their own"),
    ],
)
def test_a_right_that_is_missing_is_found_by_trying_it(
    bucket: Bucket, refused: Any, check: str, state: str, says: str
) -> None:
    rule = bucket.proxy.on(refused, DENIED)
    found = wrong(bucket.touch())
    assert rule.hits
    assert found.keys() == {check}
    assert found[check].state == state
    assert says in found[check].message
    assert found[check].remedy


def test_a_large_source_is_not_fetched_to_see_that_it_may_be_read(bucket: Bucket) -> None:
    received: list[int] = []

    def weigh(exchange: Exchange) -> None:
        true = exchange.forward()
        received.append(len(true.body))
        exchange.reply(true, body_bytes=0)  # Whoever waits for the body gets none, and fails.

    bucket.server.client.put_object(Bucket=bucket.root.bucket, Key="in/a.png", Body=bytes(2**20))
    bucket.proxy.on(requests("GET", "/in/a.png"), weigh)
    found = check_readable(bucket.store, bucket.root.join("in").as_prefix())
    assert (found.state, received) == ("ok", [2**20])


def test_no_lifecycle_rule_is_told_as_keeping_for_ever(bucket: Bucket) -> None:
    (found,) = check_expiry(bucket.client, bucket.ledger)
    assert (found.state, "for ever" in found.message) == ("ok", True)


@pytest.mark.parametrize(
    ("prefix", "state"),
    [
        ("ledger/jobs/", "ok"),
        ("ledger/jobs/order-", "ok"),
        ("ledger/", "warn"),
        ("", "warn"),
        ("ledger/open/", "warn"),
        ("ledger/open/bulk/", "warn"),
    ],
)
def test_a_lifecycle_rule_is_told_and_warned_of_where_it_forgets_open_jobs(
    bucket: Bucket, prefix: str, state: str
) -> None:
    bucket.expire(prefix)
    (found,) = check_expiry(bucket.client, bucket.ledger)
    assert found.state == state
    assert "30 days" in found.message


def test_rules_that_nobody_may_ask_for_are_no_finding(bucket: Bucket) -> None:
    bucket.proxy.on(requests("GET", "lifecycle"), DENIED)
    assert list(check_expiry(bucket.client, bucket.ledger)) == []


@pytest.mark.parametrize(("minutes", "state"), [(0, "ok"), (-3, "warn"), (20, "fail")])
def test_s3_clock_is_read_from_its_answers(bucket: Bucket, minutes: int, state: str) -> None:
    def skewed(exchange: Exchange) -> None:
        true = exchange.forward()
        told = format_datetime(datetime.now(UTC) + timedelta(minutes=minutes), usegmt=True)
        headers = [(name, value) for name, value in true.headers if name.lower() != "date"]
        exchange.reply(Answer(true.status, [*headers, ("Date", told)], true.body))

    bucket.proxy.on(requests("HEAD"), skewed)
    (found,) = check_s3_clock(bucket.client, bucket.ledger)
    assert found.state == state
    if minutes:
        assert f"{abs(minutes)} minutes {'ahead of' if minutes > 0 else 'behind'} this machine's" in found.message


def test_s3_clock_is_read_from_a_refusal_too(bucket: Bucket) -> None:
    def skewed(exchange: Exchange) -> None:
        told = format_datetime(datetime.now(UTC) + timedelta(hours=1), usegmt=True)
        exchange.reply(Answer(403, [("Date", told)], b""))

    bucket.proxy.on(requests("HEAD"), skewed)
    (found,) = check_s3_clock(bucket.client, bucket.ledger)
    assert (found.state, "60 minutes ahead" in found.message) == ("fail", True)


def test_a_file_in_the_folders_place_cannot_be_written(tmp_path: Path) -> None:
    (tmp_path / "out").write_text("no folder")
    (found,) = check_writable(LocalStore(), Reference.from_path(tmp_path / "out").as_prefix())
    assert (found.state, "is a file, not a folder" in found.message) == ("fail", True)


def test_a_folder_that_is_not_there_is_warned_of_and_not_made(tmp_path: Path) -> None:
    prefix = Reference.from_path(tmp_path / "typo").as_prefix()
    found = [check_readable(LocalStore(), prefix), *check_writable(LocalStore(), prefix)]
    assert [(finding.state, finding.remedy.partition(",")[0]) for finding in found] == [("warn", "create it")] * 2
    assert not (tmp_path / "typo").exists()


def test_a_prefix_inside_another_of_the_same_list_is_warned_of(tmp_path: Path) -> None:
    (tmp_path / "in" / "deep").mkdir(parents=True)
    outer = Reference.from_path(tmp_path / "in").as_prefix()
    settings = AccessSettings.load(
        ledger=str(Reference.from_path(tmp_path / "ledger")), read=(str(outer), str(outer.join("deep")))
    )
    found = wrong(list(check_storage(settings)))
    assert found.keys() == {"allowlists"}
    assert "OVERPAINT_READ" in found["allowlists"].message


@pytest.mark.parametrize("setting", ["OVERPAINT_READ", "OVERPAINT_WRITE"])
def test_a_full_disk_below_a_place_of_jobs_is_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, setting: str
) -> None:
    """Given a ledger here and a place on a file system without room, such as /proc, when disks are seen, it fails."""
    monkeypatch.setenv("OVERPAINT_LEDGER", str(Reference.from_path(tmp_path / "ledger")))
    monkeypatch.setenv(setting, "file:///proc/")
    (full,) = (finding for finding in examine(("disk",)) if "/proc" in finding.message)
    assert (full.state, full.check) == ("fail", "disk")


@pytest.mark.parametrize(("connections", "state"), [(32, "ok"), (10**9, "warn")])
def test_more_connections_than_open_files_are_warned_of(connections: int, state: str) -> None:
    assert check_files(connections).state == state
