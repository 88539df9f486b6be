"""Files that appear whole under their name, and are on the disk by then.

Paths are text here: to make and take apart `Path` objects costs as much as a small write.
"""

from __future__ import annotations

import ctypes
import errno
import os
import secrets
import shutil
import time
from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import cache, lru_cache
from typing import BinaryIO

from overpaint_common.storage.checks import rewound

_CHUNK = 1024 * 1024
_PREFIX, _SUFFIX = ".overpaint-", ".tmp"

WHOLE = frozenset({"ext3", "ext4", "xfs", "f2fs", "tmpfs", "overlay"})
"""File systems that `syncfs` brings to the disk, names and contents."""

Outcome = os.stat_result | OSError


class NoHardLinks(OSError):
    """The file system cannot decide which of several writers was first."""


@dataclass(frozen=True, slots=True)
class NewFile:
    """What is to be written, by way of a hidden file beside it."""

    path: str
    body: bytes | BinaryIO
    if_absent: bool

    @property
    def folder(self) -> str:
        return os.path.dirname(self.path)


def is_temporary(name: str) -> bool:
    """Whether a file of that name is an unfinished write."""
    return name.startswith(_PREFIX) and name.endswith(_SUFFIX)


def write(file: NewFile) -> os.stat_result:
    """Write one file, making its folders where they are missing, and give its status.

    Raises OSError: FileExistsError where `if_absent` and something has that name, or where a file has the name of a
    folder that is needed; NoHardLinks.
    """
    _make_folder(file.folder, sync_folder)
    writing = _Writing(file)
    try:
        writing.outcome = writing.fill(os.fsync)
        status = writing.place()
    finally:
        writing.tidy()
    sync_folder(file.folder)
    return status


def write_all(files: Sequence[NewFile]) -> list[Outcome]:
    """Write many small files as `write` does each; what became of each, in their order.

    The file system is brought to the disk twice, with all the contents and then with all the names, where each file by
    itself would wait for the disk several times. What others wrote there meanwhile goes along. Where one of the file
    systems is not known to keep that promise, each file is written by itself.
    """
    if not all(_syncs_whole(_device(file.folder)) for file in files):
        return [_outcome(file) for file in files]
    writings = [_Writing(file) for file in files]
    try:
        for writing in writings:
            writing.attempt(writing.prepare)
        _sync_all(writings)
        for writing in writings:
            writing.attempt(writing.place)
        _sync_all(writings)
    finally:
        for writing in writings:
            writing.tidy()
    return [writing.outcome for writing in writings if writing.outcome is not None]


def _outcome(file: NewFile) -> Outcome:
    try:
        return write(file)
    except OSError as error:
        return error


def unlink(path: str) -> None:
    """Remove one file; raises OSError."""
    os.unlink(path)
    sync_folder(os.path.dirname(path))


class _Writing:
    """One file on its way. An empty one is whole as soon as it is there, and needs no hidden file."""

    def __init__(self, file: NewFile) -> None:
        self.file = file
        self.outcome: Outcome | None = None
        self._temporary = ""

    def attempt(self, step: Callable[[], os.stat_result | None]) -> None:
        """Take a step, unless one before it failed already."""
        if not isinstance(self.outcome, OSError):
            try:
                self.outcome = step()
            except OSError as error:
                self.outcome = error

    def prepare(self) -> os.stat_result | None:
        """Everything that can be done before the disk is waited for."""
        _make_folder(self.file.folder, _not_yet)
        return self.fill(_not_yet)

    def fill(self, sync: Callable[[int], object]) -> os.stat_result | None:
        """Write the hidden file, where there is anything to write."""
        return None if self.file.body == b"" else self._filled(sync)

    def place(self) -> os.stat_result:
        """Give the file its name."""
        status = self.outcome
        if not isinstance(status, os.stat_result):
            try:
                return _created(self.file.path)
            except FileExistsError:
                if self.file.if_absent:
                    raise
            status = self._filled(_not_yet)
        if self.file.if_absent:
            _link(self._temporary, self.file.path)
        else:
            os.replace(self._temporary, self.file.path)
        return status

    def tidy(self) -> None:
        """Remove what is left of the hidden file."""
        if self._temporary:
            with suppress(OSError):
                os.unlink(self._temporary)

    def _filled(self, sync: Callable[[int], object]) -> os.stat_result:
        rewound(self.file.body)
        self._temporary = f"{self.file.folder}/{_PREFIX}{secrets.token_hex(8)}{_SUFFIX}"
        with open(self._temporary, "xb") as file:
            if isinstance(self.file.body, bytes):
                file.write(self.file.body)
            else:
                shutil.copyfileobj(self.file.body, file, _CHUNK)
            file.flush()
            # The kernel's own stamp moves every few milliseconds, so two quick writes could share it and an etag.
            now = time.time_ns()
            os.utime(file.fileno(), ns=(now, now))
            sync(file.fileno())
            return os.fstat(file.fileno())


