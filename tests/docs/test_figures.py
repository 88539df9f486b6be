"""The figures that the pages give in running text are those of the code."""

from __future__ import annotations

import inspect
from itertools import product

import pytest

from overpaint_common import wire
from overpaint_common.errors import StorageUnavailable
from overpaint_common.job import PRIORITIES, Job, Priority
from overpaint_common.leases import ATTEMPTS_TTL, GIVE_UP_AT, SUSPECT_AT
from overpaint_common.live import STATUS_TTL, WORKER_TTL
from overpaint_common.webhooks import SECRET_BYTES, verify_webhook
from overpaint_producer.producer import RETRY_FOR
from overpaint_worker import exits
from overpaint_worker.attempt import UPLOAD_PATIENCE
from overpaint_worker.consumption import SoloLoop
from overpaint_worker.engine.acceleration import BUCKETS
from overpaint_worker.engine.engine import SWITCH_PATIENCE, PhaseLimits
from overpaint_worker.engine.policy import AGEING
from overpaint_worker.engine.profile import MOST_ROWS
from overpaint_worker.engine.turns import URGENT_ROWS
from overpaint_worker.holding import RENEWALS
from overpaint_worker.jobs import COMMIT_PATIENCE
from overpaint_worker.keeper import backlog, deliveries, keeper, leader, pulse, sender
from overpaint_worker.retry import BLOCKED, OUTAGE_ATTEMPTS, RULES
from overpaint_worker.settings import WorkerSettings
from overpaint_worker.shares import PATIENCE, Shares
from overpaint_worker.supervisor import FIRST_BACKOFF, LAST_BACKOFF
from overpaint_worker.watchdog import Watchdog
from tests.docs.pages import DOCS, page

ARCHITECTURE = page(DOCS / "architecture.md")

