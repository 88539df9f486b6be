"""What a picture file says beyond its picture, and how to leave that out without touching a pixel."""

from __future__ import annotations

import zlib
from dataclasses import dataclass, replace

from PIL import Image, TiffImagePlugin

from overpaint_common.formats import sniff
from overpaint_worker.imaging import exif, xmp
from overpaint_worker.imaging.containers import (
    APP0,
    APP1,
    APP2,
    APP14,
    APP15,
    COM,
    Part,
    Parts,
    read_parts,
    write_parts,
)

# Pillow refuses a PNG whose compressed profile is larger.
_LARGEST_PNG_PROFILE = 1 << 20

_PNG_RENDERING = frozenset(
    b"IHDR PLTE IDAT IEND tRNS cHRM gAMA sBIT sRGB cICP mDCV cLLI bKGD hIST pHYs acTL fcTL fdAT".split()
)
_WEBP_RENDERING = frozenset({b"VP8X", b"ICCP", b"ANIM", b"ANMF", b"ALPH", b"VP8 ", b"VP8L"})
_WEBP_HAS_EXIF, _WEBP_HAS_XMP = 0x08, 0x04

# Tags 254 to 297 and 317 to 347 that say how the samples lie, BigTIFF or not; 34675 is the ICC profile.
_TIFF_RENDERING = frozenset(
    {254, 255, 256, 257, 258, 259, 262, 263, 264, 265, 266, 273, 274, 277, 278, 279, 280, 281, 282, 283, 284, 290, 291}
    | {292, 293, 296, 297, 301, 317, 318, 319, 320, 321, 322, 323, 324, 325, 332, 334, 336, 338, 339, 340, 341, 347}
    | {512, 513, 514, 515, 517, 518, 519, 520, 521, 529, 530, 531, 532, 34675}
)

_XMP_IN_JPEG = b"http://ns.adobe.com/xap/1.0/\0"
_XMP_IN_PNG = b"XML:com.adobe.xmp\0"


@dataclass(frozen=True, slots=True)
class Stripped:
    """A PNG, JPEG or WebP without what its display does not need."""

    data: bytes
    """The same compressed pixels, colour profile, transparency and orientation."""
    orientation: int
    """1 to 8; `data` says the same."""
    private: tuple[str, ...]
    """Kinds of what was left out, such as "EXIF"; empty when everything was needed."""
    source_type: str | None
    """The IPTC digital source type the file itself stated; `data` states it too."""
    notes: tuple[str, ...]


def strip(parts: Parts, format: str) -> Stripped:
    """The file without private metadata: EXIF (location, camera, time, thumbnail), XMP, IPTC, text, unknown parts.

    `format` is png, jpeg or webp. Pixels are not decoded. An orientation other than 1 is kept in a new EXIF block that
    holds nothing else, a statement of AI origin in a new XMP packet that holds nothing else.
    """
    kept: list[Part] = []
    private: list[str] = ["data after the picture"] if parts.trailing else []
    notes: list[str] = []
    turned, origin, exif_kept, xmp_kept = 1, None, False, False
    for part in parts.parts:
        tiff, packet = _exif_in(part, format), _xmp_in(part, format)
        if tiff is not None and not exif_kept:
            turned, exif_kept = exif.orientation(tiff), not exif.is_private(tiff)
            kept += [part] * exif_kept
            private += [] if exif_kept else ["EXIF"]
        elif packet is not None and not xmp_kept:
            origin = xmp.source_type(packet) or origin
            xmp_kept = origin is not None and packet == xmp.mark_only(origin)
            kept += [part] * xmp_kept
            private += [] if xmp_kept else ["XMP"]
        elif part.name == b"iCCP" and not _is_sound_profile(part.body):
            notes.append("ICC profile ignored: it cannot be unpacked")
        else:
            cleaned, reason = _rendering_only(part, format)
            kept += [cleaned] if cleaned else []
            private += [reason] if reason else []
    if turned != 1 and not exif_kept:
        _insert(kept, format, _exif_part(turned, format))
    if origin is not None and not xmp_kept:
        _insert(kept, format, _xmp_part(origin, format))
    if format == "webp":
        _set_flags(kept)
    return Stripped(write_parts(kept, format), turned, tuple(dict.fromkeys(private)), origin, tuple(notes))


def private_kinds(picture: Image.Image) -> tuple[str, ...]:
    """Kinds of private metadata in an opened GIF, TIFF or BMP, as far as its header goes; nothing is read further."""
    if isinstance(picture, TiffImagePlugin.TiffImageFile):
        return tuple(f"TIFF tag {tag}" for tag in sorted(set(picture.tag_v2) - _TIFF_RENDERING))
    kinds = ["comment"] if "comment" in picture.info else []
    block = picture.info.get("extension", (b"",))[0]
    return tuple(kinds + (["application data"] if block[:8] not in (b"", b"NETSCAPE", b"ANIMEXTS") else []))


