"""Accepting jobs: request, marker, ticket, in this order, whoever submits them."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime

from redis import Redis

from overpaint_common.errors import (
    BrokerUnavailable,
    ForbiddenReference,
    ForbiddenWebhook,
    IdempotencyConflict,
    InvalidJob,
    JobsRefused,
    OverpaintError,
    SettingsError,
    StorageUnavailable,
    UnknownModel,
)
from overpaint_common.fleet import ModelCard, models_of, settle
from overpaint_common.index import Summary
from overpaint_common.job import Job
from overpaint_common.ledger import Held, Ledger
from overpaint_common.live import Live
from overpaint_common.naming import published
from overpaint_common.patience import insist
from overpaint_common.references import Reference
from overpaint_common.result import Result
from overpaint_common.tickets import Tickets

BATCH = 64
"""Jobs written and queued together where many are accepted; a submitter that dies leaves as many to the keeper."""


@dataclass(frozen=True, slots=True)
class Accepted:
    """A job that the ledger holds."""

    record: Result | None
    """There when the same job had finished already."""
    not_queued: BrokerUnavailable | None
    """Why the ticket could not be sent; the job is accepted all the same, and the keeper will send one."""


@dataclass(frozen=True, slots=True)
class _Fleet:
    """What Redis says of the fleet, asked once for any number of jobs."""

    models: Mapping[str, ModelCard]
    now: datetime | None
    """By the clock that will decide deadlines: this machine's own may be wrong. None where no job has one."""
    outage: BrokerUnavailable | None


