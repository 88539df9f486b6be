"""What jobs may touch: the operator's prefixes, never the ledger, never by a link."""

from __future__ import annotations

import io
from collections.abc import Callable
from pathlib import Path

import pytest

from overpaint_common.errors import ForbiddenReference, SettingsError
from overpaint_common.references import Reference
from overpaint_common.storage import Access, GuardedStore, LocalStore


def ref(text: str) -> Reference:
    return Reference.parse(text)


@pytest.fixture
def access() -> Access:
    return Access(
        read=(ref("s3://bucket/in"), ref("s3://pictures")),
        write=(ref("s3://bucket/out/"),),
        ledger=ref("s3://bucket/ledger/"),
    )


@pytest.mark.parametrize(
    "text", ["s3://bucket/in/a.png", "s3://bucket/in/deep/a.png", "s3://pictures/a", "s3://bucket/in/"]
)
def test_what_lies_below_a_read_prefix_may_be_read(access: Access, text: str) -> None:
    access.check_read(ref(text))


@pytest.mark.parametrize(
    "text",
    [
        "s3://bucket/in-secret/a.png",
        "s3://bucket/inn",
        "s3://bucket/a.png",
        "s3://bucket/out/a.png",
        "s3://buckets/in/a.png",
        "s3://pictures2/a",
        "file:///bucket/in/a.png",
    ],
)
def test_what_lies_elsewhere_may_not_be_read(access: Access, text: str) -> None:
    with pytest.raises(ForbiddenReference) as raised:
        access.check_read(ref(text))

    for part in (text, "s3://bucket/in", "s3://pictures", "OVERPAINT_READ"):
        assert part in str(raised.value)


def test_reading_rights_are_no_writing_rights(access: Access) -> None:
    access.check_write(ref("s3://bucket/out/a.png"))

    with pytest.raises(ForbiddenReference, match=r"s3://bucket/in/a\.png.*s3://bucket/out/.*OVERPAINT_WRITE"):
        access.check_write(ref("s3://bucket/in/a.png"))


def test_a_place_for_reading_or_writing_may_be_listed(access: Access) -> None:
    access.check_list(ref("s3://bucket/in/x/"))
    access.check_list(ref("s3://bucket/out/x/"))

    for elsewhere in ("s3://bucket/", "s3://bucket/in-secret/", "s3://bucket/ledger/"):
        with pytest.raises(ForbiddenReference):
            access.check_list(ref(elsewhere))


@pytest.mark.parametrize("text", ["s3://bucket/ledger/jobs/1/record.json", "s3://bucket/ledger/", "s3://bucket/ledger"])
def test_the_ledger_is_refused_to_both(access: Access, text: str) -> None:
    for check in (access.check_read, access.check_write, access.check_list):
        with pytest.raises(ForbiddenReference, match="lies in the ledger s3://bucket/ledger/"):
            check(ref(text))


def test_no_prefix_allows_nothing() -> None:
    nothing = Access(read=(), write=(), ledger=ref("s3://bucket/ledger"))

    for check in (nothing.check_read, nothing.check_write, nothing.check_list):
        with pytest.raises(ForbiddenReference, match="allowed is nothing"):
            check(ref("s3://bucket/a"))


@pytest.mark.parametrize(
    "prefix", ["s3://bucket/", "s3://bucket/ledger", "s3://bucket/ledger/", "s3://bucket/ledger/jobs", "s3://bucket"]
)
@pytest.mark.parametrize("setting", ["read", "write"])
def test_a_prefix_that_overlaps_the_ledger_is_a_settings_error(setting: str, prefix: str) -> None:
    prefixes = {"read": (), "write": ()} | {setting: (ref(prefix),)}

    with pytest.raises(SettingsError) as raised:
        Access(**prefixes, ledger=ref("s3://bucket/ledger/"))

    for part in (f"OVERPAINT_{setting.upper()}", str(ref(prefix)), "s3://bucket/ledger/"):
        assert part in str(raised.value)


