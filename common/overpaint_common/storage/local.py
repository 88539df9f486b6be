"""Objects as files below a folder, with the same promises as S3: for one machine, for demos, for tests."""

from __future__ import annotations

import errno
import io
import logging
import os
import stat
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

from overpaint_common.errors import (
    InvalidReference,
    ObjectExists,
    ObjectNotFound,
    OverpaintError,
    StorageDenied,
    StorageError,
    StorageFull,
    StorageUnavailable,
)
from overpaint_common.references import Reference
from overpaint_common.storage.checks import check_expires, check_size, require_object, require_two
from overpaint_common.storage.interface import NewObject, ObjectInfo
from overpaint_common.storage.many import put_each
from overpaint_common.storage.writing import NewFile, NoHardLinks, is_temporary, unlink, write, write_all

logger = logging.getLogger(__name__)

_CHUNK = 1024 * 1024


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
        try:
            status = write(NewFile(str(_path(reference)), body, if_absent))
        except OSError as error:
            raise _write_error(error, reference) from error
        return _info(reference, status)

    def put_many(self, objects: Sequence[NewObject]) -> list[ObjectInfo | OverpaintError]:
        """See `ObjectStore.put_many`. The disk is waited for a few times for all of them together."""
        if len(objects) <= 1:
            return put_each(self, objects, threads=1)
        files = [NewFile(str(_path(each.reference)), each.body, each.if_absent) for each in objects]
        return [
            _write_error(outcome, each.reference) if isinstance(outcome, OSError) else _info(each.reference, outcome)
            for each, outcome in zip(objects, write_all(files), strict=True)
        ]

    def copy(self, source: Reference, target: Reference) -> ObjectInfo:
        """See `ObjectStore.copy` and, for what else it raises, `put`."""
        require_two(source, target)
        with _raising("read", source):
            content = open(_path(source), "rb", buffering=0, opener=_open_at_once)  # noqa: SIM115
        with content:
            _info(source, os.fstat(content.fileno()))  # Raises where this is no file.
            return self.put(target, content, content_type="")

    def presign(self, reference: Reference, *, expires: int) -> str:
        """The reference itself: a `file` URL, for whoever may read the file on this machine, and good for ever."""
        check_expires(expires)
        _path(reference)
        return str(reference)

    def delete(self, reference: Reference) -> None:
        path = _path(reference)
        with _raising("delete", reference):
            try:
                unlink(str(path))
            except (FileNotFoundError, NotADirectoryError):
                return
            except OSError:
                if path.is_dir():
                    return
                raise

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
    if is_temporary(reference.name):
        raise InvalidReference(f"{reference}: names like this belong to unfinished writes; choose another")
    return reference.path


def _info(reference: Reference, status: os.stat_result) -> ObjectInfo:
    if not stat.S_ISREG(status.st_mode):
        raise ObjectNotFound(f"there is no object at {reference}, only a folder or a special file; check the path")
    return ObjectInfo(reference, status.st_size, f"{status.st_mtime_ns:x}-{status.st_size:x}-{status.st_ino:x}")


def _open_at_once(path: str, flags: int) -> int:
    # Without O_NONBLOCK, opening a FIFO that somebody left there hangs.
    return os.open(path, flags | os.O_NONBLOCK)


def _write_error(error: OSError, reference: Reference) -> StorageError:
    match error:
        case NoHardLinks():
            return StorageError(
                f"cannot write {reference}: its file system has no hard links; use one that has for file:// stores"
            )
        case FileExistsError() | IsADirectoryError() | NotADirectoryError():
            return _in_the_way(reference)
    return _translated(error, "write", reference)


def _in_the_way(reference: Reference) -> StorageError:
    """What to say where something has the name of the object, or of a folder above it."""
    if reference.path.is_dir():
        return StorageError(f"cannot write {reference}: a folder has that name; choose another")
    file = next((folder for folder in reference.path.parents if folder.is_file()), None)
    if file is not None:
        return StorageError(f"cannot write {reference}: {file} is a file, not a folder; choose another")
    return ObjectExists(f"an object is already at {reference}; read it to learn whose it is")


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
        elif not is_temporary(name) and (info := _listed(entry)) is not None:
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
