"""Stores that do not decide conditional puts: found out and refused, or accepted in the weaker mode."""

from __future__ import annotations

import logging
from datetime import UTC, datetime

import pytest

from overpaint_common.errors import ObjectExists, ObjectNotFound, SettingsError, StorageDenied, StorageUnavailable
from overpaint_common.job import Job, Output
from overpaint_common.ledger import Ledger
from overpaint_common.passes import Img2Img
from overpaint_common.references import Reference
from overpaint_common.result import Result
from overpaint_common.settings import Settings
from overpaint_common.storage import WeakStore, require_conditional_puts
from overpaint_producer.cli.checks import check_ledger
from tests.support import faulty_http as faults
from tests.support.faulty_http import Exchange, FaultyProxy, requests
from tests.support.s3 import S3Server

from .conftest import Place

NOT_IMPLEMENTED = faults.answer(501, "NotImplemented")


def conditional(request: faults.Request) -> bool:
    return request.method == "PUT" and "if-none-match" in request.headers


def put(place: Place, body: bytes) -> None:
    place.store.put(place.at("x"), body, content_type="text/plain", if_absent=True)


def content(place: Place) -> bytes:
    return place.store.read(place.at("x"), limit=100)


def objects(place: Place) -> list[Reference]:
    return [info.reference for info in place.store.list(place.root)]


def test_a_store_that_decides_conditional_puts_passes_and_is_left_as_it_was(place: Place) -> None:
    """Given the local store or S3, when it is probed, then nothing is raised and nothing stays there."""
    require_conditional_puts(place.store, place.at("L"))

    assert objects(place) == []


def test_the_probe_costs_four_requests_below_a_prefix_of_its_own(behind_proxy: Place, proxy: FaultyProxy) -> None:
    """Given S3, when it is probed, then one random key below `probe/` is written twice, read and deleted."""
    require_conditional_puts(behind_proxy.store, behind_proxy.at("L"))

    assert [request.method for request in proxy.recorded] == ["PUT", "PUT", "GET", "DELETE"]
    (key,) = {request.path.partition("?")[0] for request in proxy.recorded}
    assert key.startswith(f"/{behind_proxy.root.bucket}/L/probe/")


def test_a_store_that_ignores_the_condition_is_refused(unconditional: Place) -> None:
    """Given S3 that ignores If-None-Match, when it is probed, then the message says what to use instead."""
    with pytest.raises(SettingsError) as raised:
        require_conditional_puts(unconditional.store, unconditional.at("L"))

    for part in (str(unconditional.at("L")), "ignores the condition", "If-None-Match", "OVERPAINT_WEAK_COMMITS=true"):
        assert part in str(raised.value)
    assert "may both record it" in str(raised.value)
    assert objects(unconditional) == []


@pytest.mark.parametrize("answer", [(501, "NotImplemented"), (501, ""), (400, "InvalidArgument")])
def test_a_store_that_refuses_the_condition_is_refused(
    behind_proxy: Place, proxy: FaultyProxy, answer: tuple[int, str]
) -> None:
    """Given S3 that answers an error to If-None-Match alone, when it is probed, then the message quotes the answer."""
    proxy.on(conditional, faults.answer(*answer))

    with pytest.raises(SettingsError, match=f"takes no conditional writes .*{answer[0]}.*OVERPAINT_WEAK_COMMITS=true"):
        require_conditional_puts(behind_proxy.store, behind_proxy.at("L"))

    assert objects(behind_proxy) == []


def test_an_error_that_has_nothing_to_do_with_conditions_is_told_as_it_is(
    impatient_place: Place, proxy: FaultyProxy
) -> None:
    """Given a bucket that is missing, denied or down, when it is probed, then the store's own error comes through."""
    with pytest.raises(ObjectNotFound, match="bucket does not exist"):
        require_conditional_puts(impatient_place.store, Reference.parse("s3://no-such-bucket-here/L/"))
    proxy.on(requests("PUT"), faults.answer(403, "AccessDenied"))
    with pytest.raises(StorageDenied):
        require_conditional_puts(impatient_place.store, impatient_place.at("L"))
    proxy.on(requests("PUT"), faults.answer(503, "SlowDown"))
    with pytest.raises(StorageUnavailable):
        require_conditional_puts(impatient_place.store, impatient_place.at("L"))
    proxy.on(requests("PUT"), faults.answer(400, "InvalidRequest"))
    with pytest.raises(Exception, match="InvalidRequest") as raised:
        require_conditional_puts(impatient_place.store, impatient_place.at("L"))
    assert not isinstance(raised.value, SettingsError)


def test_a_lost_answer_does_not_mislead_the_probe(behind_proxy: Place, proxy: FaultyProxy) -> None:
    """Given S3 whose first answer is lost, when the retried put meets its own object, then the store passes."""
    rule = proxy.on(conditional, faults.drop_response(), times=1)

    require_conditional_puts(behind_proxy.store, behind_proxy.at("L"))

    assert rule.hits == 1


