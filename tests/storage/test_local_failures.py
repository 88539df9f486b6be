"""The local store on full, read-only and otherwise unfit file systems."""

from __future__ import annotations

import io
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from overpaint_common.errors import (
    InvalidReference,
    ObjectNotFound,
    StorageDenied,
    StorageError,
    StorageFull,
)
from overpaint_common.references import Reference
from overpaint_common.storage import LocalStore

from .conftest import Place

Mount = Callable[[str], Path]


@pytest.fixture
def mount(tmp_path: Path) -> Iterator[Mount]:
    """Mounts a tmpfs with the given options; skips where that is not permitted, but fails in CI."""
    mounted: list[Path] = []

    def mount_tmpfs(options: str) -> Path:
        folder = tmp_path / "mount"
        folder.mkdir(exist_ok=True)
        done = subprocess.run(
            ["mount", "-t", "tmpfs", "-o", options, "tmpfs", str(folder)], capture_output=True, text=True, check=False
        )
        if done.returncode:
            missing = f"mounting a tmpfs is not permitted: {done.stderr.strip()}"
            if os.environ.get("CI"):
                pytest.fail(missing)
            pytest.skip(missing)
        mounted.append(folder)
        return folder

    yield mount_tmpfs
    for folder in reversed(mounted):
        subprocess.run(["umount", str(folder)], check=True)


@pytest.fixture
def store() -> LocalStore:
    return LocalStore()


def put(store: LocalStore, path: Path, body: bytes = b"content", *, if_absent: bool = False) -> None:
    store.put(Reference.from_path(path), body, content_type="text/plain", if_absent=if_absent)


