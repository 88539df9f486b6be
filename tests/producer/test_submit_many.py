"""Many jobs in one call: as if each were submitted by itself, but faster, and told of together."""

from __future__ import annotations

import pytest
from pydantic import SecretStr

from overpaint_common.acceptance import BATCH
from overpaint_common.errors import (
    ForbiddenReference,
    IdempotencyConflict,
    JobsRefused,
    ObjectNotFound,
    PartlySubmitted,
    StorageError,
    StrengthTooSmall,
)
from overpaint_common.job import Job
from overpaint_common.passes import Img2Img
from overpaint_common.seeds import job_id_from_key
from overpaint_producer import Producer
from tests.producer.shop import Shop


def test_each_job_is_accepted_as_by_submit_and_queued_in_the_order_given(shop: Shop) -> None:
    """Given more jobs than go into one round trip, when they are submitted, then ledger and queue hold each."""
    jobs = [shop.job(number) for number in range(BATCH + 20)]

    handles = shop.producer.submit_many(jobs)

    assert [handle.id for handle in handles] == [job.id for job in jobs]
    assert all(handle.not_queued is None for handle in handles)
    assert len(shop.tickets()) == len(jobs)
    assert {marker.job_id for marker in shop.producer.ledger.open_jobs()} == {job.id for job in jobs}
    singly = shop.producer.submit(shop.job(1, id=f"{jobs[0].id[:30]}xx"))
    one, other = (shop.producer.ledger.request(handle.id).job for handle in (handles[1], singly))
    assert one.model_copy(update={"id": other.id, "seed": None, "passes": ()}) == other.model_copy(
        update={"seed": None, "passes": ()}
    )
    assert isinstance(one.passes[0], Img2Img)
    assert one.passes[0].steps == 6
    assert handles[-1].status().state == "queued"


def test_the_same_call_again_under_a_key_gives_the_same_jobs_and_queues_none_twice(shop: Shop) -> None:
    """Given named jobs under one key, when they are submitted twice, then ids come from key and name, tickets once."""
    jobs = {name: shop.job(place) for place, name in enumerate(("front", "back"))}

    first, second = (
        [handle.id for handle in shop.producer.submit_many(jobs, idempotency_key="order-7")] for _ in range(2)
    )

    assert first == second == [job_id_from_key("order-7/front"), job_id_from_key("order-7/back")]
    assert len(shop.tickets()) == 2


def test_a_wrong_job_among_many_is_told_before_any_is_accepted(shop: Shop) -> None:
    """Given two wrong jobs among five, when they are submitted, then both are named, and nothing is written."""
    jobs = [shop.job(number) for number in range(5)]
    jobs[1] = shop.job(1, source="file:///elsewhere/picture.png")
    jobs[3] = shop.job(3, passes=(Img2Img(prompt="x", strength=0.01),))

    with pytest.raises(JobsRefused, match=r"2 of 5 jobs are wrong, none was accepted: job 1: .*; job 3: ") as refused:
        shop.producer.submit_many(jobs)

    assert {name: type(error) for name, error in refused.value.refused.items()} == {
        "1": ForbiddenReference,
        "3": StrengthTooSmall,
    }
    assert list(shop.producer.ledger.open_jobs()) == []


def test_one_wrong_job_alone_raises_what_submit_raises(shop: Shop) -> None:
    with pytest.raises(ForbiddenReference):
        shop.producer.submit_many([shop.job(source="file:///elsewhere/picture.png")])


