"""Submitting jobs."""

from __future__ import annotations

from pathlib import Path
from types import TracebackType
from typing import Any, Self

from pydantic import ValidationError

from overpaint_common.acceptance import Acceptance
from overpaint_common.errors import BrokerUnavailable, InvalidJob, StorageUnavailable, UnknownModel
from overpaint_common.job import Job, explain
from overpaint_common.ledger import Ledger
from overpaint_common.live import Live, connect
from overpaint_common.patience import insist
from overpaint_common.references import Reference
from overpaint_common.seeds import job_id_from_key
from overpaint_common.settings import Settings
from overpaint_common.storage import ObjectStore
from overpaint_common.tickets import Tickets
from overpaint_producer.handle import JobHandle

PATIENCE = 3.0
"""Seconds that a submission waits for a silent Redis before it does without."""

RETRY_FOR = 10.0
"""Seconds that a submission goes on trying while storage does not answer."""


class Producer:
    """Submits jobs and finds them again. Safe to share between threads; nothing is connected before the first call."""

    def __init__(self, settings: Settings | None = None) -> None:
        """Take `settings`, or read them from the environment; raises SettingsError if they are incomplete."""
        self.settings = settings or Settings.load()
        redis_url = self.settings.redis_url.get_secret_value()
        self.store: ObjectStore = self.settings.open_store()
        self.ledger = Ledger(self.store, self.settings.ledger_root)
        redis = connect(redis_url, patience=PATIENCE)
        self.live = Live(redis)
        self._acceptance = Acceptance(self.ledger, self.live, Tickets(redis))

    def submit(self, job: Job, *, idempotency_key: str | None = None, retry_for: float = RETRY_FOR) -> JobHandle:
        """Accept one job and queue it.

        With an idempotency key the job's id comes from the key: submitting the same body again under the same key
        gives the same job back, another body raises IdempotencyConflict. Without a key `job.id` plays that part.
        While storage does not answer it is tried again for `retry_for` seconds. While Redis does not, the job is
        accepted all the same, the handle's `not_queued` says why it waits, and the keeper queues it.

        Raises InvalidJob or one of its kinds, ForbiddenReference, or StorageUnavailable: whether the job was accepted
        is not known then, and submitting the same again is safe.
        """
        if idempotency_key is not None:
            job = job.model_copy(update={"id": job_id_from_key(idempotency_key)})
        accepted = insist(lambda: self._acceptance.accept(job), on=StorageUnavailable, seconds=retry_for)
        return JobHandle(job.id, self.ledger, self.live, self.store, not_queued=accepted.not_queued)

    def img2img(
        self,
        source: str | Path,
        *,
        prompt: str,
        output: str | Path,
        strength: float = 0.5,
        model: str | None = None,
        negative_prompt: str = "",
        steps: int | None = None,
        guidance_scale: float | None = None,
        seed: int | None = None,
        variants: int = 1,
        format: str = "png",
        idempotency_key: str | None = None,
        **job: Any,
    ) -> JobHandle:
        """Submit the common case: one img2img pass over one picture.

        `source` and `output` are references, or paths for workers that share this machine's disk. `strength` lies in
        0..1: 0.3 to 0.5 keeps the composition, 0.8 changes it. `model` may be left out while the fleet announces
        exactly one. Other keyword arguments are fields of `Job`. Raises what `submit` raises.
        """
        try:
            body = Job.model_validate(
                {
                    "source": _reference(source),
                    "model": model or self.only_model(),
                    "passes": [
                        {
                            "op": "img2img",
                            "prompt": prompt,
                            "negative_prompt": negative_prompt,
                            "strength": strength,
                            "steps": steps,
                            "guidance_scale": guidance_scale,
                        }
                    ],
                    "seed": seed,
                    "variants": variants,
                    "output": {"prefix": _reference(output), "format": format},
                    **job,
                }
            )
        except ValidationError as error:
            raise InvalidJob(explain(error)) from None
        return self.submit(body, idempotency_key=idempotency_key)

    def only_model(self, *, option: str = "model=...") -> str:
        """The one model of the fleet; raises UnknownModel where there are several or none, BrokerUnavailable.

        `option` is what the messages tell people to name a model with.
        """
        try:
            served = {model for worker in self.live.workers() for model in worker.models}
            names = sorted(served or self.live.models())
        except BrokerUnavailable as error:
            raise BrokerUnavailable(
                f"nothing was accepted: name a model with {option}, or wait until the workers can be asked; {error}"
            ) from error
        if len(names) != 1:
            known = ", ".join(names) or "none yet; start a worker"
            raise UnknownModel(f"name a model with {option}: the fleet has {known}")
        return names[0]

    def handle(self, job_id: str) -> JobHandle:
        """The handle of a job submitted before, here or in another process; raises ObjectNotFound for an unknown id."""
        self.ledger.request(job_id)
        return JobHandle(job_id, self.ledger, self.live, self.store)

    def close(self) -> None:
        """Close the connections."""
        self.live.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


def _reference(place: str | Path) -> str:
    return str(Reference.from_path(place)) if isinstance(place, Path) else place