def xmp_packet(data: bytes) -> bytes | None:
    """The first XMP packet of a PNG, JPEG or WebP; None without one, and for anything else."""
    format = sniff(data) or ""
    parts = read_parts(data, format)
    packets = (_xmp_in(part, format) for part in (parts.parts if parts else ()))
    return next((packet for packet in packets if packet is not None), None)


def _exif_in(part: Part, format: str) -> bytes | None:
    """The EXIF block from its byte-order mark on, where this part holds one."""
    if format == "jpeg" and part.name == bytes([APP1]) and part.body.startswith(b"Exif\0"):
        return part.body[6:]
    if (format, part.name) in (("png", b"eXIf"), ("webp", b"EXIF")):
        return part.body.removeprefix(b"Exif\0\0")
    return None


def _xmp_in(part: Part, format: str) -> bytes | None:
    """The XMP packet, where this part holds one."""
    if format == "jpeg" and part.name == bytes([APP1]) and part.body.startswith(_XMP_IN_JPEG):
        return part.body[len(_XMP_IN_JPEG) :]
    if format == "png" and part.name == b"iTXt" and part.body.startswith(_XMP_IN_PNG + b"\0"):
        return part.body[len(_XMP_IN_PNG) :].split(b"\0", 4)[-1]
    return part.body if format == "webp" and part.name == b"XMP " else None


def _rendering_only(part: Part, format: str) -> tuple[Part | None, str | None]:
    """The part as far as display needs it, and what kind of private thing was in it."""
    if format == "jpeg":
        return _jpeg_rendering_only(part)
    if format == "webp":
        return (part, None) if part.name in _WEBP_RENDERING else (None, f"chunk {part.name.decode('latin-1')}")
    if part.name in _PNG_RENDERING or part.name == b"iCCP" or part.name[:1].isupper():
        return part, None
    text = part.name in (b"tEXt", b"zTXt", b"iTXt")
    return None, "text" if text else f"chunk {part.name.decode('latin-1')}"


def _jpeg_rendering_only(part: Part) -> tuple[Part | None, str | None]:
    marker = part.name[0] if part.name else 0
    if marker == COM:
        return None, "comment"
    if not APP0 <= marker <= APP15:
        return part, None
    if marker == APP0 and part.body.startswith(b"JFIF\0"):
        if len(part.body) <= 14:
            return part, None
        return replace(part, body=part.body[:12] + b"\0\0"), "thumbnail"
    if (marker == APP2 and part.body.startswith(b"ICC_PROFILE\0")) or (
        marker == APP14 and part.body.startswith(b"Adobe") and len(part.body) <= 12
    ):
        return part, None
    kinds = {b"JFXX": "thumbnail", b"MPF\0": "further pictures", b"Phot": "IPTC", b"http": "XMP", b"Exif": "EXIF"}
    return None, kinds.get(part.body[:4], f"segment APP{marker - APP0}")


def _is_sound_profile(body: bytes) -> bool:
    name, _, packed = body.partition(b"\0")
    unpacker = zlib.decompressobj()
    try:
        unpacker.decompress(packed[1:], _LARGEST_PNG_PROFILE)
    except zlib.error:
        return False
    return bool(name) and packed[:1] == b"\0" and not unpacker.unconsumed_tail


def _exif_part(orientation: int, format: str) -> Part:
    tiff = exif.orientation_only(orientation)
    if format == "jpeg":
        return Part(bytes([APP1]), b"Exif\0\0" + tiff)
    return Part(b"eXIf" if format == "png" else b"EXIF", tiff)


def _xmp_part(source_type: str, format: str) -> Part:
    packet = xmp.mark_only(source_type)
    if format == "jpeg":
        return Part(bytes([APP1]), _XMP_IN_JPEG + packet)
    return Part(b"iTXt", _XMP_IN_PNG + b"\0\0\0\0" + packet) if format == "png" else Part(b"XMP ", packet)


def _insert(kept: list[Part], format: str, part: Part) -> None:
    """Put the part where its format wants metadata: after JFIF, before the first IDAT, at the end of a RIFF."""
    if format == "webp":
        kept.append(part)
    elif format == "png":
        kept.insert(next((i for i, other in enumerate(kept) if other.name == b"IDAT"), len(kept)), part)
    else:
        kept.insert(1 if kept and kept[0].name == bytes([APP0]) else 0, part)


def _set_flags(kept: list[Part]) -> None:
    """Make the VP8X header say which metadata follows (RFC 9649, section 2.7)."""
    if not kept or kept[0].name != b"VP8X" or not kept[0].body:
        return
    names = {part.name for part in kept}
    flags = kept[0].body[0] & ~(_WEBP_HAS_EXIF | _WEBP_HAS_XMP)
    flags |= _WEBP_HAS_EXIF * (b"EXIF" in names) | _WEBP_HAS_XMP * (b"XMP " in names)
    kept[0] = replace(kept[0], body=bytes([flags]) + kept[0].body[1:])
