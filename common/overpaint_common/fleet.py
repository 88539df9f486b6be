"""What the worker fleet says of itself, and settling a job against it."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from functools import lru_cache
from typing import Annotated, Literal

from pydantic import AwareDatetime, Field

from overpaint_common.errors import ForbiddenReference, NotServed
from overpaint_common.frozen import Frozen
from overpaint_common.job import Job, ModelName
from overpaint_common.passes import Diffusion, Img2Img, Inpaint, Pass, RegistryName
from overpaint_common.receivers import check_webhook
from overpaint_common.references import PrefixUri, Reference
from overpaint_common.schedulers import SchedulerName
from overpaint_common.seeds import seeds_of_passes
from overpaint_common.steps import StepsRule, check_strength

Reads = Literal["edges", "depth", "picture"]
"""What a control network reads: edges or depth, which a worker can compute, or a picture that only the job can give."""


EmbeddingWord = Annotated[str, Field(pattern=r"^[\w<>*-]{2,64}$")]


class ControlCard(Frozen):
    """A control network of a model as announced to producers."""

    name: RegistryName
    reads: Reads


class ModelCard(Frozen):
    """One registry entry as announced to producers."""

    name: ModelName
    operations: tuple[str, ...]
    """The `op` names that the model serves."""
    schedulers: tuple[SchedulerName, ...] = ()
    """Those that a pass may name."""
    controls: tuple[ControlCard, ...] = ()
    loras: tuple[RegistryName, ...] = ()
    embeddings: tuple[EmbeddingWord, ...] = ()
    """Words that the model learnt by textual inversion; a prompt uses them as they stand."""
    family: str
    steps_rule: StepsRule
    native_size: Annotated[int, Field(ge=8)]
    """Pixels a side."""
    default_steps: int
    default_guidance_scale: float
    max_steps: int
    max_size: int
    """Largest side in pixels that a job may ask for."""
    revision: str
    reads: tuple[PrefixUri, ...] = ()
    """Prefixes that the workers may read sources from."""
    writes: tuple[PrefixUri, ...] = ()
    """Prefixes that the workers may write pictures to."""
    ledger: PrefixUri | None = None
    """Root of the workers' ledger; None where the card was written before workers told it."""
    webhooks: tuple[str, ...] = ()
    """Receivers that jobs may name, as in OVERPAINT_WEBHOOKS."""


class WorkerCard(Frozen):
    """One living worker process."""

    name: str
    device: str
    models: tuple[ModelName, ...]
    slots: int
    pid: int
    started_at: AwareDatetime
    reads: tuple[PrefixUri, ...] = ()
    writes: tuple[PrefixUri, ...] = ()
    ledger: PrefixUri | None = None
    """Root of its ledger: producers need the same."""
    versions: dict[str, str] = Field(default_factory=dict)
    """Of Overpaint and the libraries that paint, by their names; empty where the card was written before workers told.
    """


def models_of(job: Job) -> tuple[ModelName, ...]:
    """The models that a job's passes run on, the job's own first."""
    named = (p.model for p in job.passes if isinstance(p, Diffusion))
    return tuple(dict.fromkeys((job.model, *(model for model in named if model is not None))))


def settle(job: Job, cards: Mapping[str, ModelCard]) -> Job:
    """Fill in what the caller left open, and refuse what the fleet cannot do.

    Seeds are always settled. Steps and guidance come from the cards of the models; without a card (nothing announced
    yet) they stay open and the worker settles them at the claim. Raises NotServed, StrengthTooSmall,
    ForbiddenReference, ForbiddenWebhook.
    """
    card = cards.get(job.model)
    if job.webhook is not None:
        check_webhook(job.webhook, None if card is None else card.webhooks)
    seeds = seeds_of_passes(job.base_seed, [getattr(p, "seed", None) for p in job.passes], job.variants)
    passes = []
    for index, (p, seed) in enumerate(zip(job.passes, seeds, strict=True)):
        settled: Pass = p.model_copy(update={"seed": seed}) if isinstance(p, Diffusion) else p
        its_card = cards.get(model_of(p, job))
        passes.append(settled if its_card is None else _settle_pass(settled, its_card, f"pass {index}"))
    if card is not None:
        _check_places(job, card)
        if job.prepare.size is not None and job.prepare.size > card.max_size:
            raise NotServed(
                f"prepare.size {job.prepare.size}: model {card.name!r} takes at most {card.max_size} pixels a side"
            )
    return job.model_copy(update={"passes": tuple(passes), "seed": job.base_seed})


