"""Objects as files below a folder, with the same promises as S3: for one machine, for demos, for tests."""

from __future__ import annotations

import errno
import io
import logging
import os
import secrets
import shutil
import stat
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import BinaryIO

from overpaint_common.errors import (
    InvalidReference,
    ObjectExists,
    ObjectNotFound,
    StorageDenied,
    StorageError,
    StorageFull,
    StorageUnavailable,
)
from overpaint_common.references import Reference
from overpaint_common.storage.checks import check_size, require_object, rewound
from overpaint_common.storage.interface import ObjectInfo

logger = logging.getLogger(__name__)

_CHUNK = 1024 * 1024
_TEMPORARY_PREFIX, _TEMPORARY_SUFFIX = ".overpaint-", ".tmp"


class LocalStore:
    """The `file` implementation of `ObjectStore`; safe to share between threads and processes.

    A write goes to a hidden temporary file beside its target, reaches the disk, and appears under its name in one step
    (`os.replace`, or `os.link` for `if_absent`, which needs a file system with hard links). A process killed in the
    middle leaves that hidden file behind; `list` never shows it. Content types are not kept. Folders are made as
    needed and stay when they become empty. A folder where an object is asked for counts as a missing object.
    """

    def head(self, reference: Reference) -> ObjectInfo:
        with _raising("look at", reference):
            return _info(reference, _path(reference).stat())

    def read(self, reference: Reference, *, limit: int) -> bytes:
        target = io.BytesIO()
        self.download(reference, target, limit=limit)
        return target.getvalue()

    def download(self, reference: Reference, target: BinaryIO, *, limit: int) -> ObjectInfo:
        """See `ObjectStore.download`. What `target.write` raises passes through unchanged."""
        with _raising("read", reference):
            source = open(_path(reference), "rb", buffering=0, opener=_open_at_once)  # noqa: SIM115
        with source:
            info = _info(reference, os.fstat(source.fileno()))
            check_size(reference, info.size, limit)
            received = 0
            while True:
                with _raising("read", reference):
                    chunk = source.read(_CHUNK)
                if not chunk:
                    return info
                received += len(chunk)
                check_size(reference, received, limit)
                target.write(chunk)

    def put(
        self,
        reference: Reference,
        body: bytes | BinaryIO,
        *,
        content_type: str,  # noqa: ARG002 - a file has no place for it
        if_absent: bool = False,
    ) -> ObjectInfo:
        """See `ObjectStore.put`. Raises StorageError where a folder has the object's name, or a file its folder's."""
        path = _path(reference)
        with _raising("write", reference):
            if path.is_dir():
                raise StorageError(f"cannot write {reference}: a folder has that name; choose another")
            _make_folder(path.parent, reference)
            with _temporary_file(path.parent, body) as temporary:
                status = temporary.stat()
                if if_absent:
                    _link(temporary, path, reference)
                else:
                    temporary.replace(path)
            _sync_folder(path.parent)
        return _info(reference, status)

    def delete(self, reference: Reference) -> None:
        path = _path(reference)
        with _raising("delete", reference):
            try:
                path.unlink()
            except (FileNotFoundError, NotADirectoryError):
                return
            except OSError:
                if path.is_dir():
                    return
                raise
            _sync_folder(path.parent)

    def list(self, prefix: Reference) -> Iterator[ObjectInfo]:
        """See `ObjectStore.list`. Errors are raised as the iterator advances.

        A link to a file counts as an object; links to folders are not followed. A name that no reference can spell is
        left out and logged.
        """
        below = prefix.as_prefix()
        with _raising("list", below):
            yield from _walk(str(below.path))


def _path(reference: Reference) -> Path:
    require_object(reference)
    if _is_temporary(reference.name):
        raise InvalidReference(f"{reference}: names like this belong to unfinished writes; choose another")
    return reference.path


def _info(reference: Reference, status: os.stat_result) -> ObjectInfo:
    if not stat.S_ISREG(status.st_mode):
        raise ObjectNotFound(f"there is no object at {reference}, only a folder or a special file; check the path")
    return ObjectInfo(reference, status.st_size, f"{status.st_mtime_ns:x}-{status.st_size:x}-{status.st_ino:x}")


def _open_at_once(path: str, flags: int) -> int:
    # Without O_NONBLOCK, opening a FIFO that somebody left there hangs.
    return os.open(path, flags | os.O_NONBLOCK)


