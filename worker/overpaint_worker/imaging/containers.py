"""How PNG, JPEG and WebP files are put together: their parts in order, without decoding a pixel."""

from __future__ import annotations

import re
import struct
import zlib
from collections.abc import Iterable
from dataclasses import dataclass

PNG_MAGIC = b"\x89PNG\r\n\x1a\n"

SOI, EOI, SOS, COM = 0xD8, 0xD9, 0xDA, 0xFE
APP0, APP1, APP2, APP14, APP15 = 0xE0, 0xE1, 0xE2, 0xEE, 0xEF

_NEXT_MARKER = re.compile(rb"\xff[^\x00\xd0-\xd7\xff]")


@dataclass(frozen=True, slots=True)
class Part:
    """One PNG chunk, JPEG segment or RIFF chunk."""

    name: bytes
    """The chunk's four letters; for JPEG the marker's second byte, or nothing for the entropy-coded data of a scan."""
    body: bytes
    """The payload without name, length, checksum and padding."""


@dataclass(frozen=True, slots=True)
class Parts:
    """What a walk over a file found."""

    parts: tuple[Part, ...]
    complete: bool
    """False when the data ends before the format's own end mark."""
    trailing: bool
    """Something follows the end mark, lies between the parts, or is a damaged part that display can do without."""
    damaged: bytes | None = None
    """The first part that display needs and whose checksum is wrong (PNG only)."""


def read_png(data: bytes) -> Parts:
    """The chunks of a PNG up to IEND (PNG specification, section 5), ancillary ones with a wrong checksum left out."""
    parts: list[Part] = []
    at, left_out, damaged = len(PNG_MAGIC), False, None
    while at + 12 <= len(data):
        length = int.from_bytes(data[at : at + 4], "big")
        name = data[at + 4 : at + 8]
        end = at + 12 + length
        if end > len(data):
            break
        part = Part(name, data[at + 8 : end - 4])
        if _png_checksum(part) == data[end - 4 : end]:
            parts.append(part)
        elif name[:1].isupper():
            damaged = damaged or name
        else:
            left_out = True
        at = end
        if name == b"IEND":
            return Parts(tuple(parts), complete=True, trailing=left_out or at < len(data), damaged=damaged)
    return Parts(tuple(parts), complete=False, trailing=False)


def _png_checksum(part: Part) -> bytes:
    return struct.pack(">I", zlib.crc32(part.body, zlib.crc32(part.name)))


def write_png(parts: Iterable[Part]) -> bytes:
    """The inverse of `read_png`, with fresh checksums."""
    pieces = [PNG_MAGIC]
    for part in parts:
        pieces += [struct.pack(">I", len(part.body)), part.name, part.body, _png_checksum(part)]
    return b"".join(pieces)


def read_jpeg(data: bytes) -> Parts:
    """The segments of the first picture in a JPEG, SOI and EOI left out (ITU T.81, annex B)."""
    parts: list[Part] = []
    at, junk = 2, False
    while found := _NEXT_MARKER.search(data, at):
        junk = junk or found.start() > at + data[at : found.start()].count(b"\xff")
        marker = data[found.start() + 1]
        at = found.end()
        if marker == EOI:
            return Parts(tuple(parts), complete=True, trailing=junk or at < len(data))
        if marker in (SOI, 0x01):
            continue
        length = int.from_bytes(data[at : at + 2], "big")
        end = at + length
        if length < 2 or end > len(data):
            break
        parts.append(Part(bytes([marker]), data[at + 2 : end]))
        at = end
        if marker == SOS:
            following = _NEXT_MARKER.search(data, end)
            at = following.start() if following else len(data)
            parts.append(Part(b"", data[end:at]))
    return Parts(tuple(parts), complete=False, trailing=False)


def write_jpeg(parts: Iterable[Part]) -> bytes:
    """The inverse of `read_jpeg`. The payload of a segment other than a scan is at most 65533 bytes."""
    pieces = [b"\xff\xd8"]
    for part in parts:
        header = [b"\xff", part.name, struct.pack(">H", len(part.body) + 2)] if part.name else []
        pieces += [*header, part.body]
    return b"".join([*pieces, b"\xff\xd9"])


def read_webp(data: bytes) -> Parts:
    """The RIFF chunks of a WebP (RFC 9649, section 2.3)."""
    parts: list[Part] = []
    end_of_file = 8 + int.from_bytes(data[4:8], "little")
    if end_of_file > len(data):
        return Parts((), complete=False, trailing=False)
    at = 12
    while at + 8 <= end_of_file:
        length = int.from_bytes(data[at + 4 : at + 8], "little")
        end = at + 8 + length
        if end > end_of_file:
            return Parts(tuple(parts), complete=False, trailing=False)
        parts.append(Part(data[at : at + 4], data[at + 8 : end]))
        at = end + (length & 1)
    return Parts(tuple(parts), complete=bool(parts), trailing=end_of_file < len(data))


def write_webp(parts: Iterable[Part]) -> bytes:
    """The inverse of `read_webp`."""
    pieces = [b"WEBP"]
    for part in parts:
        pieces += [part.name, struct.pack("<I", len(part.body)), part.body, b"\0" * (len(part.body) & 1)]
    content = b"".join(pieces)
    return b"RIFF" + struct.pack("<I", len(content)) + content


def read_parts(data: bytes, format: str) -> Parts | None:
    """The parts of a PNG, JPEG or WebP; None for the other formats."""
    readers = {"png": read_png, "jpeg": read_jpeg, "webp": read_webp}
    return readers[format](data) if format in readers else None


def write_parts(parts: Iterable[Part], format: str) -> bytes:
    """The inverse of `read_parts`."""
    return {"png": write_png, "jpeg": write_jpeg, "webp": write_webp}[format](parts)