def test_the_weaker_mode_is_a_setting_that_says_so_in_the_log(
    unconditional: Place, proxy: FaultyProxy, caplog: pytest.LogCaptureFixture
) -> None:
    """Given OVERPAINT_WEAK_COMMITS, when a store that ignores conditions is probed, then it passes with a warning."""
    settings = {"ledger": str(unconditional.at("L")), "s3_endpoint_url": proxy.url, "s3_addressing_style": "path"}
    with pytest.raises(SettingsError, match="OVERPAINT_WEAK_COMMITS"):
        require_conditional_puts(Settings.load(**settings).open_store(), unconditional.at("L"))

    with caplog.at_level(logging.WARNING):
        require_conditional_puts(Settings.load(**settings, weak_commits=True).open_store(), unconditional.at("L"))

    assert "OVERPAINT_WEAK_COMMITS is set" in caplog.text


def test_the_weaker_mode_never_sends_a_condition(behind_proxy: Place, proxy: FaultyProxy) -> None:
    """Given S3 that answers 501 to If-None-Match, when the weaker mode puts twice, then the second finds the first."""
    rule = proxy.on(conditional, NOT_IMPLEMENTED)
    weak = Place(WeakStore(behind_proxy.store), behind_proxy.root)

    put(weak, b"first")
    with pytest.raises(ObjectExists, match=str(weak.at("x"))):
        put(weak, b"second")

    assert content(weak) == b"first"
    assert rule.hits == 0


def record(attempt: str) -> Result:
    job = Job(
        id="job-of-two-workers",
        source="s3://bucket/in/x.png",
        model="mini",
        passes=(Img2Img(),),
        output=Output(prefix="s3://bucket/out/"),
    )
    now = datetime.now(UTC)
    return Result(
        job_id=job.id, status="cancelled", attempt=attempt, attempts=1, job=job, accepted_at=now, finished_at=now
    )


def test_the_ledger_keeps_the_first_of_two_records_that_come_one_after_the_other(weak_place: Place) -> None:
    """Given the weaker mode, when two workers commit in turn, then both are given the first one's record."""
    ledger = Ledger(weak_place.store, weak_place.at("L"))

    assert ledger.commit(record("first")).attempt == "first"
    assert ledger.commit(record("second")).attempt == "first"


def overtaken(moto: S3Server, body: bytes, *, after: bool) -> faults.Fault:
    """Another writer's plain put of the same key, just before or just after the one on its way."""

    def fault(exchange: Exchange) -> None:
        _, bucket, key = exchange.request.path.partition("?")[0].split("/", 2)
        if not after:
            moto.client.put_object(Bucket=bucket, Key=key, Body=body)
        answered = exchange.forward()
        if after:
            moto.client.put_object(Bucket=bucket, Key=key, Body=body)
        exchange.reply(answered)

    return fault


@pytest.mark.parametrize(("after", "winner"), [(True, "other"), (False, "ours")])
def test_of_two_records_written_at_once_the_later_one_counts(
    moto: S3Server, weak_place: Place, proxy: FaultyProxy, after: bool, winner: str
) -> None:
    """Given another worker's record, written right after ours or right before, when ours is put, then the later counts.

    Written before ours and after our look, it is replaced although its worker was told that it won: the mode's price.
    """
    ledger = Ledger(weak_place.store, weak_place.at("L"))
    theirs = record("other")
    proxy.on(
        requests("PUT", "/record.json"),
        overtaken(moto, theirs.model_dump_json(exclude_none=True).encode(), after=after),
    )

    assert ledger.commit(record("ours")).attempt == winner

    proxy.clear()
    assert ledger.record(theirs.job_id) == ledger.commit(record("third"))
    assert ledger.commit(record("third")).attempt == winner


def test_doctor_names_the_weaker_mode_whether_the_store_needs_it_or_not(
    unconditional: Place, proxy: FaultyProxy
) -> None:
    """Given the weaker mode, when doctor looks, then it warns, and says so where the store could do better."""

    def found() -> tuple[str, str]:
        findings = {f.check: f for f in check_ledger(WeakStore(unconditional.store), unconditional.at("L"))}
        assert findings["storage"].state == "ok"
        return findings["conditional put"].state, findings["conditional put"].remedy

    state, remedy = found()
    assert (state, "If-None-Match" in remedy) == ("warn", True)
    proxy.clear()
    state, remedy = found()
    assert (state, "unset OVERPAINT_WEAK_COMMITS" in remedy) == ("warn", True)


def test_doctor_tells_a_store_without_conditions_apart_from_one_that_is_broken(
    behind_proxy: Place, proxy: FaultyProxy
) -> None:
    """Given S3 that answers 501 to If-None-Match, when doctor looks, then storage is well and the condition is not."""
    proxy.on(conditional, NOT_IMPLEMENTED)

    findings = {f.check: f for f in check_ledger(behind_proxy.store, behind_proxy.at("L"))}

    assert {check: finding.state for check, finding in findings.items()} == {"storage": "ok", "conditional put": "fail"}
    assert "OVERPAINT_WEAK_COMMITS=true" in findings["conditional put"].remedy
    assert objects(behind_proxy) == []
