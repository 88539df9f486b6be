"""From painted pictures to files: padding undone, alpha put back, provenance written."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass

from overpaint_common.job import Job
from overpaint_common.result import ModelInfo, PassRun, WarningNote
from overpaint_worker.imaging.decode import Source
from overpaint_worker.imaging.encode import encode
from overpaint_worker.imaging.fit import place, restore
from overpaint_worker.imaging.passthrough import passthrough
from overpaint_worker.imaging.placement import Placement
from overpaint_worker.imaging.provenance import Provenance
from overpaint_worker.operations.passes import Outcome, Variant, passthrough_runs


@dataclass(frozen=True, slots=True)
class EncodedVariant:
    """One picture as it will be stored."""

    index: int
    data: bytes
    width: int
    height: int
    runs: tuple[PassRun, ...]


def encode_variants(
    job: Job, outcome: Outcome, source: Source, placement: Placement, software: Mapping[str, str]
) -> list[EncodedVariant]:
    """Encode what the passes made, each picture marked as made with a model."""
    encoded = []
    alpha = restore(place(source.alpha, placement), placement) if source.alpha else None
    for variant in outcome.variants:
        picture = restore(variant.picture, placement)
        data = encode(
            picture,
            format=job.output.format,
            quality=job.output.quality,
            provenance=_provenance(job, variant, outcome.model, software),
            alpha=alpha,
        )
        encoded.append(EncodedVariant(variant.index, data, picture.width, picture.height, variant.runs))
    return encoded


def passthrough_variants(job: Job, data: bytes, source: Source) -> tuple[list[EncodedVariant], tuple[WarningNote, ...]]:
    """The source's own pixels, once for each variant, and what should be said about it."""
    output, _, notes = passthrough(data, source, format=job.output.format, quality=job.output.quality)
    encoded = [
        EncodedVariant(index, output, source.width, source.height, passthrough_runs(job, index))
        for index in range(job.variants)
    ]
    return encoded, tuple(WarningNote(code="passthrough", message=note) for note in notes)


def _provenance(job: Job, variant: Variant, model: ModelInfo | None, software: Mapping[str, str]) -> Provenance:
    essentials = {
        "passes": [p.model_dump(mode="json", exclude_none=True) for p in job.passes],
        "runs": [
            run.model_dump(mode="json", include={"op", "seed", "steps", "effective_steps"}) for run in variant.runs
        ],
        "model_digest": model.digest if model else None,
    }
    return Provenance(
        job=job.id,
        variant=variant.index,
        model=job.model,
        revision=model.revision if model else None,
        essentials=json.dumps(essentials, sort_keys=True, ensure_ascii=False),
        software=f"overpaint {software.get('overpaint', '')}".strip(),
    )
