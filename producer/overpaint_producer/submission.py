"""Submitting many jobs in one call."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping

from overpaint_common.acceptance import Acceptance, Accepted
from overpaint_common.errors import OverpaintError, PartlySubmitted
from overpaint_common.job import Job
from overpaint_common.seeds import job_id_from_key


def named(jobs: Iterable[Job] | Mapping[str, Job], idempotency_key: str | None) -> dict[str, Job]:
    """The jobs by name, or by their place where they have none; with a key each has an id made of it and its name."""
    by_name = dict(jobs) if isinstance(jobs, Mapping) else {str(place): job for place, job in enumerate(jobs)}
    if idempotency_key is None:
        return by_name
    ids = {name: job_id_from_key(f"{idempotency_key}/{name}") for name in by_name}
    return {name: job.model_copy(update={"id": ids[name]}) for name, job in by_name.items()}


def accept_all(
    acceptance: Acceptance,
    jobs: Mapping[str, Job],
    *,
    retry_for: float,
    progress: Callable[[int, int], object] | None,
) -> dict[str, Accepted]:
    """What was accepted, by name.

    Raises JobsRefused where some are wrong and none was accepted, the first error where none was accepted for other
    reasons, PartlySubmitted where some were.
    """
    accepted: dict[str, Accepted] = {}
    failed: dict[str, OverpaintError] = {}

    def tell(done: int) -> None:
        if progress is not None:
            progress(done, len(jobs))

    outcomes = acceptance.accept_all(jobs, retry_for=retry_for, progress=tell)
    for name, outcome in zip(jobs, outcomes, strict=True):
        if isinstance(outcome, Accepted):
            accepted[name] = outcome
        else:
            failed[name] = outcome
    if failed and not accepted:
        raise next(iter(failed.values()))
    if failed:
        raise PartlySubmitted(failed, {name: jobs[name].id for name in accepted})
    return accepted
