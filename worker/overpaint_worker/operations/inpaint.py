"""inpaint: repaint where the mask is white, and nowhere else."""

from __future__ import annotations

from PIL import Image, ImageChops, ImageOps

from overpaint_common.errors import SourceError
from overpaint_common.job import Job
from overpaint_common.passes import Inpaint
from overpaint_common.result import WarningNote
from overpaint_worker.engine.calls import Painted
from overpaint_worker.imaging import masks
from overpaint_worker.imaging.fit import fit, restore
from overpaint_worker.operations.work import Inputs, Scope, Work, to_picture


def begin(p: Inpaint, scope: Scope) -> Work:
    """The call of one settled pass of one variant.

    The model gets a binary mask, white from 128 on before any feather; what it paints is blended in by the greys, so
    that where they are 0 the picture stays as it is, to the bit. Raises SourceError for a mask that leaves nothing to
    repaint.
    """
    picture, placement = scope.picture, scope.inputs.placement
    grey = _binarised(p, masks.laid(_grey(p, scope.inputs), placement, picture.size))
    soft, hard = masks.feathered(grey, p.feather), masks.binarised(grey)
    _check_paintable(p, hard, soft)
    notes = _notes(p, scope.inputs)
    if p.only_masked:
        return _of_region(p, scope, grey, soft, notes)

    def finish(painted: Painted) -> Image.Image:
        return Image.composite(to_picture(painted), picture, soft)

    return Work(scope.call(p, picture, strength=p.strength, mask=hard), finish, soft, notes)


def _of_region(p: Inpaint, scope: Scope, grey: Image.Image, soft: Image.Image, notes: tuple[WarningNote, ...]) -> Work:
    """The same of the masked region alone, at the model's native size."""
    picture = scope.picture
    box = masks.region_around(soft, p.padding)
    region = picture.crop(box)
    # A region at the border of a long picture may be no square.
    fitted = fit(region, size=scope.native_size, method="bucket")
    hard = masks.binarised(masks.laid(grey.crop(box), fitted.placement, fitted.picture.size))
    _check_paintable(p, hard, soft)

    def finish(painted: Painted) -> Image.Image:
        made = restore(to_picture(painted), fitted.placement)
        whole = picture.copy()
        whole.paste(made.resize(region.size, Image.Resampling.LANCZOS), box[:2])
        return Image.composite(whole, picture, soft)

    call = scope.call(p, fitted.picture, strength=p.strength, mask=hard, placement=fitted.placement)
    return Work(call, finish, soft, notes)


def mask_of_source(job: Job, inputs: Inputs) -> Image.Image:
    """What all inpaint passes of a job together repaint: L, of the size of what the model saw of the source.

    Made from the masks as they were stored, so that no detail of theirs is lost to the size that the model worked at.
    """
    placement = inputs.placement
    left, top, right, bottom = placement.visible
    size = (right - left, bottom - top)
    across, down = (size[axis] / (placement.content[axis + 2] - placement.content[axis]) for axis in (0, 1))
    whole = Image.new("L", size)
    for p in job.passes:
        if isinstance(p, Inpaint) and p.strength > 0:
            grey = _binarised(p, masks.over_visible(_grey(p, inputs), placement, size))
            whole = ImageChops.lighter(whole, masks.feathered(grey, p.feather * across, p.feather * down))
    return whole


def _grey(p: Inpaint, inputs: Inputs) -> Image.Image:
    grey = inputs.others[p.mask].convert("L")
    return ImageOps.invert(grey) if p.invert else grey


def _binarised(p: Inpaint, grey: Image.Image) -> Image.Image:
    return grey if p.threshold is None else masks.binarised(grey, p.threshold * 255)


def _check_paintable(p: Inpaint, hard: Image.Image, soft: Image.Image) -> None:
    if hard.getbbox() and soft.getbbox():
        return
    width, height = hard.size
    inverted = ", inverted," if p.invert else ""
    raise SourceError(
        f"mask {p.mask}{inverted} leaves nothing to repaint: none of the {width} x {height} pixels that the model works"
        f" at is white, which greys from {masks.WHITE_FROM} of 255 on are; give a mask with more white, the other "
        f"invert, a threshold for greys, or less feather than {p.feather:g}"
    )


def _notes(p: Inpaint, inputs: Inputs) -> tuple[WarningNote, ...]:
    mask, source = inputs.others[p.mask].size, inputs.placement.source
    if masks.same_aspect(mask, source):
        return ()
    message = (
        f"mask {p.mask} is {mask[0]} x {mask[1]} and the source {source[0]} x {source[1]}: it was stretched over the "
        "whole source; store it in the source's aspect ratio"
    )
    return (WarningNote(code="mask_stretched", message=message),)
