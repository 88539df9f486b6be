"""Submitting jobs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from types import TracebackType
from typing import Any, Self

from overpaint_common.acceptance import Acceptance
from overpaint_common.errors import BrokerUnavailable, StorageUnavailable, UnknownModel
from overpaint_common.job import Job, Output
from overpaint_common.ledger import Ledger
from overpaint_common.live import Live, connect
from overpaint_common.passes import Img2Img, Inpaint, MatchColor
from overpaint_common.patience import insist
from overpaint_common.seeds import job_id_from_key
from overpaint_common.settings import Settings
from overpaint_common.storage import ObjectStore
from overpaint_common.tickets import Tickets
from overpaint_producer.compose import (
    PassLike,
    Place,
    compose,
    model_of,
    on_model,
    operation,
    refinement,
    split,
    styled,
)
from overpaint_producer.handle import JobHandle

PATIENCE = 3.0
"""Seconds that a submission waits for a silent Redis before it does without."""

MATCH_COLOR: str = MatchColor.model_fields["op"].default

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

    def submit_each(self, jobs: Mapping[str, Job], *, idempotency_key: str | None = None) -> list[JobHandle]:
        """Accept several jobs, each under a name of its own, and queue them; the handles come in the same order.

        With an idempotency key each job's own key is made of it and of the job's name. So where an error ends the call
        half-way, the same call again gives the jobs that were accepted before and goes on with the others. Raises what
        `submit` raises.
        """
        keys = {name: None if idempotency_key is None else f"{idempotency_key}/{name}" for name in jobs}
        return [self.submit(job, idempotency_key=keys[name]) for name, job in jobs.items()]

    def repaint(
        self,
        source: Place,
        passes: Sequence[PassLike],
        *,
        output: Place | Output,
        model: str | None = None,
        idempotency_key: str | None = None,
        **fields: Any,
    ) -> JobHandle:
        """Submit any chain of passes over one picture; each takes the picture that the one before it made.

        `source`, masks and control pictures are references, or paths for workers that share this machine's disk; so is
        `output`, which may be an `Output` too. A pass is an object such as `Img2Img(prompt=...)`, or its fields in a
        mapping. Where no model is named, each pass runs on the one model of the fleet that serves it. Other keyword
        arguments are fields of `Job` or of `Output`. Raises what `submit` raises, and UnknownModel.
        """
        job = self.compose(source, passes, output=output, model=model, **fields)
        return self.submit(job, idempotency_key=idempotency_key)

    def compose(
        self,
        source: Place,
        passes: Sequence[PassLike],
        *,
        output: Place | Output,
        model: str | None = None,
        option: str = "model=...",
        **fields: Any,
    ) -> Job:
        """The job that `repaint` would submit. `option` is what messages tell people to name a model with."""
        if model is None:
            model, passes = self._look_up(passes, option)
        return compose(source, passes, model=model, output=output, fields=fields)

    def img2img(
        self,
        source: Place,
        *,
        prompt: str,
        output: Place | Output,
        strength: float = 0.5,
        model: str | None = None,
        idempotency_key: str | None = None,
        **fields: Any,
    ) -> JobHandle:
        """Submit the common case: one img2img pass over one picture.

        `strength` lies in 0..1: 0.3 to 0.5 keeps the composition, 0.8 changes it. `model` may be left out while the
        fleet announces exactly one. Other keyword arguments are fields of `Img2Img` (`negative_prompt`, `steps`,
        `guidance_scale`, `scheduler`, `loras`, `controls`, `enlarge`), of `Job` (`seed`, `variants`, `labels`, ...) or
        of `Output` (`format`, `size`, ...); for places see `repaint`. Raises what `submit` raises.
        """
        own, job = split(Img2Img, fields)
        one = {"op": "img2img", "prompt": prompt, "strength": strength, **own}
        return self.repaint(source, [one], output=output, model=model, idempotency_key=idempotency_key, **job)

    def inpaint(
        self,
        source: Place,
        mask: Place,
        *,
        prompt: str,
        output: Place | Output,
        strength: float = 0.8,
        model: str | None = None,
        idempotency_key: str | None = None,
        **fields: Any,
    ) -> JobHandle:
        """Submit one inpaint pass: repaint where the mask is white, and keep everything else to the bit.

        Other keyword arguments are fields of `Inpaint` (`invert`, `feather`, `only_masked`, ...), of `Job` or of
        `Output`; for places see `repaint`. Raises what `submit` raises.
        """
        own, job = split(Inpaint, fields)
        one = {"op": "inpaint", "mask": mask, "prompt": prompt, "strength": strength, **own}
        return self.repaint(source, [one], output=output, model=model, idempotency_key=idempotency_key, **job)

    def refine(
        self,
        source: Place,
        *,
        prompt: str | Sequence[str],
        output: Place | Output,
        strengths: Sequence[float] = (0.6, 0.4, 0.2),
        model: str | None = None,
        idempotency_key: str | None = None,
        **fields: Any,
    ) -> JobHandle:
        """Submit progressive refinement: one job with an img2img pass for each strength, in their order.

        `prompt` is one for all passes, or a list with one for each. Other keyword arguments are fields of all the
        passes, of `Job` or of `Output`, as for `img2img`; `intermediates=True` keeps the picture after each pass.
        Raises what `submit` raises.
        """
        own, job = split(Img2Img, fields)
        passes = refinement(strengths, prompt, {"op": "img2img", **own})
        return self.repaint(source, passes, output=output, model=model, idempotency_key=idempotency_key, **job)

    def restyle(
        self,
        source: Place,
        styles: Sequence[str] | Mapping[str, str],
        *,
        output: Place | Output,
        prompt: str = "",
        strength: float = 0.6,
        model: str | None = None,
        labels: Mapping[str, str] | None = None,
        idempotency_key: str | None = None,
        **fields: Any,
    ) -> list[JobHandle]:
        """Submit one source in many styles: one img2img job for each, whose handles come in the order of the styles.

        `styles` are prompts, or prompts by name; `prompt` says what to show and stands before each of them. The label
        `style` of each job holds its style's name, or its number from 0. With an idempotency key each job's own is made
        of it and of that label, so that the same call again completes one that was broken off. Other keyword arguments
        as for `img2img`. Raises what `submit` raises; what was accepted before stays accepted.
        """
        named = styles if isinstance(styles, Mapping) else {str(i): style for i, style in enumerate(styles)}
        own, job = split(Img2Img, fields)
        model = self.only_model("img2img") if model is None else model
        jobs = {
            f"style/{name}": self.compose(
                source,
                [{"op": "img2img", "prompt": styled(prompt, style), "strength": strength, **own}],
                output=output,
                model=model,
                labels={**(labels or {}), "style": name},
                **job,
            )
            for name, style in named.items()
        }
        return self.submit_each(jobs, idempotency_key=idempotency_key)

    def _look_up(self, passes: Sequence[PassLike], option: str) -> tuple[str, list[PassLike]]:
        """The job's model, and the passes, of which those name one that the job's does not serve."""
        named = next((name for p in passes if (name := model_of(p))), None)
        # A pass such as match_color runs on no model, and any will do for it.
        ops = [op for op in dict.fromkeys(operation(p) for p in passes if not model_of(p)) if op != MATCH_COLOR]
        if named is not None and not ops:
            return named, list(passes)
        model = self.only_model(ops[0] if ops else MATCH_COLOR, option=option)
        card = self.live.models().get(model)
        served = ops if card is None else card.operations
        others = {op: self.only_model(op, option=option) for op in ops if op not in served}
        found = [on_model(p, others[op]) if (op := operation(p)) in others and not model_of(p) else p for p in passes]
        return model, found

    def only_model(self, op: str = "img2img", *, option: str = "model=...") -> str:
        """The one model of the fleet that serves `op`; raises UnknownModel where there are several or none.

        `option` is what the messages tell people to name a model with. Raises BrokerUnavailable.
        """
        try:
            served = {model for worker in self.live.workers() for model in worker.models}
            cards = self.live.models()
            names = sorted(name for name, card in cards.items() if op in card.operations and name in (served or cards))
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