def model_of(p: Pass, job: Job) -> ModelName:
    """The model that a pass runs on; the job's own for one that runs on none."""
    return (p.model if isinstance(p, Diffusion) else None) or job.model


def running_steps(p: Pass, card: ModelCard, *, where: str = "the pass") -> int:
    """Denoising steps that one settled pass runs; raises StrengthTooSmall where its strength leaves none."""
    if not isinstance(p, Diffusion):
        return 0
    steps = p.steps or card.default_steps
    if isinstance(p, Img2Img | Inpaint):
        return check_strength(card.steps_rule, steps, p.strength, where=where, max_steps=card.max_steps)
    return steps


def total_steps(job: Job, cards: Mapping[str, ModelCard]) -> int:
    """Denoising steps of all passes and variants of a settled job; raises KeyError for a model without a card."""
    return job.variants * sum(
        running_steps(p, cards[model_of(p, job)], where=f"pass {i}") for i, p in enumerate(job.passes)
    )


def _settle_pass(p: Pass, card: ModelCard, where: str) -> Pass:
    if p.op not in card.operations:
        served = ", ".join(card.operations)
        raise NotServed(
            f"{where} asks for {p.op!r}, which is not served by this fleet: model {card.name!r} serves {served}"
        )
    if not isinstance(p, Diffusion):
        return p
    _check_parts(p, card, where)
    steps = p.steps or card.default_steps
    if steps > card.max_steps:
        raise NotServed(f"{where}: steps {steps}: model {card.name!r} takes at most {card.max_steps}")
    guidance = card.default_guidance_scale if p.guidance_scale is None else p.guidance_scale
    settled = p.model_copy(update={"steps": steps, "guidance_scale": guidance})
    running_steps(settled, card, where=where)
    return settled


def _check_parts(p: Diffusion, card: ModelCard, where: str) -> None:
    if p.scheduler is not None and p.scheduler not in card.schedulers:
        raise NotServed(_lacks(where, card, "scheduler", p.scheduler, card.schedulers))
    for lora in p.loras:
        if lora.name not in card.loras:
            raise NotServed(_lacks(where, card, "LoRA", lora.name, card.loras))
    for control in p.controls if isinstance(p, Img2Img) else ():
        found = next((each for each in card.controls if each.name == control.name), None)
        if found is None:
            raise NotServed(_lacks(where, card, "control", control.name, [each.name for each in card.controls]))
        if found.reads == "picture" and control.image is None:
            raise NotServed(f"{where}: control {control.name!r} reads a picture that no worker can compute; give image")


def _lacks(where: str, card: ModelCard, what: str, name: str, known: Iterable[str]) -> str:
    return f"{where}: model {card.name!r} has no {what} {name!r}; it has {', '.join(known) or 'none'}"


@lru_cache(maxsize=256)
def _prefix(text: PrefixUri) -> Reference:
    return Reference.parse(text)  # The same few for each of many jobs.


def _check_places(job: Job, card: ModelCard) -> None:
    places = [(what, uri, card.reads, "OVERPAINT_READ") for what, uri in job.pictures.items()]
    places.append(("output", job.output.prefix, card.writes, "OVERPAINT_WRITE"))
    for what, uri, allowed, setting in places:
        if not any(Reference.parse(uri).within(_prefix(prefix)) for prefix in allowed):
            known = ", ".join(allowed) or "nothing"
            local = what != "output" and uri.startswith("file:")
            remedy = "upload it first (Producer.upload, or --upload with overpaint submit)" if local else "move it"
            raise ForbiddenReference(
                f"{what} {uri} is outside what the workers may use ({known}); {remedy}, or have the operator add "
                f"its prefix to {setting}"
            )
