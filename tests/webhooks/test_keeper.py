"""The keeper delivers webhooks on its own, also those that nobody told it of."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime

import pytest
from redis import Redis

from overpaint_common.errors import ForbiddenWebhook
from overpaint_common.fleet import WorkerCard
from overpaint_common.seeds import new_job_id
from overpaint_producer import Producer, verify_webhook
from overpaint_producer.local.redis import EmbeddedRedis
from overpaint_worker.keeper.build import build_keeper
from overpaint_worker.settings import KeeperSettings
from tests.support.stack import eventually
from tests.webhooks.conftest import SECRET, Place
from tests.webhooks.receivers import Receiver
from tests.webhooks.test_allowlist import CARD


def settings(place: Place, server: EmbeddedRedis, allowed: list[str]) -> KeeperSettings:
    return KeeperSettings.load(
        redis_url=server.url,
        ledger=str(place.ledger.keys.root),
        read=f"{place.folder.as_uri()}/in/",
        write=f"{place.folder.as_uri()}/out/",
        lease=1,
        webhooks=",".join(allowed),
        webhook_private=True,
        webhook_secret=SECRET,
    )


def test_a_keeper_delivers_what_redis_never_knew(
    place: Place, server: EmbeddedRedis, redis: Redis, start: Callable[[], Receiver], allowed: list[str]
) -> None:
    """Given a webhook that only the ledger knows, when a keeper starts, then it arrives and is gone from the ledger."""
    del redis  # Empty, and stays so.
    running = start()
    place.end(place.job("job-number-1", f"{running.url}/done"))
    keeper = build_keeper(settings(place, server, allowed))
    keeper.start()
    try:
        arrived = running.took(20)
        assert verify_webhook(arrived.headers, arrived.body, SECRET).job_id == "job-number-1"
        eventually(lambda: not list(place.ledger.webhooks()), "gone from the ledger")
    finally:
        keeper.stop()


def test_a_cancelled_job_tells_its_receiver(
    place: Place, server: EmbeddedRedis, redis: Redis, start: Callable[[], Receiver], allowed: list[str]
) -> None:
    """Given a job that no worker has seen, when it is cancelled, then its webhook says so."""
    del redis
    running = start()
    configured = settings(place, server, allowed)
    keeper = build_keeper(configured)
    keeper.start()
    try:
        with Producer(configured) as producer:
            producer.submit(place.job(job_id := new_job_id(), running.url)).cancel()
        arrived = running.took(20)
        event = verify_webhook(arrived.headers, arrived.body, SECRET)
        assert (event.job_id, event.type) == (job_id, "job.cancelled")
    finally:
        keeper.stop()


def test_a_job_accepted_before_stays_accepted(
    place: Place, server: EmbeddedRedis, redis: Redis, allowed: list[str]
) -> None:
    """Given a receiver taken off the list, when jobs are submitted, then only one that was accepted before still is."""
    del redis
    configured = settings(place, server, allowed)
    known, new = (place.job(name, "https://hooks.example.com/t0ken") for name in ("job-number-1", "job-number-2"))
    with Producer(configured) as producer:
        place.ledger.accept(known, known.digest(), datetime.now(UTC))
        worker = WorkerCard(name="w", device="cpu", models=("mini",), slots=1, pid=1, started_at=datetime.now(UTC))
        producer.live.announce(worker, [CARD])
        with pytest.raises(ForbiddenWebhook, match=r"add hooks\.example\.com to OVERPAINT_WEBHOOKS"):
            producer.submit(new)
        assert producer.submit(known).id == known.id
