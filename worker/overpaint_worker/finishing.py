"""From painted pictures to files: padding undone, alpha put back, provenance written."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass

from PIL import Image

from overpaint_common.job import Job
from overpaint_common.result import ModelInfo, PassRun, WarningNote
from overpaint_worker.imaging.decode import Source
from overpaint_worker.imaging.encode import encode
from overpaint_worker.imaging.fit import restore
from overpaint_worker.imaging.masks import restored_detail
from overpaint_worker.imaging.passthrough import passthrough
from overpaint_worker.imaging.provenance import Provenance
from overpaint_worker.operations.inpaint import mask_of_source
from overpaint_worker.operations.passes import Outcome, Variant, passthrough_runs
from overpaint_worker.operations.work import Inputs


@dataclass(frozen=True, slots=True)
class EncodedPicture:
    """One picture as it will be stored."""

    data: bytes
    width: int
    height: int


@dataclass(frozen=True, slots=True)
class EncodedVariant:
    """What will be stored of one variant."""

    index: int
    picture: EncodedPicture
    runs: tuple[PassRun, ...]
    between: tuple[EncodedPicture, ...] = ()
    """After each pass but the last, where the job asks for intermediates."""


def encode_variants(
    job: Job, outcome: Outcome, source: Source, inputs: Inputs, software: Mapping[str, str]
) -> list[EncodedVariant]:
    """Encode what the passes made, each picture marked as made with a model."""
    masked = job.output.size == "source" and any(variant.touched is not None for variant in outcome.variants)
    mask = mask_of_source(job, inputs) if masked else None
    encoded = []
    for variant in outcome.variants:
        provenance = _provenance(job, variant, outcome.models, software) if outcome.models else None
        between = (_encoded(job, picture, None, source, inputs, provenance) for picture in variant.between)
        last = _encoded(job, variant.picture, None if variant.touched is None else mask, source, inputs, provenance)
        encoded.append(EncodedVariant(variant.index, last, tuple(variant.runs), tuple(between)))
    return encoded


def _encoded(
    job: Job,
    picture: Image.Image,
    mask: Image.Image | None,
    source: Source,
    inputs: Inputs,
    provenance: Provenance | None,
) -> EncodedPicture:
    placement = inputs.placement
    finished = restore(picture, placement)
    if job.output.size == "source":
        finished = _at_source_size(finished, mask, source, inputs)
    alpha = None if source.alpha is None else _scaled(source.alpha.crop(placement.visible), finished.size)
    data = encode(finished, format=job.output.format, quality=job.output.quality, provenance=provenance, alpha=alpha)
    return EncodedPicture(data, finished.width, finished.height)


def _at_source_size(picture: Image.Image, mask: Image.Image | None, source: Source, inputs: Inputs) -> Image.Image:
    """The picture at the size of what the model saw of the source, and there the source's own pixels where the mask is
    black; without a mask everything may have changed."""
    original = source.picture.crop(inputs.placement.visible)
    scaled = _scaled(picture, original.size)
    if mask is None:
        return scaled
    seen = _scaled(restore(inputs.source, inputs.placement), original.size)
    return restored_detail(scaled, original, seen, mask)


def _scaled(picture: Image.Image, size: tuple[int, int]) -> Image.Image:
    return picture if picture.size == size else picture.resize(size, Image.Resampling.LANCZOS)


def passthrough_variants(job: Job, data: bytes, source: Source) -> tuple[list[EncodedVariant], tuple[WarningNote, ...]]:
    """The source's own pixels, once for each variant, and what should be said about it."""
    output, _, notes = passthrough(data, source, format=job.output.format, quality=job.output.quality)
    picture = EncodedPicture(output, source.width, source.height)
    encoded = [EncodedVariant(index, picture, passthrough_runs(job, index)) for index in range(job.variants)]
    return encoded, tuple(WarningNote(code="passthrough", message=note) for note in notes)


def _provenance(job: Job, variant: Variant, models: tuple[ModelInfo, ...], software: Mapping[str, str]) -> Provenance:
    essentials = {
        "passes": [p.model_dump(mode="json", exclude_none=True) for p in job.passes],
        "runs": [
            run.model_dump(mode="json", include={"op", "seed", "steps", "effective_steps"}) for run in variant.runs
        ],
        "model_digests": {model.name: model.digest for model in models},
    }
    return Provenance(
        job=job.id,
        variant=variant.index,
        model=", ".join(model.name for model in models),
        revision=models[0].revision,
        essentials=json.dumps(essentials, sort_keys=True, ensure_ascii=False),
        software=f"overpaint {software.get('overpaint', '')}".strip(),
    )