class Acceptance:
    """Turns jobs into accepted jobs."""

    def __init__(self, ledger: Ledger, redis: Redis) -> None:
        self._ledger = ledger
        self._live = Live(redis)
        self._tickets = Tickets(redis)

    def accept(self, job: Job) -> Accepted:
        """Settle, store and queue one job.

        Raises InvalidJob, ForbiddenReference or ForbiddenWebhook for what the fleet would refuse, IdempotencyConflict,
        SettingsError where the workers keep another ledger, and StorageUnavailable while the ledger cannot be written:
        then nothing was promised and submitting again is safe.
        """
        fleet = self._ask([job])
        settled, digest = self._settle(job, fleet)
        held = self._ledger.accept(settled, digest, datetime.now(UTC))
        return _accepted(held, fleet.outage or self._queue([held]))

    def accept_all(
        self, jobs: Mapping[str, Job], *, retry_for: float, progress: Callable[[int], object]
    ) -> Iterator[Accepted | OverpaintError]:
        """Settle all jobs, given by name, then store and queue them, many at a time; what became of each, in order.

        What the fleet would refuse is told before anything is written, all at once: raises JobsRefused, or the one
        reason there is where there is one job. While storage does not answer, each write is tried again for `retry_for`
        seconds. `progress` is told how many jobs are behind, from this thread. Whoever stops half-way leaves some
        jobs accepted and the others not; accepting the same again completes it.
        """
        fleet = self._ask(list(jobs.values()))
        settled = self._settle_all(jobs, fleet)
        outage, down, done = fleet.outage, None, 0
        for start in range(0, len(settled), BATCH):
            batch = settled[start : start + BATCH]
            written = [down] * len(batch) if down else self._write(batch, retry_for)
            # Without storage, or without Redis, each batch would wait in vain for as long as the first one did.
            down = next((held for held in written if isinstance(held, StorageUnavailable)), None)
            outage = outage or self._queue([held for held in written if isinstance(held, Held)])
            done += len(batch)
            progress(done)
            yield from (_accepted(held, outage) if isinstance(held, Held) else held for held in written)

    def _write(self, batch: Sequence[tuple[Job, str]], retry_for: float) -> list[Held | OverpaintError]:
        """Write jobs to the ledger; those that it did not answer for are tried again while the time lasts."""
        outcomes: dict[int, Held | OverpaintError] = {}

        def attempt() -> None:
            left = [place for place in range(len(batch)) if not isinstance(outcomes.get(place), Held)]
            written = self._ledger.accept_all([batch[place] for place in left], datetime.now(UTC))
            outcomes.update(zip(left, written, strict=True))
            silence = next((each for each in written if isinstance(each, StorageUnavailable)), None)
            if silence is not None:
                raise silence

        with suppress(StorageUnavailable):
            insist(attempt, on=StorageUnavailable, seconds=retry_for)
        return [outcomes[place] for place in range(len(batch))]

    def _ask(self, jobs: Sequence[Job]) -> _Fleet:
        try:
            dated = any(job.deadline is not None for job in jobs)
            return _Fleet(self._live.models(), self._live.now() if dated else None, None)
        except BrokerUnavailable as error:
            return _Fleet({}, None, error)

    def _settle_all(self, jobs: Mapping[str, Job], fleet: _Fleet) -> list[tuple[Job, str]]:
        settled: list[tuple[Job, str]] = []
        refused: dict[str, OverpaintError] = {}
        digests: dict[str, str] = {}
        places: dict[Reference, tuple[str, str]] = {}
        for name, job in jobs.items():
            try:
                settled.append(self._settle(job, fleet))
                if digests.setdefault(job.id, settled[-1][1]) != settled[-1][1]:
                    raise IdempotencyConflict(f"id {job.id} is given to another job too; give each one of its own")
                _check_apart(job, name, places)
            except (InvalidJob, ForbiddenReference, ForbiddenWebhook) as error:
                refused[name] = error
        if refused and len(jobs) == 1:
            raise next(iter(refused.values()))
        if refused:
            raise JobsRefused(refused, of=len(jobs))
        return settled

    def _settle(self, job: Job, fleet: _Fleet) -> tuple[Job, str]:
        """The job with everything filled in, and the digest of its body as given."""
        job.check_size()
        digest = job.digest()
        try:
            _check_deadline(job, fleet)
            cards = {name: card for name in models_of(job) if (card := find_model(fleet.models, name)) is not None}
            self._check_ledger(cards.get(job.model))
            return settle(job, cards), digest
        except (InvalidJob, ForbiddenReference, ForbiddenWebhook):
            # What was accepted once stays accepted, also where the fleet has changed since.
            if fleet.outage is not None or not self._ledger.holds(job.id, digest):
                raise
            return job, digest

    def _check_ledger(self, card: ModelCard | None) -> None:
        ours = str(self._ledger.keys.root)
        if card is not None and card.ledger not in (None, ours):
            raise SettingsError(
                f"the ledger here is {ours}, but the workers of model {card.name!r} keep theirs at {card.ledger} and "
                "would never find the job; set OVERPAINT_LEDGER to the same root everywhere"
            )

    def _queue(self, batch: Sequence[Held]) -> BrokerUnavailable | None:
        """Queue those that are not finished; why not, where Redis did not take them."""
        waiting = [held for held in batch if held.record is None]
        try:
            self._tickets.send_accepted(
                (held.request.job, Summary.of(held.request).model_dump_json(), held.created) for held in waiting
            )
        except BrokerUnavailable as error:
            return error
        return None


def find_model(cards: Mapping[str, ModelCard], name: str) -> ModelCard | None:
    """The card of `name`; None where nothing is announced yet; raises UnknownModel where only others are."""
    if name not in cards and cards:
        known = ", ".join(sorted(cards))
        raise UnknownModel(f"model {name!r} is not in any worker's registry; the fleet has {known}")
    return cards.get(name)


def _check_apart(job: Job, name: str, places: dict[Reference, tuple[str, str]]) -> None:
    """Raises InvalidJob where a job would publish a picture where another one does, by `places`, which learns its own.

    The same job twice, by its id, is one job.
    """
    for variant in range(job.variants):
        place = published(job, variant)
        if place is None:
            return
        other, id_ = places.setdefault(place, (name, job.id))
        if id_ != job.id:
            raise InvalidJob(
                f"output.name {job.output.name!r} gives {place} to job {other!r} too, and the later picture would "
                "replace the other; put {id}, or a label that tells them apart, into the name"
            )


def _check_deadline(job: Job, fleet: _Fleet) -> None:
    if job.deadline is not None and fleet.now is not None and job.deadline <= fleet.now:
        raise InvalidJob(f"deadline {job.deadline.isoformat()} has passed already; give a later one, or none")


def _accepted(held: Held, not_queued: BrokerUnavailable | None) -> Accepted:
    return Accepted(held.record, not_queued if held.record is None else None)
