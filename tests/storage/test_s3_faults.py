"""S3 over a bad line: what the store does when the network or the server fails."""

from __future__ import annotations

import io
import time

import pytest

from overpaint_common.errors import (
    ObjectExists,
    ObjectNotFound,
    StorageDenied,
    StorageError,
    StorageFull,
    StorageUnavailable,
)
from overpaint_common.references import Reference
from tests.support import faulty_http as faults
from tests.support.faulty_http import FaultyProxy, requests
from tests.support.s3 import S3Server

from .conftest import Place

PUT = requests("PUT", "/x")
GET = requests("GET", "/x")


def put(place: Place, body: bytes = b"ours", *, if_absent: bool = True) -> None:
    place.store.put(place.at("x"), body, content_type="text/plain", if_absent=if_absent)


def content(place: Place) -> bytes:
    return place.store.read(place.at("x"), limit=1_000_000)


def test_uploads_carry_a_checksum_and_the_condition(behind_proxy: Place, proxy: FaultyProxy) -> None:
    put(behind_proxy)

    [sent] = [request for request in proxy.recorded if PUT(request)]
    assert sent.headers["if-none-match"] == "*"
    assert sent.headers["x-amz-checksum-crc32"]
    assert sent.headers["content-type"] == "text/plain"
    assert sent.body == b"ours"


def test_a_lost_answer_is_retried_and_then_meets_our_own_object(behind_proxy: Place, proxy: FaultyProxy) -> None:
    rule = proxy.on(PUT, faults.drop_response(), times=1)

    with pytest.raises(ObjectExists):
        put(behind_proxy)

    assert rule.hits == 1
    assert content(behind_proxy) == b"ours"


def test_a_lost_answer_to_a_plain_put_is_made_good(behind_proxy: Place, proxy: FaultyProxy) -> None:
    proxy.on(PUT, faults.drop_response(), times=1)

    behind_proxy.store.put(behind_proxy.at("x"), io.BytesIO(b"streamed"), content_type="text/plain")

    assert content(behind_proxy) == b"streamed"


def test_answers_lost_for_ever_leave_the_outcome_unknown(behind_proxy: Place, proxy: FaultyProxy) -> None:
    proxy.on(PUT, faults.drop_response())

    with pytest.raises(StorageUnavailable, match=str(behind_proxy.at("x"))):
        put(behind_proxy)

    assert content(behind_proxy) == b"ours"


def test_a_conflict_is_retried_from_the_start_of_the_body(behind_proxy: Place, proxy: FaultyProxy) -> None:
    rule = proxy.on(PUT, faults.answer(409, "ConditionalRequestConflict"), times=2)

    behind_proxy.store.put(behind_proxy.at("x"), io.BytesIO(b"ours"), content_type="text/plain", if_absent=True)

    assert rule.hits == 2
    assert content(behind_proxy) == b"ours"


def test_a_conflict_that_never_ends_is_unavailable(behind_proxy: Place, proxy: FaultyProxy) -> None:
    rule = proxy.on(PUT, faults.answer(409, "ConditionalRequestConflict"))

    with pytest.raises(StorageUnavailable, match="ConditionalRequestConflict"):
        put(behind_proxy)

    assert rule.hits == 5


@pytest.mark.parametrize(
    ("status", "code", "error"),
    [
        (401, "Unauthorized", StorageDenied),
        (403, "AccessDenied", StorageDenied),
        (403, "SignatureDoesNotMatch", StorageDenied),
        (400, "ExpiredToken", StorageDenied),
        (404, "NoSuchBucket", ObjectNotFound),
        (412, "PreconditionFailed", ObjectExists),
        (403, "QuotaExceeded", StorageFull),
        (507, "XMinioStorageFull", StorageFull),
        (400, "BadDigest", StorageUnavailable),
        (500, "InternalError", StorageUnavailable),
        (503, "SlowDown", StorageUnavailable),
        (501, "NotImplemented", StorageError),
    ],
)
def test_an_error_answer_becomes_the_error_that_says_so(
    impatient_place: Place, proxy: FaultyProxy, status: int, code: str, error: type[StorageError]
) -> None:
    proxy.on(PUT, faults.answer(status, code))

    with pytest.raises(StorageError, match=r"s3://\S+/x.*; \w+") as raised:
        put(impatient_place)

    assert type(raised.value) is error
    assert "testing" not in str(raised.value)


@pytest.mark.parametrize(
    ("status", "error"),
    [(400, StorageDenied), (403, StorageDenied), (404, ObjectNotFound), (503, StorageUnavailable)],
)
def test_a_head_answer_without_a_body_is_understood(
    impatient_place: Place, proxy: FaultyProxy, status: int, error: type[StorageError]
) -> None:
    proxy.on(requests("HEAD"), faults.answer(status, "unseen"))

    with pytest.raises(error):
        impatient_place.store.head(impatient_place.at("x"))


def test_a_short_outage_is_ridden_out(behind_proxy: Place, proxy: FaultyProxy) -> None:
    rules = [
        proxy.on(PUT, faults.answer(503, "SlowDown"), times=1),
        proxy.on(GET, faults.reset(), times=1),
    ]

    put(behind_proxy)

    assert content(behind_proxy) == b"ours"
    assert [rule.hits for rule in rules] == [1, 1]


