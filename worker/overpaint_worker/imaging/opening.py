"""Opening an untrusted picture: its format, its size against the budget, its frames, one error tree for the rest."""

from __future__ import annotations

import struct
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from io import BytesIO

from PIL import (
    BmpImagePlugin,
    GifImagePlugin,
    Image,
    ImageFile,
    JpegImagePlugin,
    PngImagePlugin,
    TiffImagePlugin,
    WebPImagePlugin,
)

from overpaint_common.errors import (
    SourceAnimated,
    SourceEmpty,
    SourceError,
    SourceNotAPicture,
    SourceTooLarge,
    SourceTruncated,
)
from overpaint_common.formats import sniff
from overpaint_worker.imaging.containers import SOS, Part, read_parts
from overpaint_worker.imaging.metadata import private_kinds, strip

# The only decoders a source ever reaches. They are called by name rather than through Image.open, which would try
# others, hide their errors, and check a process-wide pixel limit instead of the caller's.
_DECODERS: dict[str, Callable[[BytesIO], ImageFile.ImageFile]] = {
    "png": PngImagePlugin.PngImageFile,
    "jpeg": JpegImagePlugin.JpegImageFile,
    "webp": WebPImagePlugin.WebPImageFile,
    "gif": GifImagePlugin.GifImageFile,
    "bmp": BmpImagePlugin.BmpImageFile,
    "tiff": TiffImagePlugin.TiffImageFile,
}
FORMATS = tuple(_DECODERS)

# As many as libjpeg-turbo's own fuzzers allow: each scan of a progressive JPEG costs a walk over the whole picture.
_MOST_SCANS = 500
_MOST_FRAMES_COUNTED = 1000


@dataclass(frozen=True, slots=True)
class Opened:
    """A picture whose header has been read and whose pixels have not."""

    picture: ImageFile.ImageFile
    """Reads the file without its private metadata, where the format is png, jpeg or webp."""
    format: str
    mode: str
    depth: int
    """Bits per sample as the file has it."""
    orientation: int
    """How `picture` must still be turned once loaded, 1 to 8."""
    private: tuple[str, ...]
    source_type: str | None
    notes: tuple[str, ...]


def open_source(data: bytes, *, max_pixels: int) -> Opened:
    """Identify a picture, read its header and hold it to the budget; no pixel is decoded.

    `max_pixels` is width x height of the stored picture. Raises SourceEmpty, SourceNotAPicture (none of FORMATS),
    SourceTruncated, SourceTooLarge, SourceAnimated (more than one frame or page), or SourceError for damage.
    """
    if not data:
        raise SourceEmpty("the source object is empty (0 bytes); upload it again")
    format = sniff(data)
    if format is None:
        raise SourceNotAPicture(
            f"the source's first bytes ({data[:8]!r}) are of no picture format read here; use {', '.join(FORMATS)}"
        )
    with reading(format):
        return _open(data, format, max_pixels)


@contextmanager
def reading(format: str) -> Iterator[None]:
    """Turn whatever Pillow raises while it opens or loads a picture into a SourceError."""
    try:
        yield
    except SourceError:
        raise
    except Image.DecompressionBombError as error:
        raise SourceTooLarge(f"the {format} source is larger than this decoder takes at all: {error}") from error
    except MemoryError as error:
        raise SourceTooLarge(f"the {format} source does not fit into memory; scale it down") from error
    except (
        Exception
    ) as error:  # Pillow's decoders raise a dozen kinds on damaged files, and new ones with each release.
        if "truncated" in str(error).lower() or isinstance(error, EOFError):
            raise SourceTruncated(f"the {format} source ends early ({error}); upload it again") from error
        raise SourceError(f"the {format} source is damaged or of a kind not read here: {error!r}") from error


