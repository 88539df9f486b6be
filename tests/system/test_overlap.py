"""Transfers go on while the device computes."""

from __future__ import annotations

import re
from concurrent.futures import ThreadPoolExecutor

import pytest

from overpaint_common.result import Result
from overpaint_producer import Img2Img
from tests.support.faulty_http import delay, requests
from tests.support.stack import Stack, encoded, job, picture

JOBS = 16
TRANSFER = 0.05
"""Seconds that each request to the store takes more, as to one in another building."""


@pytest.mark.long
def test_the_engine_does_not_wait_for_a_slow_store_while_there_is_work(idle: Stack) -> None:
    """Given a store whose every request takes 50 ms more, when jobs are there all at once, then from its first job to
    its last the engine is never without one for more than a small share of its time.
    """
    sources = [idle.put(f"{number}.png", encoded(picture(colour=(200, number, 30)))) for number in range(JOBS)]
    idle.proxy.on(requests(), delay(TRANSFER))

    def one(number: int) -> Result:
        passes = (Img2Img(prompt="a blue square", steps=10 + number % 5, strength=1),)
        return idle_producer.submit(job(idle, source=sources[number], passes=passes)).wait(120)

    with idle.producer(s3_read_timeout=30) as idle_producer, idle.worker(OVERPAINT_SLOTS="16") as worker:
        with ThreadPoolExecutor(JOBS) as callers:
            records = list(callers.map(one, range(JOBS)))
        worker.stop()

    assert all(record.status == "succeeded" for record in records)
    found = re.search(r"engine busy=([0-9.]+) idle=([0-9.]+)", worker.text())
    assert found is not None
    busy, waited = map(float, found.groups())
    # What the transfers would take one after another, a dozen a job, is several times that.
    assert waited <= 0.1 * busy
