"""Writing many objects to a store that takes them one by one."""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor

from overpaint_common.errors import OverpaintError
from overpaint_common.storage.interface import NewObject, ObjectInfo, ObjectStore


def put_each(store: ObjectStore, objects: Sequence[NewObject], *, threads: int) -> list[ObjectInfo | OverpaintError]:
    """What `ObjectStore.put` says of each, in their order; up to `threads` of them are written at once."""

    def put(it: NewObject) -> ObjectInfo | OverpaintError:
        try:
            return store.put(it.reference, it.body, content_type=it.content_type, if_absent=it.if_absent)
        except OverpaintError as error:
            return error

    if min(threads, len(objects)) <= 1:
        return [put(it) for it in objects]
    with ThreadPoolExecutor(min(threads, len(objects)), thread_name_prefix="overpaint-put") as pool:
        return list(pool.map(put, objects))
