"""What every store promises: each test runs against the local store, S3 over HTTP, memory, and the weaker mode over an
S3 store that ignores conditions; the weaker mode keeps these promises as long as writers come one after the other."""

from __future__ import annotations

import io
import random
from concurrent.futures import ThreadPoolExecutor
from urllib.parse import urlsplit

import pytest

from overpaint_common.errors import (
    InvalidReference,
    ObjectExists,
    ObjectNotFound,
    ObjectTooLarge,
    StorageError,
)
from overpaint_common.references import Reference
from overpaint_common.storage import open_store

from .conftest import Place

BIG = random.Random(7).randbytes(3 * 1024 * 1024 + 17)


@pytest.fixture(params=["local_place", "s3_place", "memory_place", "weak_place"])
def place(request: pytest.FixtureRequest) -> Place:
    found: Place = request.getfixturevalue(request.param)
    return found


def put(place: Place, key: str, body: bytes = b"content") -> Reference:
    reference = place.at(*key.split("/"))
    place.store.put(reference, body, content_type="application/octet-stream")
    return reference


def test_bytes_come_back_as_they_were_written(place: Place) -> None:
    reference = put(place, "a/picture.png", b"\x00\xffbytes")

    assert place.store.read(reference, limit=7) == b"\x00\xffbytes"


def test_a_file_of_several_chunks_streams_up_and_down(place: Place) -> None:
    source, target = io.BytesIO(BIG), io.BytesIO()
    source.seek(1000)

    written = place.store.put(place.at("big"), source, content_type="image/png")
    read = place.store.download(place.at("big"), target, limit=len(BIG))

    assert target.getvalue() == BIG
    assert read == written == place.store.head(place.at("big"))
    assert read.size == len(BIG)


def test_an_empty_object_is_an_object(place: Place) -> None:
    reference = put(place, "marker", b"")

    assert place.store.read(reference, limit=0) == b""
    assert place.store.head(reference).size == 0


def test_odd_names_are_kept(place: Place) -> None:
    key = "a b/ü+%20?#&=~'\"\\ 画.png"
    reference = put(place, key)

    assert place.store.read(reference, limit=100) == b"content"
    assert [info.reference for info in place.store.list(place.root)] == [reference]


def test_a_missing_object_is_not_found_and_named(place: Place) -> None:
    missing = place.at("a", "missing")
    put(place, "a/b")

    for call in (
        lambda: place.store.head(missing),
        lambda: place.store.read(missing, limit=1),
        lambda: place.store.download(missing, io.BytesIO(), limit=1),
        lambda: place.store.head(place.at("a")),
        lambda: place.store.read(place.at("a", "b", "below an object"), limit=1),
    ):
        with pytest.raises(ObjectNotFound, match=r"there is no object at \w+://"):
            call()


def test_a_folder_is_refused_where_an_object_is_wanted(place: Place) -> None:
    for call in (
        lambda: place.store.head(place.root.as_prefix()),
        lambda: place.store.read(place.at("a/"), limit=1),
        lambda: place.store.put(place.at("a/"), b"", content_type="text/plain"),
        lambda: place.store.delete(place.at("a/")),
    ):
        with pytest.raises(InvalidReference, match="names a folder"):
            call()


def test_overwriting_replaces_the_content_and_changes_the_etag(place: Place) -> None:
    etags = [place.store.put(place.at("x"), body, content_type="text/plain").etag for body in (b"one", b"two", b"six")]

    assert place.store.read(place.at("x"), limit=10) == b"six"
    assert place.store.head(place.at("x")).etag == etags[-1]
    assert len(set(etags)) == 3
    assert not any('"' in etag for etag in etags)


def test_a_second_conditional_put_fails_and_the_first_content_stays(place: Place) -> None:
    first = place.store.put(place.at("record.json"), b"first", content_type="text/plain", if_absent=True)

    with pytest.raises(ObjectExists, match=r"record\.json"):
        place.store.put(place.at("record.json"), b"second", content_type="text/plain", if_absent=True)

    assert place.store.read(place.at("record.json"), limit=10) == b"first"
    assert place.store.head(place.at("record.json")) == first


def test_a_conditional_put_succeeds_again_once_the_object_is_deleted(place: Place) -> None:
    put(place, "x")
    place.store.delete(place.at("x"))

    place.store.put(place.at("x"), io.BytesIO(b"new"), content_type="text/plain", if_absent=True)

    assert place.store.read(place.at("x"), limit=10) == b"new"


@pytest.mark.parametrize("size", [11, len(BIG)])
def test_an_object_beyond_the_limit_is_refused_before_its_content_arrives(place: Place, size: int) -> None:
    reference, target = put(place, "x", BIG[:size]), io.BytesIO()

    with pytest.raises(ObjectTooLarge, match="limit is 10"):
        place.store.download(reference, target, limit=10)
    with pytest.raises(ObjectTooLarge):
        place.store.read(reference, limit=10)

    assert target.getvalue() == b""


def test_an_object_of_exactly_the_limit_is_read(place: Place) -> None:
    assert place.store.read(put(place, "x", b"0123456789"), limit=10) == b"0123456789"


def test_what_the_target_raises_passes_through(place: Place) -> None:
    class Full(io.BytesIO):
        def write(self, _: object) -> int:
            raise OSError(28, "the reader's own disk is full")

    with pytest.raises(OSError, match="the reader's own disk"):
        place.store.download(put(place, "x"), Full(), limit=10)