def test_where_storage_fails_in_between_the_same_call_again_completes_it(shop: Shop) -> None:
    """Given a ledger that has no room for one of three, when they are submitted, then the others are, and all later."""
    jobs = {name: shop.job(place) for place, name in enumerate(("front", "back", "side"))}
    in_the_way = shop.folder / "ledger" / "jobs" / job_id_from_key("order/back")
    in_the_way.parent.mkdir(parents=True)
    in_the_way.touch()

    with pytest.raises(PartlySubmitted, match=r"2 of 3 jobs were accepted.*job back") as partly:
        shop.producer.submit_many(jobs, idempotency_key="order", retry_for=0)

    assert set(partly.value.accepted) == {"front", "side"}
    assert isinstance(partly.value.failed["back"], StorageError)
    assert sorted(shop.tickets()) == sorted(partly.value.accepted.values())

    in_the_way.unlink()
    handles = shop.producer.submit_many(jobs, idempotency_key="order")
    assert sorted(shop.tickets()) == sorted(handle.id for handle in handles)


def test_one_id_for_two_bodies_is_refused_beforehand(shop: Shop) -> None:
    """Given a list in which an id stands twice, when it is submitted, then another body is wrong, the same is not."""
    twice = [shop.job(1, id="order-1234"), shop.job(1, id="order-1234"), shop.job(2, id="order-1234")]

    with pytest.raises(JobsRefused, match=r"1 of 3 .*job 2: id order-1234 is given to another job too"):
        shop.producer.submit_many(twice)

    assert [handle.id for handle in shop.producer.submit_many(twice[:2])] == ["order-1234"] * 2
    assert shop.tickets() == ["order-1234"]


def test_jobs_that_would_publish_over_each_other_are_refused_beforehand(shop: Shop) -> None:
    """Given two of three jobs whose pictures get one name, when they are submitted, then the later is named."""

    def job(number: int, name: str) -> Job:
        return shop.job(number, source=shop.job(7).source, output=shop.job().output.model_copy(update={"name": name}))

    jobs = {style: job(place, "{stem}-{variant}.png") for place, style in enumerate(("oils", "ink"))}

    with pytest.raises(JobsRefused, match=r"1 of 3 .*job ink: .*picture-7-0\.png to job 'oils' too.*put \{id\}"):
        shop.producer.submit_many({**jobs, "apart": job(3, "{stem}-{id}.png")})

    assert shop.tickets() == []
    apart = [job(place, "{label:number}/{stem}.png") for place in range(3)]
    assert len(shop.producer.submit_many([*apart, apart[0]])) == 4


def test_another_body_under_the_same_key_is_a_conflict_of_that_job_only(shop: Shop) -> None:
    shop.producer.submit_many({"front": shop.job(1)}, idempotency_key="order")

    with pytest.raises(PartlySubmitted) as partly:
        shop.producer.submit_many({"front": shop.job(2), "back": shop.job(3)}, idempotency_key="order")

    assert isinstance(partly.value.failed["front"], IdempotencyConflict)
    assert list(partly.value.accepted) == ["back"]
    assert not partly.value.retryable
    assert "mend those that no repetition can help" in str(partly.value)


def test_without_redis_all_are_accepted_and_each_handle_says_why_it_waits(
    shop: Shop,
) -> None:
    """Given a Redis that is down, when jobs are submitted, then the ledger has them and the handles tell."""
    settings = shop.producer.settings.model_copy(update={"redis_url": SecretStr("redis://127.0.0.1:1/0")})
    with Producer(settings) as producer:
        handles = producer.submit_many([shop.job(number) for number in range(3)])

        assert all(handle.not_queued is not None for handle in handles)
        assert all(producer.ledger.request(handle.id) for handle in handles)


def test_progress_is_told_up_to_the_last_job(shop: Shop) -> None:
    told: list[tuple[int, int]] = []

    shop.producer.submit_many(
        [shop.job(number) for number in range(BATCH + 1)], progress=lambda done, of: told.append((done, of))
    )

    assert told == [(BATCH, BATCH + 1), (BATCH + 1, BATCH + 1)]


def test_no_jobs_are_no_error(shop: Shop) -> None:
    assert shop.producer.submit_many([]) == []
    with pytest.raises(ObjectNotFound):
        shop.producer.handle("0" * 32)
