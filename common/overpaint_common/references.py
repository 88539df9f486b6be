"""References to objects: `s3://bucket/key`, and `file:///path` for a local store."""

from __future__ import annotations

import os
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal
from urllib.parse import quote, unquote

from pydantic import AfterValidator, Field

from overpaint_common.errors import InvalidReference

_BUCKET = re.compile(r"[a-z0-9][a-z0-9.-]{1,61}[a-z0-9]")
_UNWRITABLE = re.compile(r"[\x00-\x1f\x7f-\x9f\ud800-\udfff]")
MAX_KEY_BYTES = 1024
_URI = {"pattern": "^(s3://[a-z0-9]|file:///)", "examples": ["s3://bucket/key"]}


@dataclass(frozen=True, slots=True)
class Reference:
    """One object, or a prefix of objects when `key` is empty or ends in `/`.

    `key` never starts with `/` and never holds an empty, `.` or `..` segment, so a reference cannot climb out of a
    prefix it was checked against. A `file` reference has an empty bucket and its absolute path, without the leading
    slash, as key.
    """

    scheme: Literal["s3", "file"]
    bucket: str
    key: str

    @classmethod
    def parse(cls, text: str) -> Reference:
        """Read `s3://bucket/key` or `file:///path`; raises InvalidReference naming what is wrong."""
        if _UNWRITABLE.search(text):
            raise InvalidReference(f"reference {text[:80]!r} holds control characters or broken Unicode; remove them")
        scheme, separator, rest = text.partition("://")
        if not separator or scheme not in ("s3", "file"):
            raise InvalidReference(
                f"reference {text[:200]!r} is not understood; write s3://bucket/key or file:///absolute/path"
            )
        bucket, slash, key = rest.partition("/")
        if scheme == "file":
            try:
                key = unquote(key, errors="strict")
            except UnicodeDecodeError as error:
                raise InvalidReference(f"reference {text[:200]!r} is not UTF-8 after %-decoding; rename it") from error
            if bucket:
                raise InvalidReference(f"reference {text[:200]!r} names a host; write file:///absolute/path")
            if not slash or _UNWRITABLE.search(key):
                raise InvalidReference(f"reference {text[:200]!r} has no absolute path; write file:///absolute/path")
        elif not _BUCKET.fullmatch(bucket):
            raise InvalidReference(
                f"reference {text[:200]!r}: {bucket[:80]!r} is not a bucket name "
                "(3 to 63 lower-case letters, digits, dots and dashes)"
            )
        _check_key(key, text)
        return cls("s3" if scheme == "s3" else "file", bucket, key)

    @classmethod
    def from_path(cls, path: Path) -> Reference:
        """The `file` reference of a path; a relative path counts from the working directory, `..` is taken as spelled.

        Raises InvalidReference where no reference can spell the path.
        """
        text = os.path.abspath(path)  # noqa: PTH100 - Path.absolute() keeps `..`
        if _UNWRITABLE.search(text):
            raise InvalidReference(f"path {text[:200]!r} holds control characters or broken Unicode; rename it")
        return cls.parse(f"file:///{quote(text.lstrip('/'))}")

    @property
    def path(self) -> Path:
        """The absolute path of a `file` reference."""
        if self.scheme != "file":
            raise InvalidReference(f"{self} is not a file; only file:// references have a path")
        return Path("/" + self.key)

    @property
    def name(self) -> str:
        """The last segment of the key."""
        return self.key.removesuffix("/").rpartition("/")[2]

    @property
    def is_prefix(self) -> bool:
        return not self.key or self.key.endswith("/")

    def as_prefix(self) -> Reference:
        """The same place, spelled as a prefix: with a trailing slash."""
        return self if self.is_prefix else Reference(self.scheme, self.bucket, self.key + "/")

    def join(self, *names: str) -> Reference:
        """The object `names` below this prefix."""
        key = self.as_prefix().key + "/".join(names)
        if _UNWRITABLE.search(key):
            raise InvalidReference(f"key {key[:80]!r} holds control characters or broken Unicode; remove them")
        _check_key(key, key)
        return Reference(self.scheme, self.bucket, key)

    def within(self, prefix: Reference) -> bool:
        """Whether this object lies below `prefix`, compared by whole segments."""
        other = prefix.as_prefix()
        return (self.scheme, self.bucket) == (other.scheme, other.bucket) and (
            not other.key or self.key.startswith(other.key) or self.key == other.key.removesuffix("/")
        )

    def __str__(self) -> str:
        return f"file:///{quote(self.key)}" if self.scheme == "file" else f"s3://{self.bucket}/{self.key}"


def _check_key(key: str, text: str) -> None:
    if len(key.encode()) > MAX_KEY_BYTES:
        raise InvalidReference(f"reference {text[:80]!r}... is longer than {MAX_KEY_BYTES} bytes; shorten the key")
    segments = key.removesuffix("/").split("/") if key else []
    if any(segment in ("", ".", "..") for segment in segments):
        raise InvalidReference(f"reference {text[:200]!r} holds an empty, '.' or '..' segment; write the plain key")


def _object(text: str) -> str:
    reference = Reference.parse(text)
    if reference.is_prefix:
        raise InvalidReference(f"reference {text[:200]!r} names a folder; name one object")
    return str(reference)


def _prefix(text: str) -> str:
    return str(Reference.parse(text).as_prefix())


ObjectUri = Annotated[str, AfterValidator(_object), Field(json_schema_extra=_URI)]
"""A validated reference to one object, as text."""

PrefixUri = Annotated[str, AfterValidator(_prefix), Field(json_schema_extra=_URI)]
"""A validated reference to a prefix, as text with a trailing slash."""
