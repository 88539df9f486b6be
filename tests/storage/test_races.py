"""Several writers, one key: the store decides, and exactly one wins."""

from __future__ import annotations

import multiprocessing
import threading
from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor
from multiprocessing.managers import SyncManager

from overpaint_common.errors import ObjectExists
from overpaint_common.references import Reference
from overpaint_common.storage import LocalStore, ObjectStore, S3Store
from tests.support.s3 import S3Server

from .conftest import Place

WRITERS = 8
KEYS = 5


def body_of(writer: int) -> bytes:
    return bytes([65 + writer]) * 200_000


def race(store: ObjectStore, root: Reference, writer: int, start: threading.Barrier) -> list[str]:
    """The etags of what this writer won; an empty one for each key it lost."""
    etags = []
    for key in range(KEYS):
        start.wait(timeout=30)
        try:
            info = store.put(root.join(str(key)), body_of(writer), content_type="text/plain", if_absent=True)
        except ObjectExists:
            etags.append("")
        else:
            etags.append(info.etag)
    return etags


def race_in_a_process(root: Reference, writer: int, start: threading.Barrier) -> list[str]:
    return race(LocalStore(), root, writer, start)


def assert_one_winner_each(place: Place, results: list[list[str]]) -> None:
    for key in range(KEYS):
        winners = [writer for writer in range(len(results)) if results[writer][key]]
        assert len(winners) == 1
        assert place.store.read(place.at(str(key)), limit=200_000) == body_of(winners[0])
        assert place.store.head(place.at(str(key))).etag == results[winners[0]][key]
    assert len(list(place.store.list(place.root))) == KEYS


def test_of_eight_threads_one_wins_each_key(place: Place) -> None:
    start = threading.Barrier(WRITERS)
    with ThreadPoolExecutor(WRITERS) as pool:
        racers = [pool.submit(race, place.store, place.root, writer, start) for writer in range(WRITERS)]

    assert_one_winner_each(place, [racer.result() for racer in racers])


def test_of_four_processes_one_wins_each_key(local_place: Place) -> None:
    spawn = multiprocessing.get_context("spawn")
    with SyncManager(ctx=spawn) as manager, ProcessPoolExecutor(4, mp_context=spawn) as pool:
        start = manager.Barrier(4)
        racers = [pool.submit(race_in_a_process, local_place.root, writer, start) for writer in range(4)]
        results = [racer.result(timeout=60) for racer in racers]

    assert_one_winner_each(local_place, results)


def test_a_new_store_is_used_by_many_threads_at_once(server: S3Server, bucket: Reference) -> None:
    start, fresh = threading.Barrier(WRITERS), S3Store(server.options())

    def put(writer: int) -> None:
        start.wait(timeout=30)
        fresh.put(bucket.join(str(writer)), b"x", content_type="text/plain")

    with ThreadPoolExecutor(WRITERS) as pool:
        list(pool.map(put, range(WRITERS)))

    assert len(list(fresh.list(bucket))) == WRITERS
