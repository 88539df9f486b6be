"""How a picture says that a model touched it, and how it was made: machine-readable marks inside the file."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass

from overpaint_worker.imaging import xmp
from overpaint_worker.imaging.metadata import xmp_packet

# The payload of one JPEG segment less the name that precedes the packet (XMP part 3, section 1.1.3).
_LARGEST_JPEG_PACKET = 65502


@dataclass(frozen=True, slots=True)
class Provenance:
    """The essentials of a record, as they travel inside each picture."""

    job: str
    variant: int
    """0 for the base seed."""
    model: str
    """The registry's name, not a repository."""
    revision: str | None
    """The model's pinned revision, where it has one."""
    essentials: str
    """A JSON object: passes, seeds, strengths and whatever else the record's writer thinks essential."""
    software: str
    """Name and version of what made the picture, such as "Overpaint 0.1.0"."""


def packet(provenance: Provenance, *, format: str) -> bytes:
    """The XMP packet for one output: IPTC digital source type, AI system used (IPTC 2025.1) and our own properties.

    A JPEG holds 65502 bytes of XMP; where the essentials would not fit there, they are left out and the rest stays.
    """
    properties = {
        "Iptc4xmpExt:DigitalSourceType": xmp.AI_EDITED,
        "Iptc4xmpExt:AISystemUsed": provenance.model,
        "xmp:CreatorTool": provenance.software,
        "overpaint:Job": provenance.job,
        "overpaint:Variant": str(provenance.variant),
    }
    if provenance.revision is not None:
        properties["Iptc4xmpExt:AISystemVersionUsed"] = provenance.revision
    whole = xmp.packet({**properties, "overpaint:Essentials": provenance.essentials})
    if format == "jpeg" and len(whole) > _LARGEST_JPEG_PACKET:
        return xmp.packet(properties)
    return whole


def png_text(provenance: Provenance) -> dict[str, str]:
    """Keyword -> text for a PNG's own text chunks, beside the XMP packet: `Software` and `overpaint` (JSON)."""
    return {"Software": provenance.software, "overpaint": json.dumps(asdict(provenance), sort_keys=True)}


def read_provenance(data: bytes) -> Provenance | None:
    """What `encode` wrote into a PNG, JPEG or WebP; None where there is no packet of ours. Raises nothing.

    Essentials that were left out are an empty string; characters that XML cannot hold come back as U+FFFD.
    """
    found = xmp.properties(xmp_packet(data) or b"")
    try:
        return Provenance(
            job=found["overpaint:Job"],
            variant=int(found["overpaint:Variant"]),
            model=found["Iptc4xmpExt:AISystemUsed"],
            revision=found.get("Iptc4xmpExt:AISystemVersionUsed"),
            essentials=found.get("overpaint:Essentials", ""),
            software=found["xmp:CreatorTool"],
        )
    except (KeyError, ValueError):
        return None