def names_in(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


@pytest.mark.parametrize("if_absent", [False, True])
def test_a_full_disk_says_so_and_keeps_what_was_there(store: LocalStore, mount: Mount, if_absent: bool) -> None:
    folder = mount("size=64k")
    put(store, folder / "old", b"old")

    with pytest.raises(StorageFull, match="free space"):
        put(store, folder / ("new" if if_absent else "old"), bytes(100_000), if_absent=if_absent)

    assert names_in(folder) == ["old"]
    assert store.read(Reference.from_path(folder / "old"), limit=10) == b"old"
    put(store, folder / "small")


def test_a_disk_without_inodes_is_full(store: LocalStore, mount: Mount) -> None:
    folder = mount("size=64k,nr_inodes=2")
    put(store, folder / "only")

    with pytest.raises(StorageFull):
        put(store, folder / "sub" / "more")


def test_a_read_only_place_is_denied(store: LocalStore, tmp_path: Path, request: pytest.FixtureRequest) -> None:
    if os.geteuid() == 0:  # permissions do not stop root, a read-only mount does
        folder = request.getfixturevalue("mount")("size=64k")
        put(store, folder / "old")
        subprocess.run(["mount", "-o", "remount,ro", str(folder)], check=True)
    else:
        folder = tmp_path / "closed"
        put(store, folder / "old")
        folder.chmod(0o555)
    old = Reference.from_path(folder / "old")

    calls: list[Callable[[], None]] = [
        lambda: put(store, folder / "new"),
        lambda: put(store, folder / "old", if_absent=True),
        lambda: put(store, folder / "sub" / "new"),
        lambda: store.delete(old),
    ]
    for call in calls:
        with pytest.raises(StorageDenied, match="permissions"):
            call()

    assert names_in(folder) == ["old"]
    assert store.read(old, limit=10) == b"content"


def test_a_folder_of_the_objects_name_is_in_the_way(store: LocalStore, tmp_path: Path) -> None:
    put(store, tmp_path / "a" / "b")

    for if_absent in (False, True):
        with pytest.raises(StorageError, match="a folder has that name"):
            put(store, tmp_path / "a", if_absent=if_absent)
    with pytest.raises(ObjectNotFound, match="only a folder"):
        store.read(Reference.from_path(tmp_path / "a"), limit=1)

    assert names_in(tmp_path) == ["a"]


def test_a_file_of_the_folders_name_is_in_the_way(store: LocalStore, tmp_path: Path) -> None:
    put(store, tmp_path / "a")

    for deeper in (tmp_path / "a" / "b", tmp_path / "a" / "b" / "c"):
        with pytest.raises(StorageError, match="is a file, not a folder"):
            put(store, deeper)


def test_a_name_too_long_for_the_file_system_is_refused(store: LocalStore, tmp_path: Path) -> None:
    with pytest.raises(StorageError, match="choose another path") as raised:
        put(store, tmp_path / ("n" * 300))

    assert type(raised.value) is StorageError


def test_a_body_that_fails_leaves_nothing_behind(store: LocalStore, tmp_path: Path) -> None:
    class Broken(io.BytesIO):
        def read(self, _: int | None = -1) -> bytes:
            raise RuntimeError("the encoder died")

    with pytest.raises(RuntimeError, match="the encoder died"):
        store.put(Reference.from_path(tmp_path / "x"), Broken(b"abc"), content_type="text/plain")

    assert names_in(tmp_path) == []


KILLED_WRITER = """
import io, os, signal, sys
from pathlib import Path
from overpaint_common.references import Reference
from overpaint_common.storage import LocalStore

class Deadly(io.BytesIO):
    def read(self, size=-1):
        os.kill(os.getpid(), signal.SIGKILL)

LocalStore().put(Reference.from_path(Path(sys.argv[1])), Deadly(b"abc"), content_type="text/plain")
"""


def test_a_killed_writer_leaves_no_object(local_place: Place) -> None:
    writer = subprocess.run([sys.executable, "-c", KILLED_WRITER, str(local_place.at("x").path)], check=False)

    assert writer.returncode == -signal.SIGKILL
    [leftover] = names_in(local_place.root.path)
    assert list(local_place.store.list(local_place.root)) == []
    with pytest.raises(InvalidReference, match="unfinished writes"):
        local_place.store.read(local_place.at(leftover), limit=1)
    local_place.store.put(local_place.at("x"), b"new", content_type="text/plain", if_absent=True)


def test_a_special_file_is_no_object_and_does_not_hang(local_place: Place) -> None:
    folder = local_place.root.path
    folder.mkdir()
    os.mkfifo(folder / "fifo")

    with pytest.raises(ObjectNotFound, match="special file"):
        local_place.store.read(local_place.at("fifo"), limit=1)
    assert list(local_place.store.list(local_place.root)) == []


def test_links_to_files_are_listed_and_links_to_folders_are_not_followed(local_place: Place) -> None:
    folder = local_place.root.path
    local_place.store.put(local_place.at("sub", "x"), b"x", content_type="text/plain")
    (folder / "link").symlink_to(folder / "sub" / "x")
    (folder / "loop").symlink_to(folder)
    (folder / "dangling").symlink_to(folder / "nothing")

    listed = [info.reference for info in local_place.store.list(local_place.root)]

    assert listed == [local_place.at("link"), local_place.at("sub", "x")]


def test_names_that_no_reference_can_spell_are_left_out_and_logged(
    local_place: Place, caplog: pytest.LogCaptureFixture
) -> None:
    folder = os.fsencode(local_place.root.path)
    os.makedirs(folder)  # noqa: PTH103 - a name that is no text
    for name in (b"new\nline", b"\xff", b"fine"):
        with open(folder + b"/" + name, "wb"):  # noqa: PTH123
            pass

    listed = [info.reference for info in local_place.store.list(local_place.root)]

    assert listed == [local_place.at("fine")]
    assert caplog.text.count("left out of a listing") == 2


def test_an_edit_in_place_changes_the_etag(local_place: Place) -> None:
    before = local_place.store.put(local_place.at("x"), b"one", content_type="text/plain")

    local_place.at("x").path.write_bytes(b"two")

    assert local_place.store.head(local_place.at("x")).etag != before.etag
