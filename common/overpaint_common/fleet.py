"""What the worker fleet says of itself, and settling a job against it."""

from __future__ import annotations

from typing import Annotated

from pydantic import AwareDatetime, Field

from overpaint_common.errors import ForbiddenReference, NotServed
from overpaint_common.frozen import Frozen
from overpaint_common.job import Job, ModelName
from overpaint_common.passes import Diffusion, Img2Img, Pass
from overpaint_common.receivers import check_webhook
from overpaint_common.references import PrefixUri, Reference
from overpaint_common.seeds import seeds_of_passes
from overpaint_common.steps import StepsRule, check_strength


class ModelCard(Frozen):
    """One registry entry as announced to producers."""

    name: ModelName
    operations: tuple[str, ...]
    """The `op` names that the model serves."""
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


def settle(job: Job, card: ModelCard | None) -> Job:
    """Fill in what the caller left open, and refuse what the fleet cannot do.

    Seeds are always settled. Steps and guidance come from the model's card; without a card (nothing announced yet)
    they stay open and the worker settles them at the claim. Raises NotServed, StrengthTooSmall, ForbiddenReference,
    ForbiddenWebhook.
    """
    if job.webhook is not None:
        check_webhook(job.webhook, None if card is None else card.webhooks)
    seeds = seeds_of_passes(job.base_seed, [getattr(p, "seed", None) for p in job.passes], job.variants)
    passes = tuple(
        _settle_pass(p, seed, card, index) for index, (p, seed) in enumerate(zip(job.passes, seeds, strict=True))
    )
    if card is not None:
        _check_places(job, card)
        if job.prepare.size is not None and job.prepare.size > card.max_size:
            raise NotServed(
                f"prepare.size {job.prepare.size}: model {card.name!r} takes at most {card.max_size} pixels a side"
            )
    return job.model_copy(update={"passes": passes, "seed": job.base_seed})


def total_steps(job: Job, card: ModelCard) -> int:
    """Denoising steps of all passes and variants of a settled job."""
    return job.variants * sum(
        check_strength(card.steps_rule, p.steps or card.default_steps, p.strength, where=f"pass {i}")
        for i, p in enumerate(job.passes)
        if isinstance(p, Img2Img)
    )


def _settle_pass(p: Pass, seed: int, card: ModelCard | None, index: int) -> Pass:
    settled = p.model_copy(update={"seed": seed}) if isinstance(p, Diffusion) else p
    if card is None:
        return settled
    if p.op not in card.operations:
        served = ", ".join(card.operations)
        raise NotServed(
            f"pass {index} asks for {p.op!r}, which is not served by this fleet: model {card.name!r} serves {served}"
        )
    if not isinstance(settled, Img2Img):
        return settled
    steps = settled.steps or card.default_steps
    if steps > card.max_steps:
        raise NotServed(f"pass {index}: steps {steps}: model {card.name!r} takes at most {card.max_steps}")
    check_strength(card.steps_rule, steps, settled.strength, where=f"pass {index}", max_steps=card.max_steps)
    guidance = card.default_guidance_scale if settled.guidance_scale is None else settled.guidance_scale
    return settled.model_copy(update={"steps": steps, "guidance_scale": guidance})


def _check_places(job: Job, card: ModelCard) -> None:
    for what, uri, allowed, setting in (
        ("source", job.source, card.reads, "OVERPAINT_READ"),
        ("output", job.output.prefix, card.writes, "OVERPAINT_WRITE"),
    ):
        if not any(Reference.parse(uri).within(Reference.parse(prefix)) for prefix in allowed):
            places = ", ".join(allowed) or "nothing"
            raise ForbiddenReference(
                f"{what} {uri} is outside what the workers may use ({places}); move it, or have the operator add "
                f"its prefix to {setting}"
            )