def _created(path: str) -> os.stat_result:
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o666)
    try:
        return os.fstat(descriptor)
    finally:
        os.close(descriptor)


def _link(temporary: str, path: str) -> None:
    try:
        os.link(temporary, path)
    except OSError as error:
        if error.errno in (errno.EPERM, errno.ENOTSUP):
            raise NoHardLinks(error.errno, "the file system has no hard links", path) from error
        raise


def _not_yet(_: object) -> None:
    """In the place of a sync that comes later, for many files at once."""


def _make_folder(folder: str, sync: Callable[[str], object]) -> None:
    if os.path.isdir(folder):
        return
    above = os.path.dirname(folder)
    _make_folder(above, sync)
    try:
        os.mkdir(folder)
    except FileExistsError:
        # Another writer may have made it meanwhile.
        if not os.path.isdir(folder):
            raise
    sync(above)


def sync_folder(folder: str) -> None:
    """Bring the names in a folder to the disk; raises OSError."""
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    except OSError as error:
        # Some network file systems cannot sync a folder, and say so this way.
        if error.errno not in (errno.EINVAL, errno.ENOTSUP):
            raise
    finally:
        os.close(descriptor)


def _sync_all(writings: Iterable[_Writing]) -> None:
    """Bring to the disk what these have written so far; where that fails, it is their outcome."""
    by_device: dict[int, list[_Writing]] = {}
    for writing in writings:
        if isinstance(writing.outcome, os.stat_result):
            by_device.setdefault(writing.outcome.st_dev, []).append(writing)
    for group in by_device.values():
        try:
            _sync_file_system(group[0].file.folder)
        except OSError as error:
            for writing in group:
                writing.outcome = error


def _device(folder: str) -> int:
    """The device of a folder that is there, or will be made."""
    while True:
        try:
            return os.stat(folder).st_dev
        except OSError:
            if folder == os.path.dirname(folder):
                raise
            folder = os.path.dirname(folder)


@lru_cache(maxsize=64)
def _syncs_whole(device: int) -> bool:
    """Whether `syncfs` is known to bring a device's file system to the disk: FUSE, for one, does not hear of it."""
    if _syncfs() is None:
        return False
    number = f"{os.major(device)}:{os.minor(device)}"
    try:
        with open("/proc/self/mountinfo") as file:
            mounts = [line.split() for line in file]
    except OSError:
        return False
    return any(fields[2] == number and fields[fields.index("-") + 1] in WHOLE for fields in mounts)


def _sync_file_system(folder: str) -> None:
    call = _syncfs()
    assert call is not None
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        if call(descriptor) != 0:
            number = ctypes.get_errno()
            raise OSError(number, os.strerror(number), folder)
    finally:
        os.close(descriptor)


@cache
def _syncfs() -> Callable[[int], int] | None:
    """Linux's call of that name; None on other systems."""
    return getattr(ctypes.CDLL(None, use_errno=True), "syncfs", None)
