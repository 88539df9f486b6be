"""A source object's bytes to the picture a model can start from."""

from __future__ import annotations

from dataclasses import dataclass

from PIL import Image

from overpaint_worker.imaging import alpha as transparency
from overpaint_worker.imaging import exif, icc, samples
from overpaint_worker.imaging.opening import open_source, reading


@dataclass(frozen=True, slots=True)
class Source:
    """A decoded source and what its file said."""

    picture: Image.Image
    """RGB, 8 bits, sRGB, turned as displayed; transparent pixels blended over white."""
    alpha: Image.Image | None
    """L, turned as displayed: kept aside and put back at the end. None where every pixel is opaque."""
    format: str
    """png, jpeg, webp, gif, bmp or tiff."""
    mode: str
    """The file's own mode in Pillow's words, before any conversion."""
    width: int
    """As displayed."""
    height: int
    """As displayed."""
    private_metadata: bool
    """The file says more than display needs: EXIF beyond orientation, location, XMP, IPTC, comments, unknown parts."""
    notes: tuple[str, ...]
    """What was lost, changed or ignored, for the record's warnings."""
    source_type: str | None
    """The IPTC digital source type that a PNG, JPEG or WebP states of itself, such as that a model made it."""


def decode(data: bytes, *, max_pixels: int) -> Source:
    """Decode an untrusted picture for a model.

    Reads PNG, JPEG (of several pictures in one file the first), WebP, BMP, TIFF and GIF. `max_pixels` bounds width x
    height and is checked from the header, before anything of that size is allocated; Pillow's own limit for WebP and
    TIFF, 178 megapixels, stands above it. Raises SourceEmpty, SourceNotAPicture, SourceTruncated, SourceTooLarge,
    SourceAnimated, or SourceError for a file that is damaged in another way; nothing else.
    """
    source, _ = decode_straight(data, max_pixels=max_pixels)
    return source


def decode_straight(data: bytes, *, max_pixels: int) -> tuple[Source, Image.Image]:
    """Like `decode`, and the colours (RGB) as the file has them under transparent pixels, not blended over white."""
    opened = open_source(data, max_pixels=max_pixels)
    with reading(opened.format):
        opened.picture.load()
        colours, alpha, lost = samples.split(opened.picture, depth=opened.depth)
        colours, profile = icc.to_srgb(colours, opened.picture.info.get("icc_profile"))
        colours = exif.turn(colours, opened.orientation)
        alpha = exif.turn(alpha, opened.orientation) if alpha else None
        picture = transparency.over_background(colours, alpha)
    colours.info, picture.info = {}, {}
    notes = (*opened.notes, *(note for note in (lost, profile) if note))
    source = Source(
        picture, alpha, opened.format, opened.mode, *picture.size, bool(opened.private), notes, opened.source_type
    )
    return source, colours
