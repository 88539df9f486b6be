"""Listing the jobs of late: by state, label, model and priority, over a bounded time."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

from pydantic import AwareDatetime

from overpaint_common.errors import InvalidJob, ObjectNotFound
from overpaint_common.frozen import Frozen
from overpaint_common.index import Entry, JobIndex, Summary
from overpaint_common.job import JobId, ModelName, Priority
from overpaint_common.ledger import Ledger
from overpaint_common.live import JobState, Live, Progress, last_moment
from overpaint_common.references import ObjectUri

DEFAULT_WINDOW = timedelta(days=1)
LOOKED_AT = 10_000
"""Jobs that one listing looks at, whether they are what was asked for or not."""

PAGE = 500
"""Jobs asked for in one round trip."""

READERS = 16
"""Jobs looked up in the ledger at once, where Redis no longer tells of them."""


class ListedJob(Frozen):
    """One job of a listing."""

    id: JobId
    model: ModelName
    priority: Priority
    source: ObjectUri
    labels: dict[str, str]
    accepted_at: AwareDatetime
    progress: Progress
    """Where it is, as Redis has it; `JobHandle.status` asks the ledger too."""

    @property
    def state(self) -> JobState:
        return self.progress.state


@dataclass(frozen=True, slots=True)
class JobListing:
    """Jobs, those queued last first; to be iterated over."""

    jobs: tuple[ListedJob, ...]
    next: JobId | None
    """What to give as `after` for those that follow; None where there are none within the time that was asked for."""

    def __iter__(self) -> Iterator[ListedJob]:
        return iter(self.jobs)

    def __len__(self) -> int:
        return len(self.jobs)


@dataclass(frozen=True, slots=True)
class JobFilter:
    """Which jobs are asked for; what is None counts for all."""

    states: frozenset[JobState] | None
    labels: Mapping[str, str]
    model: ModelName | None
    priority: Priority | None

    def takes(self, job: ListedJob) -> bool:
        """Whether the job is one of those."""
        return (
            (self.states is None or job.state in self.states)
            and (self.model is None or job.model == self.model)
            and (self.priority is None or job.priority == self.priority)
            and self.labels.items() <= job.labels.items()
        )


def list_jobs(
    index: JobIndex,
    ledger: Ledger,
    live: Live,
    *,
    wanted: JobFilter,
    since: datetime | timedelta | None,
    until: datetime | timedelta | None,
    after: JobId | None,
    limit: int,
) -> JobListing:
    """See `Producer.jobs`."""
    if limit < 1:
        raise InvalidJob(f"limit {limit}; give 1 or more")
    start, end = _moment(since if since is not None else DEFAULT_WINDOW, "since"), _until(until)
    found: list[ListedJob] = []
    looked_at, last = 0, after
    with ThreadPoolExecutor(READERS, thread_name_prefix="overpaint-list") as pool:
        while looked_at < LOOKED_AT:
            page = index.newest(since=start, until=end, after=last, size=PAGE)
            for entry, job in zip(page, pool.map(lambda entry: _told(entry, ledger, live), page), strict=True):
                looked_at, last = looked_at + 1, entry.job_id
                if job is not None and wanted.takes(job):
                    found.append(job)
                if len(found) == limit:
                    return JobListing(tuple(found), last)
            if len(page) < PAGE:
                return JobListing(tuple(found), None)
    return JobListing(tuple(found), last)


def states_of(state: JobState | Collection[JobState] | None) -> frozenset[JobState] | None:
    """One state or several, as a set."""
    if state is None:
        return None
    given: Any = [state] if isinstance(state, str) else state
    return frozenset(given)


def _told(entry: Entry, ledger: Ledger, live: Live) -> ListedJob | None:
    """The job, with the ledger's help where Redis has forgotten it; None where the ledger has too."""
    summary, moment = entry.summary, entry.moment
    try:
        if summary is None:
            summary = Summary.of(ledger.request(entry.job_id))
        if moment is None:
            record = ledger.record(entry.job_id)
            queued = record is None and live.has_ticket(summary.model, entry.job_id)
            moment = last_moment(record) if record else Progress(state="queued" if queued else "accepted")
    except ObjectNotFound:
        return None
    return ListedJob(
        id=entry.job_id,
        model=summary.model,
        priority=summary.priority,
        source=summary.source,
        labels=summary.labels,
        accepted_at=summary.accepted_at,
        progress=moment,
    )


def _until(given: datetime | timedelta | None) -> datetime | None:
    return None if given is None else _moment(given, "until")


def _moment(given: datetime | timedelta, name: str) -> datetime:
    if isinstance(given, timedelta):
        return datetime.now(UTC) - given
    if given.tzinfo is None:
        raise InvalidJob(f"{name} {given.isoformat()} has no time zone; give one, as in datetime.now(UTC)")
    return given
