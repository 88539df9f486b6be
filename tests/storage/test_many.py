"""Many objects in one call: each as `put` would write it, whatever becomes of the others."""

from __future__ import annotations

import errno
import os
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from overpaint_common.errors import (
    ForbiddenReference,
    InvalidReference,
    ObjectExists,
    OverpaintError,
    StorageError,
    StorageFull,
)
from overpaint_common.references import Reference
from overpaint_common.storage import Access, GuardedStore, LocalStore, NewObject, ObjectInfo, RoutedStore, writing
from overpaint_common.storage.writing import is_temporary

from .conftest import Place

WRITERS = 4


@pytest.fixture(params=["local_place", "s3_place", "memory_place", "weak_place"])
def place(request: pytest.FixtureRequest) -> Place:
    found: Place = request.getfixturevalue(request.param)
    return found


@pytest.fixture(params=["at once", "one by one"])
def local(request: pytest.FixtureRequest, local_place: Place, monkeypatch: pytest.MonkeyPatch) -> Place:
    """A local store, also on a system that cannot bring a whole file system to the disk."""
    if request.param == "one by one":
        monkeypatch.setattr(writing, "_syncs_whole", lambda _: False)
    return local_place


def new(place: Place, key: str, body: bytes = b"content", *, if_absent: bool = False) -> NewObject:
    return NewObject(place.at(*key.split("/")), body, "text/plain", if_absent)


def infos(outcomes: list[ObjectInfo | OverpaintError]) -> list[ObjectInfo]:
    assert all(isinstance(outcome, ObjectInfo) for outcome in outcomes), outcomes
    return [outcome for outcome in outcomes if isinstance(outcome, ObjectInfo)]


def test_all_come_back_as_they_were_written_and_are_told_in_their_order(place: Place) -> None:
    given = [new(place, f"folder-{number % 3}/{number}", b"x" * number) for number in range(40)]

    written = infos(place.store.put_many(given))

    assert [info.reference for info in written] == [each.reference for each in given]
    for each, info in zip(given, written, strict=True):
        assert place.store.read(each.reference, limit=100) == each.body
        assert place.store.head(each.reference) == info


def test_one_that_is_there_already_is_told_and_keeps_no_other_from_being_written(place: Place) -> None:
    place.store.put(place.at("b"), b"first", content_type="text/plain")

    outcomes = place.store.put_many(
        [
            new(place, "a", if_absent=True),
            new(place, "b", if_absent=True),
            new(place, "c"),
        ]
    )

    assert [type(outcome) for outcome in outcomes] == [ObjectInfo, ObjectExists, ObjectInfo]
    assert place.store.read(place.at("b"), limit=10) == b"first"


def test_what_is_there_is_replaced_where_nothing_forbids_it(place: Place) -> None:
    for body in (b"first", b"", b"third"):
        infos(place.store.put_many([new(place, "a", body), new(place, "b", body)]))
        assert place.store.read(place.at("b"), limit=10) == body


def test_none_and_one_are_many_too(place: Place) -> None:
    assert place.store.put_many([]) == []
    (info,) = infos(place.store.put_many([new(place, "a", b"")]))
    assert place.store.head(place.at("a")) == info


@pytest.mark.parametrize("name", ["local_place", "s3_place", "memory_place"])
def test_of_several_writers_one_wins_each_key(name: str, request: pytest.FixtureRequest) -> None:
    """Given writers that put the same keys at the same moment, when all are done, then each key is the winner's."""
    place: Place = request.getfixturevalue(name)
    start = threading.Barrier(WRITERS)

    def race(writer: int) -> list[bool]:
        body = f"of writer {writer}".encode()
        start.wait(timeout=30)
        outcomes = place.store.put_many([new(place, str(key), body, if_absent=True) for key in range(20)])
        return [isinstance(outcome, ObjectInfo) for outcome in outcomes]

    with ThreadPoolExecutor(WRITERS) as pool:
        won = list(pool.map(race, range(WRITERS)))

    for key in range(20):
        (winner,) = (writer for writer in range(WRITERS) if won[writer][key])
        assert place.store.read(place.at(str(key)), limit=100) == f"of writer {winner}".encode()


def test_what_is_in_the_way_of_one_leaves_the_others(local: Place) -> None:
    """Given a file in the place of a folder, and a folder in that of a file, when many are written, then two fail."""
    local.store.put(local.at("file"), b"in the way", content_type="text/plain")
    local.root.path.joinpath("folder").mkdir()

    for if_absent in (False, True):
        outcomes = local.store.put_many(
            [
                new(local, f"fine-{if_absent}", if_absent=if_absent),
                new(local, "file/a", if_absent=if_absent),
                new(local, "folder", if_absent=if_absent),
                new(local, f"fine/too-{if_absent}", if_absent=if_absent),
            ]
        )
        assert [type(outcome) for outcome in outcomes] == [ObjectInfo, StorageError, StorageError, ObjectInfo]
        assert "is a file, not a folder" in str(outcomes[1])
        assert "a folder has that name" in str(outcomes[2])


def test_no_hidden_file_is_left(local: Place) -> None:
    local.store.put_many([new(local, "a"), new(local, "b"), new(local, "a", if_absent=True)])

    assert sorted(name for _, _, names in os.walk(local.root.path) for name in names) == ["a", "b"]
    assert not any(is_temporary(name) for _, _, names in os.walk(local.root.path) for name in names)


def test_a_disk_that_cannot_be_written_is_told_of_every_file_that_waited_for_it(
    local_place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Given a disk that fails as it is waited for, when many are written, then none of them counts as written."""

    def full(folder: str) -> None:
        raise OSError(errno.ENOSPC, "No space left on device", folder)

    monkeypatch.setattr(writing, "_sync_file_system", full)

    outcomes = local_place.store.put_many([new(local_place, "a"), new(local_place, "b")])

    assert [type(outcome) for outcome in outcomes] == [StorageFull, StorageFull]
    assert list(local_place.store.list(local_place.root)) == []


def test_a_router_hands_each_to_its_own_store(local_place: Place, s3_place: Place) -> None:
    """Given objects of two schemes in turn, when they are written in one call, then each is told in its place."""
    router = RoutedStore({"file": local_place.store, "s3": s3_place.store})
    given = [new((local_place, s3_place)[number % 2], str(number)) for number in range(6)]

    written = infos(router.put_many(given))

    assert [info.reference for info in written] == [each.reference for each in given]
    with pytest.raises(InvalidReference):
        RoutedStore({"file": local_place.store}).put_many(given)


def test_a_guard_refuses_all_where_one_is_forbidden(local_place: Place, tmp_path: Path) -> None:
    access = Access(
        read=(), write=(local_place.at("out").as_prefix(),), ledger=Reference.from_path(tmp_path / "ledger")
    )
    guarded = GuardedStore(LocalStore(), access)

    with pytest.raises(ForbiddenReference):
        guarded.put_many([new(local_place, "out/a"), new(local_place, "elsewhere/b")])
    assert list(local_place.store.list(local_place.root)) == []

    infos(guarded.put_many([new(local_place, "out/a"), new(local_place, "out/b")]))