def test_deleting_is_idempotent(place: Place) -> None:
    reference = put(place, "a/x")

    for target in (reference, reference, place.at("never"), place.at("a"), place.at("never", "there")):
        place.store.delete(target)

    with pytest.raises(ObjectNotFound):
        place.store.head(reference)


def test_a_copy_replaces_what_is_there_and_leaves_the_source(place: Place) -> None:
    source, target = put(place, "a/one %20ü.png", BIG), put(place, "b/two", b"older")

    copied = place.store.copy(source, target)

    assert place.store.read(target, limit=len(BIG)) == place.store.read(source, limit=len(BIG)) == BIG
    assert copied == place.store.head(target)
    assert (copied.reference, copied.size) == (target, len(BIG))


def test_a_copy_may_be_repeated_and_outlives_its_source(place: Place) -> None:
    source, target = put(place, "source"), place.at("new", "folder", "target")

    for _ in range(2):
        place.store.copy(source, target)
    place.store.delete(source)

    assert place.store.read(target, limit=10) == b"content"


def test_nothing_is_copied_from_where_nothing_is(place: Place) -> None:
    target = put(place, "target", b"kept")

    for missing in (place.at("missing"), place.at("target", "below an object")):
        with pytest.raises(ObjectNotFound, match=r"there is no object at \w+://.*(missing|below)"):
            place.store.copy(missing, target)

    assert place.store.read(target, limit=10) == b"kept"


def test_a_copy_needs_two_objects(place: Place) -> None:
    source = put(place, "x")

    for one, other in ((source, source), (source, place.at("a/")), (place.root.as_prefix(), place.at("y"))):
        with pytest.raises(InvalidReference, match=r"names a folder|cannot be copied to itself"):
            place.store.copy(one, other)


@pytest.mark.parametrize("expires", [0, -1, 604_801])
def test_no_url_is_signed_for_longer_than_a_week_or_for_no_time(place: Place, expires: int) -> None:
    with pytest.raises(StorageError, match=rf"good for {expires} seconds; choose 1 to 604800"):
        place.store.presign(put(place, "x"), expires=expires)


def test_a_url_leads_to_one_object(place: Place) -> None:
    assert urlsplit(place.store.presign(place.at("x"), expires=604_800)).scheme in ("http", "https", "file")

    with pytest.raises(InvalidReference, match="names a folder"):
        place.store.presign(place.at("a/"), expires=60)


def test_a_listing_is_sorted_by_key(place: Place) -> None:
    keys = ["a-b/1", "a.txt", "a/1", "a/1.x/2", "a/10", "a/2", "a0", "b", "ab/ü", "ab/z", "Z"]
    for key in keys:
        put(place, key)

    listed = [info.reference.key.removeprefix(place.root.as_prefix().key) for info in place.store.list(place.root)]

    assert listed == sorted(keys, key=str.encode)


def test_a_listing_tells_size_and_etag(place: Place) -> None:
    info = place.store.put(place.at("x"), b"12345", content_type="text/plain")

    assert list(place.store.list(place.root)) == [info]


def test_a_listing_takes_its_prefix_by_whole_segments(place: Place) -> None:
    for key in ("in", "in-secret/x", "in.png", "inn/x"):
        put(place, key)
    assert list(place.store.list(place.at("in"))) == []

    place.store.delete(place.at("in"))
    inside = put(place, "in/deep/x")

    for prefix in (place.at("in"), place.at("in/")):
        assert [info.reference for info in place.store.list(prefix)] == [inside]


def test_a_listing_of_nothing_is_empty(place: Place) -> None:
    assert list(place.store.list(place.at("nowhere"))) == []


def test_a_reader_never_sees_a_torn_object(place: Place) -> None:
    reference, size = place.at("x"), 300_000
    place.store.put(reference, b"a" * size, content_type="text/plain")

    def overwrite() -> None:
        for letter in b"bcdefghijkl":
            place.store.put(reference, bytes([letter]) * size, content_type="text/plain")

    with ThreadPoolExecutor(1) as pool:
        writing, seen = pool.submit(overwrite), 0
        while not writing.done() or not seen:
            content = place.store.read(reference, limit=size)
            assert content == content[:1] * size
            seen += 1
        writing.result()


@pytest.mark.parametrize("place", ["local_place", "s3_place", "weak_place"], indirect=True)
def test_one_router_serves_both_schemes(place: Place) -> None:
    store = open_store(place.options)

    store.put(place.at("x"), b"routed", content_type="text/plain", if_absent=True)

    assert store.read(place.at("x"), limit=10) == b"routed"
    assert [info.size for info in store.list(place.root)] == [store.head(place.at("x")).size]
    store.copy(place.at("x"), place.at("y"))
    assert place.store.read(place.at("y"), limit=10) == b"routed"
    store.delete(place.at("y"))
    store.delete(place.at("x"))
    assert list(place.store.list(place.root)) == []


def test_the_router_copies_within_one_kind_of_store_only(local_place: Place, s3_place: Place) -> None:
    store, source = open_store(s3_place.options), put(local_place, "x")

    with pytest.raises(InvalidReference, match="another kind of store; name a target in file://"):
        store.copy(source, s3_place.at("x"))
