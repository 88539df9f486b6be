"""Builds that break a promise on purpose, by which the suite shows that it would notice, or that do without a net.

    unconditional_put       the record is put whether or not there is one
    ack_before_commit       the lease is ended and the ticket acknowledged before the record is put
    marker_before_webhook   the open marker is deleted before the webhook is handed over
    list_after_flush_only   the keeper lists the open jobs after a flush, and not after a pause of its own

A fleet without a keeper needs no weakening: OVERPAINT_KEEPER=false.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable, Mapping
from typing import Any

from overpaint_common import wire
from overpaint_common.job import Job
from overpaint_common.ledger import Ledger
from overpaint_common.references import Reference
from overpaint_common.result import Result
from overpaint_common.storage import S3Store
from overpaint_worker import jobs
from overpaint_worker.holding import Hold
from overpaint_worker.keeper.rebuild import Rebuild
from overpaint_worker.runtime import Runtime


def weaken(names: Iterable[str]) -> None:
    """Patch this process; raises KeyError for a name that is none of the above."""
    for name in names:
        WEAKENINGS[name]()


def _unconditional_put() -> None:
    put = S3Store.put

    def careless(self: S3Store, reference: Reference, *body: Any, if_absent: bool = False, **others: Any) -> Any:
        # A worker tries the store's conditions before it starts, so those of other keys stay.
        return put(self, reference, *body, if_absent=if_absent and reference.name != "record.json", **others)

    _replace(S3Store, "put", careless)


def _ack_before_commit() -> None:
    run, commit, settings = jobs._run, Ledger.commit, wire.celery_settings
    working = threading.local()

    def remembering(runtime: Runtime, hold: Hold) -> Any:
        working.runtime, working.hold = runtime, hold
        return run(runtime, hold)

    def releasing(self: Ledger, result: Result) -> Result:
        runtime, claim = working.runtime, working.hold.claim
        # A renewal under way would take the lease again.
        with runtime.holdings._renewing:
            runtime.holdings._holds.pop(claim.attempt, None)
        runtime.leases.done(claim)
        return commit(self, result)

    _replace(wire, "celery_settings", lambda url: {**settings(url), "task_acks_late": False})
    _replace(jobs, "_run", remembering)
    _replace(Ledger, "commit", releasing)


def _marker_before_webhook() -> None:
    hand_over = Ledger._hand_over

    def late(self: Ledger, job: Job, record: Result, copy: str | None) -> None:
        self._store.delete(self.keys.marker(job.priority, job.model, job.id))
        hand_over(self, job, record, copy)

    _replace(Ledger, "_hand_over", late)


def _list_after_flush_only() -> None:
    run = Rebuild.run

    def seldom(self: Rebuild, *parts: Any, flushed: bool = False) -> int:
        return run(self, *parts, flushed=True) if flushed else 0

    _replace(Rebuild, "run", seldom)


def _replace(owner: Any, name: str, value: Any) -> None:
    assert hasattr(owner, name), f"{owner} has no {name} any more: mend this weakening"
    setattr(owner, name, value)


WEAKENINGS: Mapping[str, Callable[[], None]] = {
    "unconditional_put": _unconditional_put,
    "ack_before_commit": _ack_before_commit,
    "marker_before_webhook": _marker_before_webhook,
    "list_after_flush_only": _list_after_flush_only,
}