def _is_temporary(name: str) -> bool:
    return name.startswith(_TEMPORARY_PREFIX) and name.endswith(_TEMPORARY_SUFFIX)


@contextmanager
def _temporary_file(folder: Path, body: bytes | BinaryIO) -> Iterator[Path]:
    """A file in `folder` that holds `body` and has reached the disk; gone afterwards unless it was renamed."""
    rewound(body)
    path = folder / f"{_TEMPORARY_PREFIX}{secrets.token_hex(8)}{_TEMPORARY_SUFFIX}"
    try:
        with path.open("xb") as file:
            if isinstance(body, bytes):
                file.write(body)
            else:
                shutil.copyfileobj(body, file, _CHUNK)
            file.flush()
            # The kernel's own stamp moves every few milliseconds, so two quick writes could share it and an etag.
            now = time.time_ns()
            os.utime(file.fileno(), ns=(now, now))
            os.fsync(file.fileno())
        yield path
    finally:
        with suppress(OSError):
            path.unlink()


def _link(temporary: Path, path: Path, reference: Reference) -> None:
    try:
        os.link(temporary, path)
    except FileExistsError as error:
        raise ObjectExists(f"an object is already at {reference}; read it to learn whose it is") from error
    except OSError as error:
        if error.errno in (errno.EPERM, errno.ENOTSUP):
            raise StorageError(
                f"cannot write {reference}: its file system has no hard links; use one that has for file:// stores"
            ) from error
        raise


def _make_folder(folder: Path, reference: Reference) -> None:
    if folder.is_dir():
        return
    _make_folder(folder.parent, reference)
    try:
        folder.mkdir()
    except FileExistsError as error:
        # Another writer may have made the folder meanwhile.
        if not folder.is_dir():
            raise StorageError(f"cannot write {reference}: {folder} is a file, not a folder; choose another") from error
    _sync_folder(folder.parent)


def _sync_folder(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    except OSError as error:
        # Some network file systems cannot sync a folder, and say so this way.
        if error.errno not in (errno.EINVAL, errno.ENOTSUP):
            raise
    finally:
        os.close(descriptor)


def _walk(folder: str) -> Iterator[ObjectInfo]:
    try:
        with os.scandir(folder) as found:
            # With its slash a folder sorts among the files just as the keys below it do.
            entries = sorted((entry.name + "/" * entry.is_dir(follow_symlinks=False), entry) for entry in found)
    except (FileNotFoundError, NotADirectoryError):
        return
    for name, entry in entries:
        if name.endswith("/"):
            yield from _walk(entry.path)
        elif not _is_temporary(name) and (info := _listed(entry)) is not None:
            yield info


def _listed(entry: os.DirEntry[str]) -> ObjectInfo | None:
    try:
        status = entry.stat()
    except OSError as error:
        if error.errno in (errno.ENOENT, errno.ELOOP, errno.ENOTDIR):  # gone meanwhile, or a link to nothing
            return None
        raise
    if not stat.S_ISREG(status.st_mode):
        return None
    try:
        reference = Reference.from_path(Path(entry.path))
    except InvalidReference as error:
        logger.warning("left out of a listing: %s", error)
        return None
    return _info(reference, status)


@contextmanager
def _raising(action: str, reference: Reference) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise _translated(error, action, reference) from error


def _translated(error: OSError, action: str, reference: Reference) -> StorageError:
    failed = f"cannot {action} {reference}: {error.strerror or error}"
    if error.errno in (errno.ENOENT, errno.ENOTDIR) and action != "write":
        return ObjectNotFound(f"there is no object at {reference}; check the path")
    if error.errno == errno.EISDIR and action == "read":
        return ObjectNotFound(f"there is no object at {reference}, only a folder; check the path")
    if error.errno in (errno.ENOSPC, errno.EDQUOT):
        return StorageFull(f"{failed}; free space or raise the quota")
    if error.errno in (errno.EACCES, errno.EPERM, errno.EROFS):
        return StorageDenied(f"{failed}; check the folder's owner and permissions and how it is mounted")
    if error.errno in (errno.ENAMETOOLONG, errno.ELOOP, errno.ENOTDIR, errno.EISDIR):
        return StorageError(f"{failed}; choose another path")
    return StorageUnavailable(f"{failed}; try again later and check the disk")
