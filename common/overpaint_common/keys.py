"""The key layout: where the ledger and the pictures of a job are kept."""

from __future__ import annotations

from dataclasses import dataclass

from overpaint_common.job import Job, JobId, Priority
from overpaint_common.references import Reference


@dataclass(frozen=True, slots=True)
class LedgerKeys:
    """Keys below the ledger's root, which lies outside every prefix that a job may read or write."""

    root: Reference

    def request(self, job_id: JobId) -> Reference:
        """The accepted job."""
        return self.root.join("jobs", job_id, "request.json")

    def record(self, job_id: JobId) -> Reference:
        """The commit: its existence means that the job is finished, whatever the end."""
        return self.root.join("jobs", job_id, "record.json")

    def marker(self, priority: Priority, model: str, job_id: JobId) -> Reference:
        """Empty; there from acceptance until everything after the commit is done."""
        return self.root.join("open", priority, model, job_id)

    def open(self) -> Reference:
        """Prefix of all markers."""
        return self.root.join("open").as_prefix()

    def webhook(self, job_id: JobId) -> Reference:
        """A webhook that is handed over and not delivered yet."""
        return self.root.join("webhooks", job_id)

    def dead(self, kind: str, name: str) -> Reference:
        """What could not be done, kept for a person to look at."""
        return self.root.join("dead", kind, name)


def job_prefix(job: Job) -> Reference:
    """Everything that a job writes for its owner lies here."""
    return Reference.parse(job.output.prefix).join(job.id).as_prefix()


def picture(job: Job, variant: int, attempt: str, *, after_pass: int | None = None) -> Reference:
    """The key names the attempt, so that two attempts never write the same object.

    `after_pass` is the number of the pass that made it, for a picture that is not the last.
    """
    between = "" if after_pass is None else f"-pass{after_pass}"
    return job_prefix(job).join(f"{variant}{between}-{attempt}.{job.output.format}")


def result_copy(job: Job) -> Reference:
    """The owner's copy of the record, made after the commit."""
    return job_prefix(job).join("result.json")
