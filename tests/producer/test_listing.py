"""Listing jobs: by state, label, model and priority, the newest first, over a bounded time."""

from __future__ import annotations

from datetime import datetime, timedelta

import pytest
from pydantic import SecretStr

from overpaint_common import wire
from overpaint_common.errors import BrokerUnavailable, InvalidJob
from overpaint_common.live import Progress
from overpaint_common.tickets import LISTED_FOR
from overpaint_producer import Producer, listing
from tests.producer.shop import Shop


def ids(found: listing.JobListing) -> list[str]:
    return [job.id for job in found]


def age(shop: Shop, job_id: str, by: timedelta) -> None:
    """Have been queued that long ago."""
    shop.redis.zincrby(wire.JOBS_KEY, -by.total_seconds() * 1000, job_id)


def test_jobs_come_the_newest_first_with_what_was_submitted(shop: Shop) -> None:
    first, second = (shop.job(number, labels={"customer": "acme"}) for number in range(2))
    for job in (first, second):
        shop.producer.submit(job)

    found = shop.producer.jobs()

    assert set(ids(found)) == {first.id, second.id}
    assert found.next is None
    newest = found.jobs[0]
    given = second if newest.id == second.id else first
    assert (newest.model, newest.priority, newest.source, newest.labels) == (
        "photo", "standard", given.source, {"customer": "acme"},
    )  # fmt: skip
    assert newest.accepted_at == shop.producer.ledger.request(newest.id).accepted_at
    assert newest.state == "queued"


def test_each_filter_leaves_out_what_it_does_not_name(shop: Shop) -> None:
    """Given jobs of several states, labels, models and priorities, when one is asked for, then just those come."""
    jobs = {
        "plain": shop.job(),
        "acme": shop.job(labels={"customer": "acme", "season": "winter"}),
        "comic": shop.job(model="comic"),
        "bulk": shop.job(priority="bulk"),
        "failed": shop.job(labels={"customer": "acme"}),
        "running": shop.job(),
    }
    shop.producer.submit_many(jobs)
    shop.end(jobs["failed"], "failed")
    shop.producer.live.report({jobs["running"].id: [Progress(state="running", phase="denoise", step=3, steps=9)]})

    def names(**asked: object) -> set[str]:
        found = set(ids(shop.producer.jobs(**asked)))  # type: ignore[arg-type]
        return {name for name, job in jobs.items() if job.id in found}

    assert names() == set(jobs)
    assert names(state="failed") == {"failed"}
    assert names(state=("failed", "running")) == {"failed", "running"}
    assert names(labels={"customer": "acme"}) == {"acme", "failed"}
    assert names(labels={"customer": "acme", "season": "winter"}) == {"acme"}
    assert names(labels={"customer": "acme"}, state="queued") == {"acme"}
    assert names(model="comic") == {"comic"}
    assert names(priority="bulk") == {"bulk"}
    assert shop.producer.jobs(state="running").jobs[0].progress.step == 3


def test_pages_have_every_job_once(shop: Shop) -> None:
    """Given jobs queued within the same millisecond, when they are listed page by page, then each comes just once."""
    handles = shop.producer.submit_many([shop.job(number) for number in range(25)])

    pages, after = [], None
    while True:
        page = shop.producer.jobs(limit=10, after=after)
        pages.append(ids(page))
        after = page.next
        if after is None:
            break

    assert [len(page) for page in pages] == [10, 10, 5]
    assert sorted(job_id for page in pages for job_id in page) == sorted(handle.id for handle in handles)


def test_since_and_until_bound_when_jobs_were_queued(shop: Shop) -> None:
    now, yesterday, long_ago = (handle.id for handle in shop.producer.submit_many([shop.job(i) for i in range(3)]))
    age(shop, yesterday, timedelta(hours=30))
    age(shop, long_ago, timedelta(days=5))

    assert ids(shop.producer.jobs()) == [now]
    assert ids(shop.producer.jobs(since=timedelta(days=2))) == [now, yesterday]
    assert ids(shop.producer.jobs(since=timedelta(days=6), until=timedelta(days=1))) == [yesterday, long_ago]


