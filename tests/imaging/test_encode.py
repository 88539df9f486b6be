"""Finished pictures become files that say how they were made and nothing about their source."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from xml.dom import minidom

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from overpaint_common.errors import InvalidJob
from overpaint_worker.imaging.encode import Format, encode
from overpaint_worker.imaging.provenance import Provenance, packet, read_provenance

from .files import AI, FORMATS, photograph, saved
from .readers import exiftool, opened

PROVENANCE = Provenance(
    job="01J-job",
    variant=3,
    model="sd15",
    revision="4f2a",
    essentials=json.dumps({"prompt": 'a <b> & "c" ]]> café 画\n\r\t', "seed": 7}, ensure_ascii=False),
    software="Overpaint 0.1.0",
)

every_format = pytest.mark.parametrize("format", FORMATS)


@every_format
def test_exiftool_reads_the_ai_mark_and_finds_the_file_valid(format: Format, tmp_path: Path) -> None:
    data = encode(photograph(), format=format, quality=80, provenance=PROVENANCE)
    found = exiftool(data, tmp_path, "-validate", "-all")
    assert found["XMP-iptcExt:DigitalSourceType"] == AI
    assert found["XMP-xmp:CreatorTool"] == "Overpaint 0.1.0"
    assert found["XMP-overpaint:Job"] == "01J-job"
    assert json.loads(found["XMP-overpaint:Essentials"]) == json.loads(PROVENANCE.essentials)
    assert found["ExifTool:Validate"] == "OK"


@every_format
def test_pillow_reads_the_packet_as_xml_and_we_read_it_back_whole(format: Format) -> None:
    data = encode(photograph(), format=format, quality=80, provenance=PROVENANCE)
    described = minidom.parseString(opened(data).info["xmp"])
    marks = described.getElementsByTagNameNS("http://iptc.org/std/Iptc4xmpExt/2008-02-29/", "DigitalSourceType")
    assert [mark.firstChild.nodeValue for mark in marks if mark.firstChild] == [AI]
    assert read_provenance(data) == PROVENANCE


def test_a_png_also_says_it_in_plain_text_chunks() -> None:
    text = opened(encode(photograph(), format="png", quality=80, provenance=PROVENANCE)).info
    assert text["Software"] == "Overpaint 0.1.0"
    assert json.loads(text["overpaint"])["job"] == "01J-job"


@settings(deadline=None, max_examples=40)
@given(model=st.text(), essentials=st.text(), revision=st.none() | st.text(), format=st.sampled_from(FORMATS))
def test_any_text_gives_readable_xml(model: str, essentials: str, revision: str | None, format: Format) -> None:
    provenance = replace(PROVENANCE, model=model, essentials=essentials, revision=revision)
    data = encode(Image.new("RGB", (1, 1)), format=format, quality=50, provenance=provenance)
    minidom.parseString(packet(provenance, format=format))
    found = read_provenance(data)
    assert found is not None
    assert len(found.essentials) == len(essentials)
    if essentials.isprintable():
        assert found.essentials == essentials


def test_essentials_too_long_for_a_jpeg_are_left_out_and_the_mark_stays() -> None:
    provenance = replace(PROVENANCE, essentials="x" * 70_000)
    data = encode(photograph(), format="jpeg", quality=80, provenance=provenance)
    assert read_provenance(data) == replace(PROVENANCE, essentials="")
    png = encode(photograph(), format="png", quality=80, provenance=provenance)
    assert read_provenance(png) == provenance


@every_format
def test_nothing_that_the_picture_object_carries_is_written(format: Format) -> None:
    exif = Image.Exif()
    exif[0x010F] = "maker"
    carrying = opened(saved(photograph(), "JPEG", exif=exif, comment=b"secret", xmp=b"<x/>", icc_profile=b"not sRGB"))
    info = opened(encode(carrying, format=format, quality=80, provenance=None)).info
    assert not {"exif", "comment", "xmp", "icc_profile", "overpaint"} & info.keys()


@every_format
def test_the_same_picture_gives_the_same_bytes(format: Format) -> None:
    first, second = (encode(photograph(), format=format, quality=80, provenance=PROVENANCE) for _ in range(2))
    assert first == second


@pytest.mark.parametrize(("format", "lossless"), [("png", False), ("png", True), ("webp", True)])
def test_lossless_files_decode_to_the_very_pixels(format: Format, lossless: bool) -> None:
    data = encode(photograph(), format=format, quality=80, provenance=None, lossless=lossless)
    assert opened(data).convert("RGB").tobytes() == photograph().tobytes()


@pytest.mark.parametrize("format", ["jpeg", "webp"])
def test_quality_trades_bytes_for_likeness(format: Format) -> None:
    picture = photograph((256, 256))
    low, high = (encode(picture, format=format, quality=quality, provenance=None) for quality in (20, 95))
    errors = [np.abs(np.asarray(opened(data)).astype(float) - np.asarray(picture)).mean() for data in (low, high)]
    assert len(low) < len(high) / 2
    assert errors[0] > 2 * errors[1]


@pytest.mark.parametrize("format", ["png", "webp"])
def test_alpha_is_put_back(format: Format) -> None:
    alpha = Image.linear_gradient("L").resize(photograph().size)
    data = encode(photograph(), format=format, quality=80, provenance=PROVENANCE, alpha=alpha)
    assert opened(data).getchannel("A").tobytes() == alpha.tobytes()


def test_a_jpeg_shows_what_is_transparent_as_white() -> None:
    alpha = Image.new("L", (32, 32), 255)
    alpha.paste(0, (0, 0, 16, 32))
    data = encode(Image.new("RGB", (32, 32), (0, 90, 0)), format="jpeg", quality=95, provenance=None, alpha=alpha)
    assert opened(data).getpixel((4, 16)) == (255, 255, 255)
    assert opened(data).getpixel((28, 16)) == pytest.approx((0, 90, 0), abs=2)


def test_what_a_format_cannot_hold_is_refused_with_the_way_out() -> None:
    with pytest.raises(InvalidJob, match=r"20000 x 1 and webp holds 16383 pixels a side; ask for png"):
        encode(Image.new("RGB", (20_000, 1)), format="webp", quality=80, provenance=None)
    with pytest.raises(InvalidJob, match="jpeg cannot be lossless"):
        encode(photograph(), format="jpeg", quality=80, provenance=None, lossless=True)
    with pytest.raises(InvalidJob, match="quality is 0; give 1 to 100"):
        encode(photograph(), format="jpeg", quality=0, provenance=None)


def test_files_of_others_have_no_provenance() -> None:
    for data in (saved(photograph(), "PNG"), saved(photograph(), "JPEG", xmp=b"<broken"), b"text", b""):
        assert read_provenance(data) is None
    bomb = b'<!DOCTYPE x [<!ENTITY a "aaaaaaaaaa">]><x>&a;</x>'
    assert read_provenance(saved(photograph(), "WEBP", xmp=bomb)) is None
