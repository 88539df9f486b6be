"""Deliveries over real Redis, a real ledger and real receivers: retries, fairness, giving up, and coming back."""

from __future__ import annotations

import json
import logging
import time
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from threading import Event

import pytest
from pydantic import HttpUrl
from redis import Redis
from standardwebhooks import Webhook

from overpaint_common import wire
from overpaint_common.errors import BrokerUnavailable, StorageUnavailable
from overpaint_common.ledger import Ledger
from overpaint_common.live import connect
from overpaint_common.references import Reference
from overpaint_common.settings import AccessSettings
from overpaint_common.storage import LocalStore
from overpaint_common.webhooks import DeadWebhook, PendingWebhook, WebhookEvent, schedule_webhook
from overpaint_producer import verify_webhook
from overpaint_producer.local.redis import free_port
from overpaint_worker.keeper.deliveries import PAUSES, Deliveries, Policy, pause
from overpaint_worker.keeper.sender import Sender
from tests.support.stack import eventually
from tests.webhooks.conftest import KEY, SECRET, Place
from tests.webhooks.receivers import Answer, Receiver

Start = Callable[[], Receiver]
Deliver = Callable[..., Deliveries]


def at_once(_tries: int, _retry_after: float | None) -> float | None:
    return 0


def never(_tries: int, _retry_after: float | None) -> float | None:
    return None


@pytest.fixture
def deliver(redis: Redis, place: Place, allowed: list[str]) -> Iterator[Deliver]:
    """Makes deliveries to what was started so far, closed at the end."""
    made: list[Deliveries] = []

    def make(policy: Policy = at_once, *, deadline: float = 5.0, ledger: Ledger = place.ledger) -> Deliveries:
        sender = Sender(allowed, [KEY], private=True, deadline=deadline)
        made.append(Deliveries(redis, ledger, sender, policy=policy))
        return made[-1]

    yield make
    for deliveries in made:
        deliveries.close()


def hand_over(place: Place, redis: Redis, url: str, name: str = "job-number-1") -> None:
    place.end(place.job(name, url))
    schedule_webhook(redis, name)


def pile_up(place: Place, redis: Redis, url: str, count: int, *, age: timedelta = timedelta()) -> list[str]:
    """Hand over `count` webhooks for one receiver, as if so long ago; the jobs' ids."""
    now, port = datetime.now(UTC), url.rpartition(":")[2]
    names = [f"job-of-a-pile-{port}-{number}" for number in range(count)]
    for name in names:
        event = WebhookEvent(id=name, type="job.expired", job_id=name, status="expired", finished_at=now)
        place.ledger.keep_webhook(PendingWebhook(webhook=HttpUrl(url), event=event, handed_over_at=now - age))
        schedule_webhook(redis, name)
    return names


def until(deliveries: Deliveries, condition: Callable[[], bool], what: str, seconds: float = 15.0) -> None:
    """Tick until `condition` holds."""

    def ticked() -> bool:
        deliveries.tick()
        return condition()

    eventually(ticked, what, seconds)


def nothing_left(place: Place, redis: Redis) -> Callable[[], bool]:
    return lambda: not list(place.ledger.webhooks()) and not redis.zcard(wire.WEBHOOKS_KEY)


def test_a_webhook_is_delivered_and_verified(place: Place, redis: Redis, deliver: Deliver, start: Start) -> None:
    """Given a finished job, when the keeper ticks, then its webhook arrives, verified twice, and nothing is left."""
    running = start()
    hand_over(place, redis, f"{running.url}/done")
    until(deliver(), nothing_left(place, redis), "delivered")
    arrived = running.took()
    event = verify_webhook(arrived.headers, arrived.body, SECRET)
    assert Webhook(SECRET).verify(arrived.body, dict(arrived.headers)) == json.loads(arrived.body)
    assert (event.job_id, event.type) == ("job-number-1", "job.succeeded")
    assert event.id == arrived.headers["webhook-id"]
    assert running.arrived.empty()
    assert place.names("ledger", "dead") == []