def test_a_server_that_says_404_to_a_delete_changes_nothing(behind_proxy: Place, proxy: FaultyProxy) -> None:
    rule = proxy.on(requests("DELETE", "/x"), faults.answer(404, "NoSuchKey"))

    behind_proxy.store.delete(behind_proxy.at("x"))

    assert rule.hits == 1


def test_a_missing_bucket_is_not_found(behind_proxy: Place) -> None:
    nowhere = Reference.parse("s3://no-such-bucket-here/x")

    with pytest.raises(ObjectNotFound, match="bucket does not exist"):
        behind_proxy.store.read(nowhere, limit=1)
    with pytest.raises(ObjectNotFound, match="bucket does not exist"):
        list(behind_proxy.store.list(nowhere))


def test_a_server_that_refuses_connections_is_unavailable(behind_proxy: Place, proxy: FaultyProxy) -> None:
    put(behind_proxy)

    with proxy.down(), pytest.raises(StorageUnavailable, match="cannot be reached"):
        content(behind_proxy)

    assert content(behind_proxy) == b"ours"


def test_a_listing_from_a_dead_server_is_unavailable(behind_proxy: Place, proxy: FaultyProxy) -> None:
    with proxy.down(), pytest.raises(StorageUnavailable):
        list(behind_proxy.store.list(behind_proxy.root))


@pytest.mark.parametrize("fault", [faults.hang(30), faults.delay(3)], ids=["hang", "latency"])
def test_no_answer_in_time_is_unavailable(behind_proxy: Place, proxy: FaultyProxy, fault: faults.Fault) -> None:
    rule = proxy.on(GET, fault)
    began = time.monotonic()

    with pytest.raises(StorageUnavailable, match="did not answer in time"):
        content(behind_proxy)

    assert rule.hits == 2
    assert time.monotonic() - began < 2.5


def test_latency_within_the_limit_only_delays(behind_proxy: Place, proxy: FaultyProxy) -> None:
    proxy.on(PUT, faults.delay(0.2))

    put(behind_proxy)

    assert content(behind_proxy) == b"ours"


@pytest.mark.parametrize("keep", [0, 100_000, 199_999])
def test_a_download_that_breaks_off_is_unavailable(behind_proxy: Place, proxy: FaultyProxy, keep: int) -> None:
    put(behind_proxy, b"x" * 200_000)
    proxy.on(GET, faults.truncate(keep))

    with pytest.raises(StorageUnavailable, match="broke off"):
        content(behind_proxy)


def test_a_download_that_stalls_is_unavailable(behind_proxy: Place, proxy: FaultyProxy) -> None:
    put(behind_proxy, b"x" * 200_000)

    def stall(exchange: faults.Exchange) -> None:
        exchange.reply(exchange.forward(), body_bytes=1000)
        exchange.wait(30)

    proxy.on(GET, stall)

    with pytest.raises(StorageUnavailable, match="did not answer in time"):
        content(behind_proxy)


@pytest.mark.parametrize("position", [0, 199_999])
def test_a_download_that_changed_on_its_way_is_unavailable(
    behind_proxy: Place, proxy: FaultyProxy, position: int
) -> None:
    put(behind_proxy, b"x" * 200_000)
    proxy.on(GET, faults.corrupt(position))

    with pytest.raises(StorageUnavailable, match="checksum"):
        content(behind_proxy)


def test_an_object_beyond_the_limit_costs_no_download_and_the_store_goes_on(
    behind_proxy: Place, proxy: FaultyProxy
) -> None:
    put(behind_proxy, b"x" * 200_000)
    for _ in range(5):
        with pytest.raises(StorageError, match="limit is 10"):
            behind_proxy.store.read(behind_proxy.at("x"), limit=10)

    assert len(content(behind_proxy)) == 200_000
    assert len([request for request in proxy.recorded if GET(request)]) == 6


def test_folder_markers_and_unspeakable_keys_are_left_out_of_a_listing(
    moto: S3Server, behind_proxy: Place, caplog: pytest.LogCaptureFixture
) -> None:
    for key in ("in/", "in/a//b", "in/./c", "in/fine"):
        moto.client.put_object(Bucket=behind_proxy.root.bucket, Key=key)

    listed = [info.reference.key for info in behind_proxy.store.list(behind_proxy.at("in/"))]

    assert listed == ["in/fine"]
    assert "in/a//b" in caplog.text


def test_a_long_listing_crosses_pages(behind_proxy: Place, proxy: FaultyProxy, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MOTO_S3_DEFAULT_MAX_KEYS", "3")
    names = [f"{number:04}" for number in range(8)]
    for name in names:
        behind_proxy.store.put(behind_proxy.at("in", name), b"", content_type="text/plain")

    listed = [info.reference.name for info in behind_proxy.store.list(behind_proxy.at("in"))]

    assert listed == names
    assert len([request for request in proxy.recorded if "list-type=2" in request.path]) == 3