def _open(data: bytes, format: str, max_pixels: int) -> Opened:
    parts = read_parts(data, format)
    stripped = None
    if parts is not None:
        if not parts.complete:
            raise SourceTruncated(
                f"the {format} source ends after {len(data)} bytes, before its end mark; upload it again"
            )
        if parts.damaged:
            raise SourceError(
                f"the {format} source is damaged: the checksum of {parts.damaged!r} is wrong; upload it again"
            )
        _check_header(parts.parts, format, max_pixels)
        stripped = strip(parts, format)
    picture = _DECODERS[format](BytesIO(stripped.data if stripped else data))
    _check_pixels(picture.size, max_pixels)
    if isinstance(picture, TiffImagePlugin.TiffImageFile):
        _check_pixels((picture.tag_v2.get(322, 1), picture.tag_v2.get(323, 1)), max_pixels)
    _check_frames(picture)
    return Opened(
        picture,
        format,
        picture.mode,
        _depth(picture, parts.parts if parts else ()),
        stripped.orientation if stripped else 1,
        stripped.private if stripped else private_kinds(picture),
        stripped.source_type if stripped else None,
        stripped.notes if stripped else (),
    )


def _check_header(parts: tuple[Part, ...], format: str, max_pixels: int) -> None:
    """The checks that must come before Pillow sees the file at all."""
    if format == "webp":
        # Pillow's WebP decoder allocates the whole canvas as it opens the file.
        _check_pixels(_webp_size(parts[0]), max_pixels)
    if format == "jpeg":
        scans = sum(part.name == bytes([SOS]) for part in parts)
        if scans > _MOST_SCANS:
            raise SourceError(f"the jpeg source has {scans} scans, more than {_MOST_SCANS}; save it as baseline JPEG")


def _webp_size(first: Part) -> tuple[int, int]:
    """Width and height from the first chunk of a WebP (RFC 9649, sections 2.5 to 2.7)."""
    body = first.body
    if first.name == b"VP8X":
        return 1 + int.from_bytes(body[4:7], "little"), 1 + int.from_bytes(body[7:10], "little")
    if first.name == b"VP8L":
        bits = int.from_bytes(body[1:5], "little")
        return 1 + (bits & 0x3FFF), 1 + (bits >> 14 & 0x3FFF)
    width, height = struct.unpack_from("<HH", body, 6)
    return width & 0x3FFF, height & 0x3FFF


def _check_pixels(size: tuple[int, int], max_pixels: int) -> None:
    width, height = size
    if width * height > max_pixels:
        raise SourceTooLarge(
            f"the source is {width} x {height}, {width * height} pixels, and at most {max_pixels} are allowed; "
            "scale it down before submitting, or raise the worker's pixel limit"
        )


def _check_frames(picture: ImageFile.ImageFile) -> None:
    if not getattr(picture, "is_animated", False):
        return
    if isinstance(picture, TiffImagePlugin.TiffImageFile):
        # Its own n_frames compares each page with all before it: minutes for a file made to abuse that.
        frames = 2
        while frames <= _MOST_FRAMES_COUNTED:
            try:
                picture.seek(frames)
            except Exception:  # The last page, or a damaged one; either way the count so far stands.
                break
            frames += 1
    else:
        frames = getattr(picture, "n_frames", 2)
    raise SourceAnimated(
        f"the source has {frames if frames <= _MOST_FRAMES_COUNTED else f'more than {_MOST_FRAMES_COUNTED}'} frames, "
        "and a job takes one picture; extract the frame you want and submit that"
    )


def _depth(picture: ImageFile.ImageFile, parts: tuple[Part, ...]) -> int:
    """Bits per sample: from IHDR for PNG, the BitsPerSample tag for TIFF, 8 for the rest."""
    if parts and parts[0].name == b"IHDR":
        return parts[0].body[8]
    if isinstance(picture, TiffImagePlugin.TiffImageFile):
        return int(max(picture.tag_v2.get(TiffImagePlugin.BITSPERSAMPLE, (1,))))
    return 8