WORDS = ("no", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten")
TIMES = {1 / 2: "half", 3: "three times"}
ORDINALS = ("", "first", "second", "third")
DAY, HOUR, MINUTE = 24 * 3600, 3600, 60


def default(of: object, parameter: str) -> float:
    """The default of a parameter."""
    value: float = inspect.signature(of).parameters[parameter].default  # type: ignore[arg-type]
    return value


def setting(name: str) -> float:
    value: float = WorkerSettings.model_fields[name].default
    return value


def where(true: bool, sentence: str) -> str:
    """A sentence whose figure is a word; `true` compares it with the code, and what no page says comes back if not."""
    return sentence if true else f"(not so any more) {sentence}"


OUTAGE = RULES[StorageUnavailable].backoff
TRIES = Job.model_fields["max_attempts"].default
LEASE, GRACE = setting("lease"), setting("grace")
VISIBILITY = wire.celery_settings("redis://")["broker_transport_options"]["visibility_timeout"]
SLOTS = int(setting("slots"))
SHARES = Shares(SLOTS)
STANDARD_AND_BULK = max(
    standard + bulk + 1
    for standard, bulk in product(range(SLOTS), repeat=2)
    if SHARES.admits("bulk", {"standard": standard, "bulk": bulk})
)
LIMITS = PhaseLimits()

REDIS = {
    f"kept for {ATTEMPTS_TTL / DAY:g} days after the last",
    f"renewed every {WORKER_TTL / 3:g} seconds",
    where(STATUS_TTL == DAY, "kept for a day"),
    f"sends them again after {VISIBILITY / MINUTE:g} minutes",
}
WORKER = {
    f"after {FIRST_BACKOFF:g} to {LAST_BACKOFF:g} seconds",
    f"`OVERPAINT_LEASE` ({LEASE:g} seconds), and one thread renews those of all jobs in hand {TIMES[RENEWALS]}",
    f"Of {SLOTS} slots none may hold more than {SHARES.most('bulk')}",
    f"standard and bulk together no more than {STANDARD_AND_BULK}",
    f"passed over {PATIENCE} times comes first once",
    where(AGEING == 8, "eight times the device's time from its next step on, sixty-four times"),
    f"at which {WORDS[SUSPECT_AT]} workers or engines have died is not queued but set apart",
    where(default(SoloLoop, "interval") == 1, "looks for such jobs every second"),
    f"waits up to {default(SoloLoop, 'patience') / MINUTE:g} minutes until it is empty",
    f"a step of more than {LIMITS.step / MINUTE:g} minutes, or a load of more than {LIMITS.load / MINUTE:g}",
    f"none is taken for {default(Watchdog, 'patience'):g} seconds",
    f"ends with status {exits.SOFTWARE}",
}
ENGINE = {
    f"a priority weighs {WORDS[AGEING]} times the next one",
    f"up to {URGENT_ROWS} rows, since so many cost little more",
    f"how many fit, {MOST_ROWS} at most",
    f"gone on for {WORDS[int(SWITCH_PATIENCE)]} times as long as loading takes",
    f"for {', '.join(map(str, BUCKETS[:-1]))} and {BUCKETS[-1]} rows",
}
KEEPER = {
    f"a claim of {leader.TERM:g} seconds, leads",
    f"Every {TIMES[keeper.EVERY]} second the leader",
    f"drained beyond it {backlog.MARGIN:g} seconds ago",
    f"a job has waited for {backlog.AGED / MINUTE:g} minutes",
    f"looked at every {keeper.AGE_EVERY:g} seconds",
    f"or {keeper.LIST_EVERY / MINUTE:g} minutes have passed",
    f"every {WORDS[int(keeper.LIST_EVERY / MINUTE)]} minutes",
    f"{sender.DEADLINE:g} seconds for each request, {deliveries.PER_RECEIVER} at once to one receiver",
    f"{len(deliveries.PAUSES) + 1} times in about a day",
    f"pauses from {min(deliveries.PAUSES):g} seconds to {max(deliveries.PAUSES) / HOUR:g} hours",
    where(deliveries.LONGEST_RETRY_AFTER == HOUR, "heeded up to an hour"),
}
AGAIN = {
    f"after `max_attempts` ({TRIES}) tries",
    f"after {OUTAGE_ATTEMPTS} outages",
    f"from the {ORDINALS[SUSPECT_AT]} crash on alone",
    f"at the {ORDINALS[GIVE_UP_AT]} crash",
    f"kill up to {WORDS[GIVE_UP_AT]} more",
}
BREAKS = {
    f"goes on trying for {RETRY_FOR:g} seconds, then raises",
    f"within {WORDS[int(keeper.LIST_EVERY / MINUTE)]} minutes",
    f"`max_attempts` ({TRIES}) times in all",
    where(
        OUTAGE.longest == MINUTE,
        f"{OUTAGE.first:g} seconds at first and a minute at most, up to {OUTAGE_ATTEMPTS} times",
    ),
    where(UPLOAD_PATIENCE == MINUTE, f"the pictures for a minute, the record for {COMMIT_PATIENCE / MINUTE:g}"),
    f"{BLOCKED.backoff.first:g} seconds at first and {BLOCKED.backoff.longest / MINUTE:g} minutes at most",
    f"lapse within `OVERPAINT_LEASE`, {LEASE:g} seconds",
    f"after {default(Watchdog, 'patience'):g} seconds it ends",
    f"after {WORDS[SUSPECT_AT]} crashes it runs alone, after the {ORDINALS[GIVE_UP_AT]} it has",
    f"another one leads after {leader.TERM:g} seconds at most",
    f"with status {exits.CONFIG}",
}
WEBHOOKS = {
    where(default(verify_webhook, "tolerance") == 5 * MINUTE, "more than 5 minutes off"),
    f"2xx within {sender.DEADLINE:g} seconds",
    f"{len(deliveries.PAUSES) + 1} times in about a day",
    f"grow from {min(deliveries.PAUSES):g} seconds to {max(deliveries.PAUSES) / HOUR:g} hours",
    where(deliveries.LONGEST_RETRY_AFTER == HOUR, "up to an hour"),
}
ERRORS = {
    f"trying for {RETRY_FOR:g} seconds (`retry_for`)",
    f"`max_attempts` ({TRIES})",
    f"after the {ORDINALS[SUSPECT_AT]} the job runs alone, after the {ORDINALS[GIVE_UP_AT]} it is given up",
    f"{WORDS[GIVE_UP_AT].capitalize()} workers died",
    where(
        UPLOAD_PATIENCE == 60,
        f"pictures for a minute and putting the record for {WORDS[int(COMMIT_PATIENCE / MINUTE)]}",
    ),
}
SETTINGS = {
    f"renewed, {TIMES[RENEWALS]} in that span; 1 to 600",
    f"{SECRET_BYTES[0]} to {SECRET_BYTES[1]} bytes in base64",
}
OVERVIEW = {
    f"`OVERPAINT_GRACE` ({GRACE:g} seconds)",
    f"`OVERPAINT_LEASE` ({LEASE:g} seconds)",
    f"run alone after the {ORDINALS[SUSPECT_AT]} death, and given up after the {ORDINALS[GIVE_UP_AT]}",
}


@pytest.mark.parametrize(
    ("file", "heading", "sentences"),
    [
        ("docs/architecture.md", "4. What Redis holds", REDIS),
        ("docs/architecture.md", "5. The worker", WORKER),
        ("docs/architecture.md", "6. The engine", ENGINE),
        ("docs/architecture.md", "7. The keeper", KEEPER),
        ("docs/architecture.md", "8. Tried again, and given up", AGAIN),
        ("docs/architecture.md", "9. What breaks, and what happens then", BREAKS),
        ("docs/errors.md", "Errors", ERRORS),
        ("docs/protocol.md", "5. Be told of the end", WEBHOOKS),
        ("docs/settings.md", "Settings", SETTINGS),
        ("docs/handbook.md", "Start, stop, scale", OVERVIEW),
    ],
)
def test_the_figures_in_the_pages_are_those_of_the_code(file: str, heading: str, sentences: set[str]) -> None:
    """Given sentences with the code's figures put in, when the section is read, then it says each of them."""
    prose = page(DOCS.parent / file).section(heading).prose
    assert [sentence for sentence in sorted(sentences) if sentence not in prose] == []


def test_the_keeper_is_as_patient_as_the_page_says() -> None:
    """Given a keeper that begins to lead, when half a lease has passed, then it returns jobs, and not before."""
    beats = pulse.Pulse(leader=None, now_ms=lambda: 0, lease=LEASE)  # type: ignore[arg-type]
    beats._beat(True, 0)
    assert not beats.living_had_time(int(LEASE * 500) - 1)
    assert beats.living_had_time(int(LEASE * 500))
    assert "it returns nothing for half a lease" in ARCHITECTURE.prose


def test_from_three_slots_on_each_priority_finds_one() -> None:
    """Given workers of 1 to 19 slots, however full of two priorities, when the third comes, then the page is right."""
    generous = [slots for slots in range(1, 20) if all(_finds_a_slot(slots, priority) for priority in PRIORITIES)]
    assert generous == list(range(3, 20))
    assert "with three slots or more, a priority that has no job in hand always finds one free" in ARCHITECTURE.prose


def test_a_webhook_is_tried_for_about_a_day() -> None:
    assert 0.9 * DAY < sum(deliveries.PAUSES) < 1.1 * DAY


def _finds_a_slot(slots: int, wanted: Priority) -> bool:
    """Whether a priority finds a slot however much of the two others there is in hand."""
    shares = Shares(slots)
    others = [each for each in PRIORITIES if each != wanted]
    for counts in product(range(slots + 1), repeat=len(others)):
        in_hand = dict(zip(others, counts, strict=True))
        possible = all(
            not count or shares.admits(each, {**in_hand, each: count - 1}) for each, count in in_hand.items()
        )
        if possible and not shares.admits(wanted, in_hand):
            return False
    return True
