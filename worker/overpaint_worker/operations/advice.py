"""What the caller should know of a job that went on all the same: its parameters work against it."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping

from PIL import Image

from overpaint_common.fleet import ModelCard, model_of
from overpaint_common.job import Job
from overpaint_common.passes import Diffusion, Edit, Img2Img, Inpaint, MatchColor, Pass, Upscale
from overpaint_common.result import WarningNote
from overpaint_worker.imaging.colour import palette_distance
from overpaint_worker.imaging.placement import Size

FAR_FROM_NATIVE = 2.5
"""Pixel counts beyond this factor of the model's native one, either way, are warned of."""

HOLDS = 0.4
"""Up to this strength the picture decides what is where and in which colours, beyond it the model does."""

COLOURS_LOST = 15.0
"""Palette distances beyond this are warned of, in units of CIE L*a*b*; people just notice 2.3."""

SAMPLED = 256
"""Pixels a side that a palette is told from."""

_COLOURS = re.compile(
    r"""\b(
        colou?r\w* | palettes? | tint\w* | hue\w* | tone[sd]? | monochrom\w* | gr[ae]yscale | sepia | pastels? | neon |
        vibrant | vivid | saturated | desaturated | muted | rainbow |
        (red|orange|yellow|green|blue|purple|violet|pink|brown|black|white|gr[ae]y|gold|silver|copper|bronze|cyan|teal|
         turquoise|aqua|magenta|indigo|lavender|lilac|maroon|crimson|scarlet|beige|cream|ivory|tan|olive|lime|navy|
         amber|emerald|ruby|sapphire|azure|ochre|charcoal)(s|en|ish|dish|nish|y)? |
        (sun(set|rise)|dawn|dusk|twilight|night|midnight|moonlight|moonlit|neonlit|candlelight|noir|dark|winter|snow|
         autumn|fall|infrared|pencil|sketch|ink|engraving|blueprint|silhouette)(s|y|ed)?
    )\b""",
    re.IGNORECASE | re.VERBOSE,
)


def names_colours(prompt: str) -> bool:
    """Whether an English prompt asks for colours: by a colour's name or a word such as palette, or by a light, season
    or technique that brings its own, such as sunset or pencil."""
    return _COLOURS.search(prompt) is not None


def far_from_native(job: Job, fitted: Size, cards: Mapping[str, ModelCard]) -> tuple[WarningNote, ...]:
    """One note for each model that works at a size far from its native one.

    `fitted` is what the first pass takes. Upscaling works in tiles and `only_masked` at the native size; a picture that
    passes have enlarged may be large for the strengths at which it holds itself.
    """
    notes: dict[WarningNote, None] = {}
    grown = 1.0
    for p in job.passes:
        strength = p.strength if isinstance(p, Img2Img | Inpaint) else 1.0
        if isinstance(p, Img2Img):
            grown *= p.enlarge
        if strength == 0 or not isinstance(p, Diffusion):
            continue
        tiled = isinstance(p, Upscale) or (isinstance(p, Inpaint) and p.only_masked)
        if not tiled and (grown == 1 or strength > HOLDS):
            size = (round(fitted[0] * grown), round(fitted[1] * grown))
            notes |= dict.fromkeys(_size_note(size, cards[model_of(p, job)], grown > 1))
        if isinstance(p, Upscale):
            grown *= 4
    return tuple(notes)


def _size_note(size: Size, card: ModelCard, grown: bool) -> Iterable[WarningNote]:
    ratio = size[0] * size[1] / card.native_size**2
    if 1 / FAR_FROM_NATIVE <= ratio <= FAR_FROM_NATIVE:
        return
    remedy = f"repaint enlarged pictures at strength {HOLDS} or less" if grown else "fit the source to that size"
    if not grown:
        remedy += ' (prepare: any fit but "keep", and no size)'
    yield WarningNote(
        code="size_far_from_native",
        message=f"model {card.name!r} worked at {size[0]} x {size[1]} pixels and was trained on {card.native_size} x "
        f"{card.native_size}; expect worse pictures, or {remedy}",
    )


def may_lose_colours(passes: Iterable[Pass]) -> bool:
    """Whether a job's passes may carry off the source's colours without being asked to.

    They do when an img2img pass runs beyond strength `HOLDS`, no prompt of such a pass names colours, and no
    match_color comes after. Inpainting and edits are for new content, whose colours are its own.
    """
    risky = False
    for p in passes:
        match p:
            case MatchColor():
                risky = risky and p.amount == 0
            case Edit():
                return False
            case Img2Img() | Inpaint() if p.strength > 0:
                if isinstance(p, Inpaint) or names_colours(p.prompt):
                    return False
                risky = risky or p.strength > HOLDS
    return risky


def colours_lost(job: Job, source: Image.Image, painted: Iterable[Image.Image]) -> tuple[WarningNote, ...]:
    """A note where the palette moved further than `COLOURS_LOST` in one of the pictures, although nobody asked it to.

    `source` and `painted` without padding, of any sizes.
    """
    if not may_lose_colours(job.passes):
        return ()
    before = _sampled(source)
    furthest = max(palette_distance(_sampled(picture), before) for picture in painted)
    if furthest <= COLOURS_LOST:
        return ()
    message = (
        f"the colours are {furthest:.0f} from the source's (CIE L*a*b*; noted from {COLOURS_LOST:.0f} on) although no "
        f"prompt names any; to keep them use a strength of 0.2 to {HOLDS}, name them in the prompt, or add a "
        "match_color pass"
    )
    return (WarningNote(code="colours_lost", message=message),)


def _sampled(picture: Image.Image) -> Image.Image:
    """At most `SAMPLED` pixels a side, none of them mixed: mixing would change how far colours spread."""
    size = (min(picture.width, SAMPLED), min(picture.height, SAMPLED))
    return picture if picture.size == size else picture.resize(size, Image.Resampling.NEAREST)
