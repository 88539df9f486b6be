"""Submitting jobs."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from datetime import datetime, timedelta
from types import TracebackType
from typing import Self, Unpack

from redis import Redis

from overpaint_common.acceptance import Acceptance
from overpaint_common.errors import StorageUnavailable
from overpaint_common.index import JobIndex
from overpaint_common.job import Job, JobId, ModelName, Output, Priority
from overpaint_common.ledger import Ledger
from overpaint_common.live import JobState, Live, connect
from overpaint_common.passes import Img2Img, Inpaint
from overpaint_common.patience import insist
from overpaint_common.references import Reference
from overpaint_common.seeds import job_id_from_key
from overpaint_common.settings import Settings
from overpaint_common.storage import ObjectStore
from overpaint_producer.choice import look_up, only_model
from overpaint_producer.compose import (
    PassLike,
    Place,
    compose,
    reference,
    refinement,
    split,
    styled,
)
from overpaint_producer.fields import Img2ImgFields, InpaintFields, JobFields
from overpaint_producer.handle import JobHandle
from overpaint_producer.listing import JobFilter, JobListing, list_jobs, states_of
from overpaint_producer.submission import accept_all, named
from overpaint_producer.uploads import Picture, upload

PATIENCE = 3.0
"""Seconds that a submission waits for a silent Redis before it does without."""

RETRY_FOR = 10.0
"""Seconds that a submission goes on trying while storage does not answer."""


class Producer:
    """Submits jobs and finds them again. Safe to share between threads; nothing is connected before the first call."""

    def __init__(
        self, settings: Settings | None = None, *, store: ObjectStore | None = None, redis: Redis | None = None
    ) -> None:
        """Take `settings`, or read them from the environment; raises SettingsError if they are incomplete.

        `store` and `redis` take the place of what the settings name.
        """
        self.settings = settings or Settings.load()
        self.store: ObjectStore = store or self.settings.open_store()
        self.ledger = Ledger(self.store, self.settings.ledger_root)
        redis = redis or connect(self.settings.redis_url.get_secret_value(), patience=PATIENCE)
        self.live = Live(redis)
        self._index = JobIndex(redis)
        self._acceptance = Acceptance(self.ledger, redis)

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

    def submit_many(
        self,
        jobs: Iterable[Job] | Mapping[str, Job],
        *,
        idempotency_key: str | None = None,
        retry_for: float = RETRY_FOR,
        progress: Callable[[int, int], object] | None = None,
    ) -> list[JobHandle]:
        """Accept many jobs and queue them; the handles come in the same order.

        Several are written at once and their tickets sent together, which is many times faster than calls of `submit`.
        With an idempotency key each job's own key is made of it and of the job's name in a mapping, or its place: the
        same call again gives the jobs that were accepted before and goes on with the others. `progress` is called with
        how many jobs are done and how many there are. The rest is as for `submit`.

        Raises JobsRefused, before any job is accepted, where some of them are wrong: its `refused` says why for each.
        Raises PartlySubmitted where storage failed in between: its `accepted` has the ids of those that were, its
        `failed` the reasons of the others. Where one job is given, or none could be accepted, the reason itself is
        raised, as by `submit`.
        """
        by_name = named(jobs, idempotency_key)
        accepted = accept_all(self._acceptance, by_name, retry_for=retry_for, progress=progress)
        return [
            JobHandle(job.id, self.ledger, self.live, self.store, not_queued=accepted[name].not_queued)
            for name, job in by_name.items()
        ]

    def repaint(
        self,
        source: Place,
        passes: Sequence[PassLike],
        *,
        output: Place | Output,
        model: str | None = None,
        idempotency_key: str | None = None,
        **fields: Unpack[JobFields],
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
        **fields: Unpack[JobFields],
    ) -> Job:
        """The job that `repaint` would submit. `option` is what messages tell people to name a model with."""
        if model is None:
            model, passes = look_up(self.live, passes, option)
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
        **fields: Unpack[Img2ImgFields],
    ) -> JobHandle:
        """Submit the common case: one img2img pass over one picture.

        `strength` lies in 0..1: 0.3 to 0.5 keeps the composition, 0.8 changes it. `model` may be left out while only
        one of the fleet's serves the operation. Other keyword arguments are fields of `Img2Img` (`negative_prompt`,
        `steps`, `guidance_scale`, `scheduler`, `loras`, `controls`, `enlarge`), of `Job` (`prepare`, `seed`,
        `variants`, `labels`, ...) or of `Output` (`format`, `size`, ...); for places see `repaint`. Raises what
        `submit` raises.
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
        **fields: Unpack[InpaintFields],
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
        **fields: Unpack[Img2ImgFields],
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
        idempotency_key: str | None = None,
        **fields: Unpack[Img2ImgFields],
    ) -> list[JobHandle]:
        """Submit one source in many styles: one img2img job for each, whose handles come in the order of the styles.

        `styles` are prompts, or prompts by name; `prompt` says what to show and stands before each of them. The label
        `style` of each job holds its style's name, or its number from 0. With an idempotency key each job's own is made
        of it and of that label, so that the same call again completes one that was broken off. Other keyword arguments
        as for `img2img`. Raises what `submit` raises; what was accepted before stays accepted.
        """
        named = styles if isinstance(styles, Mapping) else {str(i): style for i, style in enumerate(styles)}
        own, job = split(Img2Img, fields)
        labels = job.pop("labels", {})
        model = self.only_model("img2img") if model is None else model
        jobs = {
            f"style/{name}": self.compose(
                source,
                [{"op": "img2img", "prompt": styled(prompt, style), "strength": strength, **own}],
                output=output,
                model=model,
                labels={**labels, "style": name},
                **job,
            )
            for name, style in named.items()
        }
        return self.submit_many(jobs, idempotency_key=idempotency_key)

    def only_model(self, op: str = "img2img", *, option: str = "model=...") -> str:
        """The one model of the fleet that serves `op`; raises UnknownModel where there are several or none.

        `option` is what the messages tell people to name a model with. Raises BrokerUnavailable.
        """
        return only_model(self.live, op, option)

    def handle(self, job_id: str) -> JobHandle:
        """The handle of a job submitted before, here or in another process; raises ObjectNotFound for an unknown id."""
        self.ledger.request(job_id)
        return JobHandle(job_id, self.ledger, self.live, self.store)

    def upload(self, content: Picture, to: Place, *, name: str | None = None) -> str:
        """Put a picture where workers may read it, and return its reference, to be used as a source or a mask.

        `content` is a path, the content of a file as bytes, or a binary file, which is read from its start where it can
        be rewound; `to` is a prefix that the workers may read. Without a `name` it is made of the content's hash, and
        of the file's own name for a path: uploading the same again sends nothing and gives the same reference. With a
        name, in which slashes make folders, it replaces what is there. Large files are streamed.

        Raises SourceEmpty or SourceNotAPicture where it begins like no picture that workers read, OSError for a path
        that cannot be read, InvalidReference, and StorageError or one of its kinds.
        """
        return str(upload(self.store, content, Reference.parse(reference(to)), name))

    def jobs(
        self,
        *,
        state: JobState | Collection[JobState] | None = None,
        labels: Mapping[str, str] | None = None,
        model: ModelName | None = None,
        priority: Priority | None = None,
        since: datetime | timedelta | None = None,
        until: datetime | timedelta | None = None,
        after: JobId | None = None,
        limit: int = 100,
    ) -> JobListing:
        """List the jobs that were queued lately, the last first, whoever submitted them.

        `state` is one state or several; a job has to have all of `labels`. `since` and `until` are moments, or times
        before now, of when a job was first queued; a day, unless told otherwise, and at most a week. At most 10,000
        jobs are looked at for the `limit` that are wanted: where there may be more, the listing's `next` goes in as
        `after` to go on. What Redis has lost is not listed, but found by its id all the same.

        Raises InvalidJob for times and limits that make no sense, BrokerUnavailable, StorageUnavailable.
        """
        wanted = JobFilter(states_of(state), labels or {}, model, priority)
        return list_jobs(
            self._index, self.ledger, self.live, wanted=wanted, since=since, until=until, after=after, limit=limit
        )

    def close(self) -> None:
        """Close the connections."""
        self.live.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()