def test_a_neighbour_of_the_ledger_is_no_overlap() -> None:
    Access(read=(ref("s3://bucket/ledger-copies"),), write=(ref("s3://other/"),), ledger=ref("s3://bucket/ledger"))


@pytest.fixture
def folders(tmp_path: Path) -> Path:
    for name in ("in", "in-secret", "out", "ledger"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "x").write_bytes(name.encode())
    return tmp_path


def access_to(folders: Path, read: str = "in", write: str = "out") -> Access:
    places = [Reference.from_path(folders / name) for name in (read, write, "ledger")]
    return Access(read=(places[0],), write=(places[1],), ledger=places[2])


@pytest.mark.parametrize("target", ["in-secret", "ledger", "out"])
def test_a_link_does_not_lead_out_of_the_prefix(folders: Path, target: str) -> None:
    (folders / "in" / "folder").symlink_to(folders / target)
    (folders / "in" / "file").symlink_to(folders / target / "x")
    (folders / "in" / "relative").symlink_to(f"../{target}")
    access = access_to(folders)

    for path in ("in/folder/x", "in/file", "in/relative/x", "in/folder/not-there-yet"):
        with pytest.raises(ForbiddenReference):
            access.check_read(Reference.from_path(folders / path))
    access.check_read(Reference.from_path(folders / "in" / "x"))


def test_a_link_does_not_lead_writes_out_of_the_prefix(folders: Path) -> None:
    (folders / "out" / "away").symlink_to(folders / "in-secret")

    with pytest.raises(ForbiddenReference):
        access_to(folders).check_write(Reference.from_path(folders / "out" / "away" / "new"))


def test_a_link_within_the_prefix_is_fine(folders: Path) -> None:
    (folders / "in" / "again").symlink_to(folders / "in" / "x")

    access_to(folders).check_read(Reference.from_path(folders / "in" / "again"))


def test_a_prefix_that_is_itself_a_link_is_followed(folders: Path) -> None:
    (folders / "pictures").symlink_to(folders / "in")

    access_to(folders, read="pictures").check_read(Reference.from_path(folders / "pictures" / "x"))


def test_a_prefix_that_links_into_the_ledger_is_a_settings_error(folders: Path) -> None:
    (folders / "pictures").symlink_to(folders / "ledger")

    with pytest.raises(SettingsError, match="overlap"):
        access_to(folders, read="pictures")


def test_a_guarded_store_asks_before_every_call(folders: Path) -> None:
    store = GuardedStore(LocalStore(), access_to(folders))
    readable, writable, secret = (Reference.from_path(folders / name / "x") for name in ("in", "out", "in-secret"))
    copied = Reference.from_path(folders / "out" / "copy")

    assert store.read(readable, limit=10) == b"in"
    assert store.head(readable).size == 2
    assert store.download(readable, io.BytesIO(), limit=10).size == 2
    store.put(writable, b"new", content_type="text/plain")
    assert [info.size for info in store.list(Reference.from_path(folders / "out"))] == [3]
    assert store.copy(writable, copied).size == 3
    assert store.presign(readable, expires=60) == str(readable)
    store.delete(writable)

    refused: list[Callable[[], object]] = [
        lambda: store.read(secret, limit=10),
        lambda: store.read(writable, limit=10),
        lambda: store.head(secret),
        lambda: store.download(secret, io.BytesIO(), limit=10),
        lambda: store.put(readable, b"", content_type="text/plain"),
        lambda: store.delete(readable),
        lambda: store.copy(readable, copied),
        lambda: store.copy(copied, readable),
        lambda: store.presign(copied, expires=60),
        lambda: store.list(Reference.from_path(folders)),
    ]
    for call in refused:
        with pytest.raises(ForbiddenReference):
            call()
    assert (folders / "in" / "x").read_bytes() == b"in"
