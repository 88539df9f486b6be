"""Strength 0: the source as it is, in the format that was asked for.

No model touches it, so nothing new marks it as AI; a mark that the source carries itself stays.
"""

from __future__ import annotations

from typing import NamedTuple

from PIL import Image

from overpaint_worker.imaging.containers import read_parts
from overpaint_worker.imaging.decode import Source, decode_straight
from overpaint_worker.imaging.encode import Format, write
from overpaint_worker.imaging.metadata import strip
from overpaint_worker.imaging.xmp import mark_only

_LEAST_QUALITY = 95


class Passthrough(NamedTuple):
    """The bytes to store, and how they came about."""

    body: bytes
    copied: bool
    """`body` is the source object, byte for byte."""
    notes: tuple[str, ...]


def passthrough(data: bytes, source: Source, *, format: Format, quality: int) -> Passthrough:
    """The source, unchanged to the eye and as far as the format allows to the bit.

    `source` is `decode(data)`. In order of preference: the very bytes, where `format` is the source's and they hold no
    private metadata; the same compressed pixels with the private parts cut out, which keeps every sample, the depth,
    the colour profile and the orientation; else a lossless PNG or WebP of the decoded pixels, alpha and the colours
    beneath it included; JPEG, which can do neither, at `quality` (1 to
    100) or 95, whichever is more. Raises what `decode` and `encode` raise.
    """
    if source.format == format and (parts := read_parts(data, format)) is not None:
        stripped = strip(parts, format)
        if not stripped.private:
            return Passthrough(data, True, ())
        return Passthrough(stripped.data, False, (f"private metadata left out: {', '.join(stripped.private)}",))
    source, colours = decode_straight(data, max_pixels=source.width * source.height)
    notes = source.notes
    if format == "jpeg":
        quality = max(quality, _LEAST_QUALITY)
        notes += (f"jpeg cannot hold the {source.format} source's pixels exactly: encoded at quality {quality}",)
        notes += ("transparency blended over white",) if source.alpha else ()
    picture = Image.merge("RGBA", (*colours.split(), source.alpha)) if source.alpha else colours
    xmp = mark_only(source.source_type) if source.source_type else b""
    body = write(picture, format=format, quality=quality, lossless=format == "webp", xmp=xmp)
    return Passthrough(body, False, notes)
