"""Object storage: S3 and local folders behind one interface, and the allowlist of places that jobs may touch."""

from __future__ import annotations

from overpaint_common.storage.access import Access, GuardedStore
from overpaint_common.storage.interface import NewObject, ObjectInfo, ObjectStore
from overpaint_common.storage.local import LocalStore
from overpaint_common.storage.memory import MemoryStore
from overpaint_common.storage.probe import require_conditional_puts
from overpaint_common.storage.router import RoutedStore
from overpaint_common.storage.s3 import S3Options, S3Store
from overpaint_common.storage.weak import WeakStore

__all__ = [
    "Access",
    "GuardedStore",
    "LocalStore",
    "MemoryStore",
    "NewObject",
    "ObjectInfo",
    "ObjectStore",
    "RoutedStore",
    "S3Options",
    "S3Store",
    "WeakStore",
    "open_store",
    "require_conditional_puts",
]


def open_store(s3: S3Options) -> ObjectStore:
    """A store for both `s3` and `file` references; connects to nothing before its first call."""
    return RoutedStore({"s3": S3Store(s3), "file": LocalStore()})
