"""Pictures that nobody painted, and what a record says of them."""

from __future__ import annotations

import hashlib
import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime

from PIL import Image

from overpaint_common import keys
from overpaint_common.errors import ObjectNotFound, SourceNotAPicture
from overpaint_common.fleet import ModelCard, model_of, running_steps
from overpaint_common.job import Job
from overpaint_common.naming import published
from overpaint_common.passes import Diffusion, Pass, changes_nothing
from overpaint_common.references import Reference
from overpaint_common.result import ModelInfo, PassRun, SourceInfo, StoredObject, VariantResult
from overpaint_common.storage import ObjectInfo, ObjectStore

MAX_SOURCE_BYTES = 1 << 28
NONE = "none"
"""What records say of what painted, since nothing did."""

PAPER = (225, 220, 200)

Cards = Mapping[str, ModelCard]


@dataclass(frozen=True, slots=True)
class Source:
    picture: Image.Image
    info: SourceInfo | None
    """None where there is no such object."""


def read_source(store: ObjectStore, job: Job, side: int) -> Source:
    """The job's source, or a plain picture of `side` pixels where it is not there; raises SourceNotAPicture."""
    reference = Reference.parse(job.source)
    try:
        info = store.head(reference)
        data = store.read(reference, limit=MAX_SOURCE_BYTES)
    except ObjectNotFound:
        return Source(Image.new("RGB", (side, side), PAPER), None)
    try:
        picture = Image.open(io.BytesIO(data))
        picture.load()
    except OSError as error:
        raise SourceNotAPicture(f"{job.source} cannot be read as a picture ({error}); give another") from None
    return Source(picture, _described(info, data, picture))


def fitted(job: Job, picture: Image.Image, card: ModelCard) -> Image.Image:
    """The picture in the size that a model would give it: its longer side as the model's, unless the job differs."""
    if job.output.size == "source" or job.prepare.fit == "keep" or all(map(changes_nothing, job.passes)):
        return picture
    scale = (job.prepare.size or card.native_size) / max(picture.size)
    return picture.resize((max(1, round(picture.width * scale)), max(1, round(picture.height * scale))))


def store_variants(
    store: ObjectStore, job: Job, attempt: str, pictures: Sequence[Image.Image], cards: Cards
) -> tuple[VariantResult, ...]:
    """Store one picture for each variant of a settled job, and intermediates where it asks for them.

    Raises ValueError for another number of pictures, and what `ObjectStore.put` does.
    """
    if len(pictures) != job.variants:
        raise ValueError(f"{len(pictures)} pictures for {job.variants} variants of job {job.id}; give one for each")
    return tuple(_variant(store, job, attempt, index, picture, cards) for index, picture in enumerate(pictures))


def models_run(job: Job, cards: Cards) -> tuple[ModelInfo, ...]:
    """The models that a settled job's passes ran on, in the order of their first pass."""
    names = dict.fromkeys(model_of(p, job) for p in job.passes if isinstance(p, Diffusion) and not changes_nothing(p))
    return tuple(
        ModelInfo(
            name=name,
            revision=cards[name].revision,
            digest="0" * 64,
            pipeline=NONE,
            scheduler=NONE,
            dtype="float32",
        )
        for name in names
    )


def untouched(job: Job) -> bool:
    """Whether no pass changes anything."""
    return all(map(changes_nothing, job.passes))


def _variant(
    store: ObjectStore, job: Job, attempt: str, index: int, picture: Image.Image, cards: Cards
) -> VariantResult:
    runs = [_run(job, p, index, cards) for p in job.passes]
    if job.output.intermediates:
        for place in range(len(runs) - 1):
            between = _stored(store, job, keys.picture(job, index, attempt, after_pass=place), picture)
            runs[place] = runs[place].model_copy(update={"output": between})
    output = _stored(store, job, keys.picture(job, index, attempt), picture)
    name = published(job, index)
    if name is not None:
        output = output.model_copy(update={"published": str(name)})
    return VariantResult(index=index, seed=job.base_seed + index, outputs=(output,), passes=tuple(runs))


def _stored(store: ObjectStore, job: Job, reference: Reference, picture: Image.Image) -> StoredObject:
    data = _encoded(picture, job)
    content_type = f"image/{job.output.format}"
    store.put(reference, data, content_type=content_type)
    return StoredObject(
        uri=str(reference),
        sha256=hashlib.sha256(data).hexdigest(),
        size=len(data),
        width=picture.width,
        height=picture.height,
        content_type=content_type,
    )


def _run(job: Job, p: Pass, variant: int, cards: Cards) -> PassRun:
    unchanged = changes_nothing(p)
    if not isinstance(p, Diffusion):
        return PassRun(op=p.op, steps=0, effective_steps=0, start_step=0, passthrough=unchanged)
    name = model_of(p, job)
    steps, running = p.steps or 0, 0 if unchanged else running_steps(p, cards[name])
    return PassRun(
        op=p.op,
        steps=steps,
        effective_steps=running,
        start_step=steps - running,
        seed=None if p.seed is None else p.seed + variant,
        model=None if unchanged else name,
        scheduler=None if unchanged else p.scheduler or NONE,
        passthrough=unchanged,
        started_at=None if unchanged else datetime.now(UTC),
    )


def _encoded(picture: Image.Image, job: Job) -> bytes:
    file = io.BytesIO()
    plain = picture if picture.mode in ("RGB", "L") or job.output.format == "png" else picture.convert("RGB")
    plain.save(file, job.output.format, quality=job.output.quality)
    return file.getvalue()


def _described(info: ObjectInfo, data: bytes, picture: Image.Image) -> SourceInfo:
    return SourceInfo(
        uri=str(info.reference),
        etag=info.etag,
        sha256=hashlib.sha256(data).hexdigest(),
        size=len(data),
        width=picture.width,
        height=picture.height,
        format=(picture.format or NONE).lower(),
        mode=picture.mode,
    )