def test_it_is_tried_again_under_the_same_id(place: Place, redis: Redis, deliver: Deliver, start: Start) -> None:
    """Given a receiver that fails, then is too slow, then takes it, when ticking, then three tries carry one id."""
    running, released = start(), Event()
    running.answers.extend([Answer(500), Answer(204, after=released)])
    hand_over(place, redis, running.url)
    until(deliver(deadline=0.4), nothing_left(place, redis), "delivered")
    released.set()
    ids = {verify_webhook(arrived.headers, arrived.body, SECRET).id for arrived in (running.took() for _ in range(3))}
    assert ids == {"job-number-1_0123456789ab"}
    assert running.arrived.empty()


def test_tries_outlive_the_keeper_and_redis(place: Place, redis: Redis, deliver: Deliver, start: Start) -> None:
    """Given a failed try, when Redis loses all and another keeper takes over, then it counts on from there."""
    running, seen = start(), list[tuple[int, float | None]]()
    running.answers.extend([Answer(503, {"Retry-After": "7"}), Answer(500)])

    def an_hour(tries: int, retry_after: float | None) -> float | None:
        seen.append((tries, retry_after))
        return 3600

    hand_over(place, redis, running.url)
    first = deliver(an_hour)
    until(first, lambda: len(seen) == 1, "the first try")
    first.close()
    redis.flushall()
    second = deliver(an_hour)
    assert second.recover() == 1
    until(second, lambda: len(seen) == 2, "the second try")
    assert seen == [(1, 7), (2, None)]
    second.close()
    pending = place.ledger.webhook("job-number-1")
    assert pending is not None
    assert (pending.tries, pending.error) == (2, "answered 500")


def test_the_next_try_waits_for_its_time(place: Place, redis: Redis, deliver: Deliver, start: Start) -> None:
    """Given a failed try, when the policy says an hour, then Redis holds that time and recovering changes nothing."""
    running = start()
    running.always = Answer(500)
    hand_over(place, redis, running.url)
    deliveries = deliver(lambda *_: 3600)
    until(deliveries, lambda: bool((pending := place.ledger.webhook("job-number-1")) and pending.tries), "a try")
    deliveries.close()
    now = redis.time()[0]
    due = redis.zscore(wire.WEBHOOKS_KEY, "job-number-1")
    assert due == pytest.approx((now + 3600) * 1000, abs=10_000)
    another = deliver()
    assert another.recover() == 0
    another.tick()
    assert redis.zscore(wire.WEBHOOKS_KEY, "job-number-1") == due


def test_what_redis_forgot_is_recovered_and_delivered(
    place: Place, redis: Redis, deliver: Deliver, start: Start
) -> None:
    """Given webhooks handed over, when Redis loses all, then recovering finds each once, and they are delivered."""
    running = start()
    for number in range(3):
        hand_over(place, redis, running.url, f"job-number-{number}")
    redis.flushall()
    deliveries = deliver()
    assert (deliveries.recover(), deliveries.recover()) == (3, 0)
    until(deliveries, nothing_left(place, redis), "delivered")
    assert {running.took().headers["webhook-id"] for _ in range(3)} == {
        f"job-number-{number}_0123456789ab" for number in range(3)
    }


def test_a_receiver_that_hangs_holds_nobody_else_up(place: Place, redis: Redis, deliver: Deliver, start: Start) -> None:
    """Given 200 webhooks for a receiver that hangs, when one for another comes, then it is there within two seconds."""
    hanging, other, released = start(), start(), Event()
    hanging.always = Answer(after=released)
    pile_up(place, redis, hanging.url, 200)
    deliveries = deliver(lambda *_: 0.1, deadline=3)
    until(deliveries, lambda: hanging.arrived.qsize() >= 8, "the first receiver is busy")
    hand_over(place, redis, other.url, "job-number-2")
    began = time.monotonic()
    until(deliveries, lambda: not other.arrived.empty(), "the other one's webhook")
    assert time.monotonic() - began < 2
    released.set()
    assert len(list(place.ledger.webhooks())) >= 180


def test_many_receivers_that_hang_hold_nobody_else_up(
    place: Place, redis: Redis, deliver: Deliver, start: Start
) -> None:
    """Given six receivers that hang, with ten webhooks each, when one for a seventh comes, then it is there in time."""
    released = Event()
    for _ in range(6):
        hanging = start()
        hanging.always = Answer(after=released)
        pile_up(place, redis, hanging.url, 10)
    other = start()
    deliveries = deliver(lambda *_: 0.1, deadline=3)
    deliveries.tick()
    hand_over(place, redis, other.url, "job-number-2")
    began = time.monotonic()
    until(deliveries, lambda: not other.arrived.empty(), "the other one's webhook")
    assert time.monotonic() - began < 2
    released.set()


