"""URLs that S3 gives without credentials, and copies that S3 makes by itself."""

from __future__ import annotations

import re
from urllib.error import HTTPError
from urllib.parse import parse_qs, urlsplit
from urllib.request import urlopen

import pytest

from overpaint_common.errors import ObjectNotFound, StorageDenied, StorageUnavailable
from overpaint_common.references import Reference
from overpaint_common.storage import S3Options, S3Store
from tests.support import faulty_http as faults
from tests.support.faulty_http import FaultyProxy, requests
from tests.support.s3 import S3Server

from .conftest import Place

NAME = "a b/ü+%20?#&=.png"


def queried(url: str) -> dict[str, str]:
    return {name: value for name, [value] in parse_qs(urlsplit(url).query).items()}


def test_a_url_gives_the_bytes_and_their_type_without_credentials(s3_place: Place) -> None:
    """Given an object with an odd name, when its URL is opened by plain HTTP, then its bytes come, as what they are."""
    s3_place.store.put(s3_place.at(NAME), b"\x89PNG", content_type="image/png")

    with urlopen(s3_place.store.presign(s3_place.at(NAME), expires=90), timeout=10) as answer:
        assert answer.read() == b"\x89PNG"
        assert answer.headers["content-type"] == "image/png"


def test_a_url_is_signed_with_version_4_for_just_the_seconds_asked_for(s3_place: Place) -> None:
    """Given a number of seconds, when a URL is signed, then it says so in the words of Signature Version 4."""
    query = queried(s3_place.store.presign(s3_place.at("x"), expires=604_800))

    assert query["X-Amz-Expires"] == "604800"
    assert query["X-Amz-Algorithm"] == "AWS4-HMAC-SHA256"
    assert re.fullmatch(r"[0-9a-f]{64}", query["X-Amz-Signature"])


def test_a_url_that_was_changed_gives_nothing(server: S3Server, s3_place: Place) -> None:
    """Given two objects, when the URL of one is made to name the other, then the server refuses it."""
    if server.environment:
        pytest.skip("moto checks no signatures; name a server that does in OVERPAINT_TEST_S3_ENDPOINT")
    for name in ("mine", "other"):
        s3_place.store.put(s3_place.at(name), name.encode(), content_type="text/plain")
    url = s3_place.store.presign(s3_place.at("mine"), expires=60)

    with pytest.raises(HTTPError) as raised:
        urlopen(url.replace("/mine?", "/other?"), timeout=10)

    assert raised.value.code == 403
    raised.value.close()


@pytest.mark.parametrize(
    ("region", "bucket", "host"),
    [
        ("eu-central-1", "pictures", "pictures.s3.eu-central-1.amazonaws.com"),
        ("cn-north-1", "pictures", "pictures.s3.cn-north-1.amazonaws.com.cn"),
        ("eu-central-1", "my.pictures", "s3.eu-central-1.amazonaws.com"),
    ],
)
def test_a_url_on_aws_names_the_regions_own_host(
    moto: S3Server, monkeypatch: pytest.MonkeyPatch, region: str, bucket: str, host: str
) -> None:
    """Given a bucket far away, when a URL is signed, then it needs no redirect, which would break its signature."""
    for name, value in moto.environment.items():
        monkeypatch.setenv(name, value)

    url = S3Store(S3Options(region=region)).presign(Reference.parse(f"s3://{bucket}/cat.png"), expires=60)

    assert urlsplit(url).hostname == host
    assert f"/{region}/s3/" in queried(url)["X-Amz-Credential"]


def test_no_url_is_signed_without_credentials(server: S3Server, monkeypatch: pytest.MonkeyPatch) -> None:
    """Given nobody's credentials, when a URL is wanted, then the error says what is missing."""
    if not server.environment:
        pytest.skip("the caller's own credentials may come from anywhere")
    monkeypatch.delenv("AWS_ACCESS_KEY_ID")

    with pytest.raises(StorageDenied, match="give complete AWS credentials"):
        S3Store(server.options()).presign(Reference.parse("s3://bucket/x"), expires=60)


def test_a_copy_keeps_the_content_type_and_passes_no_content_through(behind_proxy: Place, proxy: FaultyProxy) -> None:
    """Given a picture, when it is copied, then no request carries its bytes, and the copy is a picture too."""
    behind_proxy.store.put(behind_proxy.at(NAME), b"\x89PNG" * 1000, content_type="image/png")
    before = len(proxy.recorded)

    behind_proxy.store.copy(behind_proxy.at(NAME), behind_proxy.at("copy.png"))

    assert [(request.method, len(request.body)) for request in proxy.recorded[before:]] == [("PUT", 0), ("HEAD", 0)]
    with urlopen(behind_proxy.store.presign(behind_proxy.at("copy.png"), expires=60), timeout=10) as answer:
        assert answer.headers["content-type"] == "image/png"


def test_a_copy_that_is_refused_names_both_places(behind_proxy: Place, proxy: FaultyProxy) -> None:
    """Given a policy that forbids the target, when a copy is made, then the error names where from and where to."""
    behind_proxy.store.put(behind_proxy.at("x"), b"", content_type="text/plain")
    proxy.on(requests("PUT", "/y"), faults.answer(403, "AccessDenied"))

    with pytest.raises(StorageDenied, match=r"cannot copy to s3://\S+/y from s3://\S+/x: .*403 AccessDenied"):
        behind_proxy.store.copy(behind_proxy.at("x"), behind_proxy.at("y"))


def test_a_copy_that_failed_behind_a_200_is_no_copy(impatient_place: Place, proxy: FaultyProxy) -> None:
    """Given S3's way of failing late, a 200 with an error in it, when a copy is made, then it counts as not made."""
    impatient_place.store.put(impatient_place.at("x"), b"", content_type="text/plain")
    proxy.on(requests("PUT", "/y"), faults.answer(200, "InternalError"))

    with pytest.raises(StorageUnavailable):
        impatient_place.store.copy(impatient_place.at("x"), impatient_place.at("y"))

    with pytest.raises(ObjectNotFound):
        impatient_place.store.head(impatient_place.at("y"))
