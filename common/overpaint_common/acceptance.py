"""Accepting a job: request, marker, ticket, in this order, whoever submits it."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime

from overpaint_common.errors import (
    BrokerUnavailable,
    ForbiddenReference,
    ForbiddenWebhook,
    InvalidJob,
    SettingsError,
    UnknownModel,
)
from overpaint_common.fleet import ModelCard, models_of, settle
from overpaint_common.job import Job
from overpaint_common.ledger import Held, Ledger
from overpaint_common.live import Live, Progress
from overpaint_common.result import Result
from overpaint_common.tickets import Tickets


@dataclass(frozen=True, slots=True)
class Accepted:
    """A job that the ledger holds."""

    record: Result | None
    """There when the same job had finished already."""
    not_queued: BrokerUnavailable | None
    """Why the ticket could not be sent; the job is accepted all the same, and the keeper will send one."""


class Acceptance:
    """Turns jobs into accepted jobs."""

    def __init__(self, ledger: Ledger, live: Live, tickets: Tickets) -> None:
        self._ledger = ledger
        self._live = live
        self._tickets = tickets

    def accept(self, job: Job) -> Accepted:
        """Settle, store and queue one job.

        Raises InvalidJob, ForbiddenReference or ForbiddenWebhook for what the fleet would refuse, IdempotencyConflict,
        SettingsError where the workers keep another ledger, and StorageUnavailable while the ledger cannot be written:
        then nothing was promised and submitting again is safe.
        """
        job.check_size()
        digest, not_queued = job.digest(), None
        try:
            self._check_deadline(job)
            announced = self._live.models()
            cards = {name: card for name in models_of(job) if (card := find_model(announced, name)) is not None}
            self._check_ledger(cards.get(job.model))
            settled = settle(job, cards)
        except BrokerUnavailable as error:
            settled, not_queued = settle(job, {}), error
        except (InvalidJob, ForbiddenReference, ForbiddenWebhook):
            # What was accepted once stays accepted, also where the fleet has changed since.
            if not self._ledger.holds(job.id, digest):
                raise
            settled = job
        held = self._ledger.accept(settled, digest, datetime.now(UTC))
        if held.record is None and not_queued is None:
            not_queued = self._queue(held)
        return Accepted(held.record, not_queued if held.record is None else None)

    def _check_deadline(self, job: Job) -> None:
        # By the clock that will decide it: this machine's own may be wrong.
        if job.deadline is not None and job.deadline <= self._live.now():
            raise InvalidJob(f"deadline {job.deadline.isoformat()} has passed already; give a later one, or none")

    def _check_ledger(self, card: ModelCard | None) -> None:
        ours = str(self._ledger.keys.root)
        if card is not None and card.ledger not in (None, ours):
            raise SettingsError(
                f"the ledger here is {ours}, but the workers of model {card.name!r} keep theirs at {card.ledger} and "
                "would never find the job; set OVERPAINT_LEDGER to the same root everywhere"
            )

    def _queue(self, held: Held) -> BrokerUnavailable | None:
        job = held.request.job
        try:
            if held.created or self._live.progress(job.id) is None:
                self._live.report({job.id: [Progress(state="queued")]})
            # A ticket that comes again is waste: another one may wait, or a worker may hold the job.
            self._tickets.send(job, if_absent=not held.created)
        except BrokerUnavailable as error:
            return error
        return None


def find_model(cards: dict[str, ModelCard], name: str) -> ModelCard | None:
    """The card of `name`; None where nothing is announced yet; raises UnknownModel where only others are."""
    if name not in cards and cards:
        known = ", ".join(sorted(cards))
        raise UnknownModel(f"model {name!r} is not in any worker's registry; the fleet has {known}")
    return cards.get(name)