def test_ticking_never_waits(place: Place, redis: Redis, deliver: Deliver, start: Start) -> None:
    """Given a receiver that hangs, when the keeper ticks again and again, then no tick takes long."""
    hanging, released = start(), Event()
    hanging.always = Answer(after=released)
    pile_up(place, redis, hanging.url, 40)
    deliveries = deliver(deadline=2)
    longest = 0.0
    while hanging.arrived.qsize() < 8:
        began = time.monotonic()
        deliveries.tick()
        longest = max(longest, time.monotonic() - began)
    released.set()
    assert longest < 0.5


def test_a_receiver_gets_only_so_many_at_once(place: Place, redis: Redis, deliver: Deliver, start: Start) -> None:
    """Given forty webhooks for one receiver, when it is slow, then eight come at once, and all of them in the end."""
    running, released = start(), Event()
    running.always = Answer(after=released)
    pile_up(place, redis, running.url, 40)
    deliveries = deliver(deadline=20)
    until(deliveries, lambda: running.arrived.qsize() >= 8, "eight")
    for _ in range(5):
        deliveries.tick()
    assert running.arrived.qsize() == 8
    released.set()
    until(deliveries, nothing_left(place, redis), "all delivered")
    assert running.arrived.qsize() == 40


def test_what_only_waits_for_a_silent_receiver_is_given_up(
    place: Place, redis: Redis, deliver: Deliver, start: Start, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Given a pile of days for a receiver that hangs, when more comes than may wait, then the rest is given up."""
    monkeypatch.setattr("overpaint_worker.keeper.deliveries.WAITING", 2)
    monkeypatch.setattr("overpaint_worker.keeper.deliveries.WAITING_FOR_SILENT", 2)
    hanging, released = start(), Event()
    hanging.always = Answer(after=released)
    names = pile_up(place, redis, hanging.url, 20, age=timedelta(days=2))
    deliveries = deliver(lambda *_: 3600, deadline=0.3)

    def given_up() -> bool:
        for name in names[10:]:
            redis.zadd(wire.WEBHOOKS_KEY, {name: 0}, xx=True)  # Its time has come again.
        return bool(place.names("ledger", "dead", "webhooks"))

    until(deliveries, given_up, "given up")
    released.set()
    letter = place.text("ledger", "dead", "webhooks", place.names("ledger", "dead", "webhooks")[0])
    error = "its receiver has not answered the webhooks before it for a day"
    assert DeadWebhook.model_validate_json(letter).error == error


@pytest.mark.parametrize(
    ("answer", "policy", "error"),
    [
        (Answer(410), at_once, "answered 410: there is no such receiver any more"),
        (Answer(500), never, "answered 500"),
    ],
    ids=["gone", "given up"],
)
def test_what_is_given_up_lies_among_the_dead_letters(
    place: Place, redis: Redis, deliver: Deliver, start: Start, answer: Answer, policy: Policy, error: str
) -> None:
    """Given a receiver that is gone or fails for good, when ticking, then a letter tells, and can be replayed."""
    running = start()
    running.answers.append(answer)
    hand_over(place, redis, f"{running.url}/t0ken")
    deliveries = deliver(policy)
    until(deliveries, nothing_left(place, redis), "given up")
    (name,) = place.names("ledger", "dead", "webhooks")
    letter = DeadWebhook.model_validate_json(place.text("ledger", "dead", "webhooks", name))
    assert name == "job-number-1"
    assert (letter.receiver, letter.error, letter.tries) == (running.url, error, 1)
    assert str(letter.webhook) == f"{running.url}/t0ken"
    assert "t0ken" not in repr(letter)
    assert SECRET[6:] not in letter.model_dump_json()

    place.ledger.keep_webhook(letter.replayed(letter.buried_at))
    schedule_webhook(redis, name)
    until(deliveries, nothing_left(place, redis), "delivered")
    assert running.took().headers["webhook-id"] == running.took().headers["webhook-id"]


def test_a_webhook_whose_delivery_could_not_be_noted_comes_again(
    place: Place, redis: Redis, deliver: Deliver, start: Start
) -> None:
    """Given storage that fails right after a delivery, when its time comes again, then it is sent under the same id."""

    class Failing(LocalStore):
        failures = 1

        def delete(self, reference: Reference) -> None:
            if self.failures:
                self.failures -= 1
                raise StorageUnavailable(f"cannot delete {reference}")
            super().delete(reference)

    running = start()
    hand_over(place, redis, running.url)
    deliveries = deliver(ledger=Ledger(Failing(), place.ledger.keys.root))
    deliveries.tick()
    first = running.took()

    def sent_again() -> bool:
        redis.zadd(wire.WEBHOOKS_KEY, {"job-number-1": 0})  # A minute has passed.
        return not running.arrived.empty()

    until(deliveries, sent_again, "sent again")
    assert running.took().headers["webhook-id"] == first.headers["webhook-id"]


def test_a_hint_without_a_webhook_is_dropped(place: Place, redis: Redis, deliver: Deliver) -> None:
    """Given a hint for a webhook that was delivered already, when the keeper ticks, then the hint is gone."""
    schedule_webhook(redis, "job-number-1")
    until(deliver(), nothing_left(place, redis), "forgotten")


def test_without_redis_the_keeper_is_told(place: Place) -> None:
    """Given no Redis, when ticking or recovering, then BrokerUnavailable is raised."""
    place.end(place.job("job-number-1", "http://127.0.0.1:1/"))
    nowhere = connect(f"redis://127.0.0.1:{free_port()}/0", patience=1)
    deliveries = Deliveries(nowhere, place.ledger, Sender(["*"], [KEY]))
    for call in (deliveries.tick, deliveries.recover):
        with pytest.raises(BrokerUnavailable):
            call()
    deliveries.close()


def test_nothing_secret_is_logged(
    place: Place,
    redis: Redis,
    start: Start,
    deliver: Deliver,
    allowed: list[str],
    caplog: pytest.LogCaptureFixture,
) -> None:
    """Given URLs with tokens, when webhooks are delivered, refused and given up, then no line of the log has one."""
    caplog.set_level(logging.DEBUG)
    fine, failing = start(), start()
    failing.always = Answer(500, {"Location": "http://t0ken/"})
    allowed += [f"http://127.0.0.1:{free_port()}", f"127.0.0.1:{fine.port}"]
    urls = [fine.url, failing.url, allowed[-2], f"https://{allowed[-1]}"]
    for number, url in enumerate(urls):
        hand_over(place, redis, f"{url}/t0ken?key=t0ken", f"job-number-{number}")
    settings = AccessSettings.load(ledger="s3://ledger/", webhooks="*.example.org", webhook_secret=SECRET)
    strict = Deliveries(redis, place.ledger, Sender.of(settings), policy=never)
    lenient = deliver(lambda tries, _: 0 if tries < 2 else None)
    until(lenient, lambda: len(place.names("ledger", "dead")) >= 3, "given up")
    place.end(place.job("job-number-10", "https://a.example.net/t0ken"))
    schedule_webhook(redis, "job-number-10")
    until(strict, lambda: "job-number-10" in str(place.names("ledger", "dead")), "refused")
    strict.close()
    assert "webhook delivered job=job-number-0" in caplog.text
    assert "webhook given up job=job-number-10 receiver=a.example.net" in caplog.text
    assert "t0ken" not in caplog.text
    assert SECRET[6:] not in caplog.text


def test_pauses_grow_and_end_after_about_a_day() -> None:
    """Given try after try, when the policy is asked, then pauses grow, sum up to about a day, and then it gives up."""
    assert [pause(tries, None, 0.5) for tries in range(1, 8)] == [5, 30, 120, 600, 1800, 3600, 7200]
    assert pause(len(PAUSES) + 1, None, 0.5) is None
    for chance, least, most in ((0.0, 18, 20), (0.5, 23, 25), (1.0, 27, 29)):
        assert least < sum(pause(tries, None, chance) or 0 for tries in range(1, len(PAUSES) + 1)) / 3600 < most


@pytest.mark.parametrize(("asked", "given"), [(1, 5), (0, 5), (None, 5), (90, 90), (10**9, 3600)])
def test_a_receiver_may_ask_for_more_time_but_not_for_ever(asked: float | None, given: float) -> None:
    """Given a Retry-After, when the policy is asked, then it is honoured within an hour, and shortens no pause."""
    assert pause(1, asked, 0.5) == given
