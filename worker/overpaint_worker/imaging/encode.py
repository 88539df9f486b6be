"""A finished picture to the bytes of a file."""

from __future__ import annotations

from collections.abc import Mapping
from io import BytesIO
from typing import Literal

from PIL import Image
from PIL.PngImagePlugin import PngInfo

from overpaint_common.errors import InvalidJob
from overpaint_worker.imaging.alpha import over_background, put_back
from overpaint_worker.imaging.provenance import Provenance, packet, png_text

Format = Literal["png", "jpeg", "webp"]

_LARGEST_SIDE = {"png": 2**31 - 1, "jpeg": 65500, "webp": 16383}
_FULL_CHROMA_FROM = 90
# For lossless WebP the quality is an effort; Pillow's own default.
_LOSSLESS_EFFORT = 80


def encode(
    picture: Image.Image,
    *,
    format: Format,
    quality: int,
    provenance: Provenance | None,
    alpha: Image.Image | None = None,
    lossless: bool = False,
) -> bytes:
    """A picture that a model made, as a file in sRGB. The same input gives the same bytes.

    `picture` is RGB over white, as `decode` gave it to the model. `alpha` (L) is put back: see `alpha.put_back`; a JPEG
    holds none and shows what is transparent as white. An alpha of another size is resized, so after `fit` by crop pass
    an alpha that went the same way: `restore(place(alpha, placement), placement)`.

    `quality` is 1 to 100: libjpeg's scale (4:4:4 chroma from 90 on) or libwebp's; PNG and lossless WebP ignore it.
    Only `provenance` is written beside the pixels: whatever EXIF, profile or text `picture` carries stays behind.
    Raises InvalidJob for a quality out of range, a lossless JPEG, or a side longer than the format holds (JPEG 65500,
    WebP 16383 pixels).
    """
    colours = picture.convert("RGB")
    return write(
        put_back(colours, alpha) if alpha else colours,
        format=format,
        quality=quality,
        lossless=lossless,
        xmp=packet(provenance, format=format) if provenance else b"",
        text=png_text(provenance) if provenance else {},
    )


def write(
    picture: Image.Image,
    *,
    format: Format,
    quality: int,
    lossless: bool,
    xmp: bytes = b"",
    text: Mapping[str, str] | None = None,
) -> bytes:
    """Like `encode`, for straight colours: `picture` is RGB, or RGBA not blended over anything.

    `xmp` is a whole packet; `text` goes into PNG text chunks only.
    """
    _check(picture, format, quality, lossless)
    clean = picture.copy()
    # Pillow's writers take transparency, comments and profiles from here.
    clean.info = {}
    target = BytesIO()
    if format == "png":
        clean.save(target, "PNG", pnginfo=_png_info(text or {}, xmp))
    elif format == "jpeg":
        if clean.mode == "RGBA":
            clean = over_background(clean.convert("RGB"), clean.getchannel("A"))
        chroma = "4:4:4" if quality >= _FULL_CHROMA_FROM else "4:2:0"
        clean.save(target, "JPEG", quality=quality, subsampling=chroma, optimize=True, xmp=xmp)
    else:
        effort = _LOSSLESS_EFFORT if lossless else quality
        clean.save(target, "WEBP", quality=effort, lossless=lossless, exact=lossless, xmp=xmp)
    return target.getvalue()


def _check(picture: Image.Image, format: Format, quality: int, lossless: bool) -> None:
    if not 1 <= quality <= 100:
        raise InvalidJob(f"quality is {quality}; give 1 to 100")
    if format == "jpeg" and lossless:
        raise InvalidJob("jpeg cannot be lossless; ask for png, or for webp with lossless")
    longest = _LARGEST_SIDE[format]
    if max(picture.size) > longest:
        width, height = picture.size
        raise InvalidJob(f"the picture is {width} x {height} and {format} holds {longest} pixels a side; ask for png")


def _png_info(text: Mapping[str, str], xmp: bytes) -> PngInfo:
    info = PngInfo()
    info.add(b"sRGB", b"\0")
    for keyword, value in text.items():
        info.add_text(keyword, value)
    if xmp:
        info.add_itxt("XML:com.adobe.xmp", xmp)
    return info
