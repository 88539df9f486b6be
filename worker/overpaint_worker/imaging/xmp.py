"""XMP packets: the one Overpaint writes into what a model touched, and the AI mark that any packet may carry."""

from __future__ import annotations

import re
from collections.abc import Mapping
from xml.etree import ElementTree
from xml.sax.saxutils import escape

VOCABULARY = "http://cv.iptc.org/newscodes/digitalsourcetype/"
AI_EDITED = VOCABULARY + "compositeWithTrainedAlgorithmicMedia"

RDF = "http://www.w3.org/1999/02/22-rdf-syntax-ns#"
NAMESPACES = {
    "Iptc4xmpExt": "http://iptc.org/std/Iptc4xmpExt/2008-02-29/",
    "xmp": "http://ns.adobe.com/xap/1.0/",
    "overpaint": "urn:overpaint:provenance:1#",
}

_MARK = re.compile(rb"DigitalSourceType\b[^<]{0,200}?https?://cv\.iptc\.org/newscodes/digitalsourcetype/(\w{1,64})")
_NOT_XML = re.compile("[^\t\n\r\x20-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")


def packet(properties: Mapping[str, str]) -> bytes:
    """A UTF-8 XMP packet (ISO 16684-1) of simple text properties, named like `xmp:CreatorTool`, prefix of NAMESPACES.

    Characters that XML 1.0 cannot hold (control characters, lone surrogates) become U+FFFD.
    """
    used = sorted({name.partition(":")[0] for name in properties})
    declared = "".join(f' xmlns:{prefix}="{NAMESPACES[prefix]}"' for prefix in used)
    lines = [f"   <{name}>{_text(value)}</{name}>" for name, value in properties.items()]
    return "\n".join(
        [
            '<?xpacket begin="\ufeff" id="W5M0MpCehiHzreSzNTczkc9d"?>',
            '<x:xmpmeta xmlns:x="adobe:ns:meta/">',
            f' <rdf:RDF xmlns:rdf="{RDF}">',
            f'  <rdf:Description rdf:about=""{declared}>',
            *lines,
            "  </rdf:Description>",
            " </rdf:RDF>",
            "</x:xmpmeta>",
            '<?xpacket end="r"?>',
        ]
    ).encode()


def mark_only(source_type: str) -> bytes:
    """A packet that says the IPTC digital source type and nothing else."""
    return packet({"Iptc4xmpExt:DigitalSourceType": source_type})


def source_type(xmp: bytes) -> str | None:
    """The IPTC digital source type that a packet states, as element or attribute; None without one."""
    found = _MARK.search(xmp)
    return VOCABULARY + found[1].decode("ascii", "replace") if found else None


def properties(xmp: bytes) -> dict[str, str]:
    """The simple text properties, written as elements, in the namespaces we know; empty for anything unreadable."""
    if b"<!DOCTYPE" in xmp or b"<!ENTITY" in xmp:
        return {}
    try:
        root = ElementTree.fromstring(xmp)
    except (ElementTree.ParseError, ValueError, LookupError):
        return {}
    prefixes = {uri: prefix for prefix, uri in NAMESPACES.items()}
    found = {}
    for element in root.iterfind(f".//{{{RDF}}}Description/*"):
        uri, _, name = element.tag[1:].partition("}")
        if uri in prefixes and not len(element):
            found[f"{prefixes[uri]}:{name}"] = element.text or ""
    return found


def _text(value: str) -> str:
    # A bare carriage return would be read back as a newline (XML 1.0, section 2.11).
    return escape(_NOT_XML.sub("\ufffd", value), {"\r": "&#13;"})