def test_what_is_older_than_a_week_leaves_the_list_with_the_next_ticket(shop: Shop) -> None:
    old = shop.producer.submit(shop.job())
    age(shop, old.id, timedelta(seconds=LISTED_FOR + 60))

    new = shop.producer.submit(shop.job())

    assert shop.redis.zrange(wire.JOBS_KEY, 0, -1) == [new.id]
    assert old.status().state == "queued"


def test_the_ledger_tells_of_jobs_that_redis_has_forgotten(shop: Shop) -> None:
    """Given statuses and tickets that Redis lost, when jobs are listed, then request and record say how they stand."""
    open_job, ended = shop.job(1), shop.job(2)
    shop.producer.submit_many([open_job, ended])
    shop.end(ended, "cancelled")
    for job in (open_job, ended):
        shop.redis.delete(wire.status_key(job.id))
        shop.redis.zrem(wire.queued_key(wire.queue_name("photo", "standard")), job.id)

    found = {job.id: job for job in shop.producer.jobs()}

    assert found[open_job.id].state == "accepted"
    assert found[ended.id].state == "cancelled"
    assert found[ended.id].labels == {"number": "2"}


def test_a_job_that_waits_for_longer_than_its_status_is_kept_still_counts_as_queued(shop: Shop) -> None:
    """Given a ticket that waits, grown urgent by its age, when the status has expired, then list and handle say so."""
    job = shop.job(priority="bulk")
    handle = shop.producer.submit(job)
    shop.redis.delete(wire.status_key(job.id))
    bulk, standard = (wire.queued_key(wire.queue_name("photo", priority)) for priority in ("bulk", "standard"))
    shop.redis.zadd(standard, {job.id: shop.redis.zscore(bulk, job.id)})
    shop.redis.zrem(bulk, job.id)

    assert [found.id for found in shop.producer.jobs(state="queued")] == [job.id]
    assert handle.status().state == "queued"


def test_going_on_behind_a_job_that_is_not_in_the_list_is_refused(shop: Shop) -> None:
    shop.producer.submit(shop.job())

    with pytest.raises(InvalidJob, match="job order-1234 is not in the list, or no more; list again from the start"):
        shop.producer.jobs(after="order-1234")


def test_a_job_that_has_left_the_ledger_too_is_left_out(shop: Shop) -> None:
    job = shop.job()
    shop.producer.submit(job)
    shop.redis.delete(wire.status_key(job.id))
    shop.producer.store.delete(shop.producer.ledger.keys.request(job.id))

    assert len(shop.producer.jobs()) == 0


def test_a_long_search_stops_and_says_where_to_go_on(shop: Shop, monkeypatch: pytest.MonkeyPatch) -> None:
    """Given more jobs than one listing looks at, when a rare one is asked for, then the next call finds it."""
    monkeypatch.setattr(listing, "LOOKED_AT", 20)
    monkeypatch.setattr(listing, "PAGE", 10)
    rare = shop.job(labels={"rare": "yes"})
    shop.producer.submit(rare)
    age(shop, rare.id, timedelta(minutes=1))
    shop.producer.submit_many([shop.job(number) for number in range(25)])

    first = shop.producer.jobs(labels={"rare": "yes"})
    second = shop.producer.jobs(labels={"rare": "yes"}, after=first.next)

    assert (ids(first), ids(second)) == ([], [rare.id])
    assert first.next is not None


def test_times_and_limits_that_make_no_sense_are_refused(shop: Shop) -> None:
    with pytest.raises(InvalidJob, match=r"since 2026-01-01T00:00:00 has no time zone; give one"):
        shop.producer.jobs(since=datetime(2026, 1, 1))
    with pytest.raises(InvalidJob, match="limit 0; give 1 or more"):
        shop.producer.jobs(limit=0)


def test_without_redis_there_is_no_list(shop: Shop) -> None:
    settings = shop.producer.settings.model_copy(update={"redis_url": SecretStr("redis://127.0.0.1:1/0")})
    with Producer(settings) as producer, pytest.raises(BrokerUnavailable):
        producer.jobs()
