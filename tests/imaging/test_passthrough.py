"""At strength 0 the source comes out as it went in, without what is private in it."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image, ImageOps

from overpaint_worker.imaging.decode import decode
from overpaint_worker.imaging.encode import Format, encode
from overpaint_worker.imaging.passthrough import Passthrough, passthrough
from overpaint_worker.imaging.provenance import Provenance

from .files import (
    ADOBE_TO_XYZ,
    AI,
    BUDGET,
    FORMATS,
    photograph,
    png,
    profile,
    saved,
    tiff,
    with_jpeg_segment,
    with_png_chunk,
)
from .readers import exiftool, opened

EXACT = {"png": {}, "jpeg": {"quality": 85}, "webp": {"quality": 85}}
SECRETS = (b"SecretMaker", b"secret comment", b"secret xmp", b"2026:01:02")

every_format = pytest.mark.parametrize("format", FORMATS)


def run(data: bytes, format: Format, quality: int = 80) -> Passthrough:
    return passthrough(data, decode(data, max_pixels=BUDGET), format=format, quality=quality)


def shown(data: bytes) -> np.ndarray:
    """The picture as displayed, alpha included, by another road than `decode`: Pillow's own exif_transpose."""
    return np.asarray(ImageOps.exif_transpose(opened(data)).convert("RGBA"))


def private_file(format: str, orientation: int = 6) -> bytes:
    exif = Image.Exif()
    exif[0x0112], exif[0x010F], exif[0x0132] = orientation, "SecretMaker", "2026:01:02 03:04:05"
    exif.get_ifd(0x8825)[2] = (48.0, 51.0, 29.6)
    options: dict[str, Any] = {"exif": exif, "xmp": b"<x>secret xmp</x>", **EXACT[format]}
    options["icc_profile"] = profile(b"RGB", 2.2, ADOBE_TO_XYZ)
    if format == "png":
        options.pop("xmp")
        return with_png_chunk(saved(photograph(), "PNG", **options), b"tEXt", b"Comment\0secret comment")
    if format == "jpeg":
        options["comment"] = b"secret comment"
    return saved(photograph(), format.upper(), **options)


@every_format
def test_a_file_without_secrets_is_copied_byte_for_byte(format: Format) -> None:
    data = saved(photograph(), format.upper(), icc_profile=profile(b"RGB", 2.2, ADOBE_TO_XYZ), **EXACT[format])
    assert run(data, format) == (data, True, ())


@every_format
def test_a_turned_file_without_secrets_is_copied_too(format: Format) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    data = saved(photograph(), format.upper(), exif=exif, **EXACT[format])
    assert run(data, format).copied


@every_format
@pytest.mark.parametrize("orientation", range(1, 9))
def test_secrets_go_and_every_pixel_stays(format: Format, orientation: int) -> None:
    data = private_file(format, orientation)
    out = run(data, format)
    assert not out.copied
    assert out.notes[0].startswith("private metadata left out: ")
    assert not any(secret in out.body for secret in SECRETS)
    assert shown(out.body).tobytes() == shown(data).tobytes()
    assert opened(out.body).info["icc_profile"] == opened(data).info["icc_profile"]
    again = decode(out.body, max_pixels=BUDGET)
    assert not again.private_metadata
    assert run(out.body, format).copied


@every_format
def test_exiftool_finds_the_orientation_and_nothing_private(format: Format, tmp_path: Path) -> None:
    data = private_file(format)
    assert exiftool(data, tmp_path)["IFD0:Make"] == "SecretMaker"
    found = exiftool(run(data, format).body, tmp_path, "-a", "-n")
    groups = {name.partition(":")[0] for name in found}
    assert groups <= {
        "SourceFile",
        "ExifTool",
        "System",
        "File",
        "JFIF",
        "PNG",
        "RIFF",
        "IFD0",
        "ICC-header",
        "ICC_Profile",
        "Composite",
    }
    assert {name: value for name, value in found.items() if name.startswith("IFD0")} == {"IFD0:Orientation": 6}


def test_what_exiftool_itself_wrote_is_removed(tmp_path: Path) -> None:
    file = tmp_path / "picture.jpg"
    file.write_bytes(saved(photograph(), "JPEG"))
    exiftool(file.read_bytes(), tmp_path)
    tags = [
        "-GPSLatitude=48.85",
        "-GPSLatitudeRef=N",
        "-IPTC:Keywords=SecretMaker",
        "-XMP:Creator=secret xmp",
        "-Comment=secret comment",
    ]
    subprocess.run(["exiftool", "-q", *tags, "-Orientation#=8", str(file)], check=True)
    data = file.read_bytes()
    out = run(data, "jpeg")
    assert set(out.notes[0].removeprefix("private metadata left out: ").split(", ")) == {
        "EXIF",
        "XMP",
        "IPTC",
        "comment",
    }
    assert not any(secret in out.body for secret in SECRETS)
    assert shown(out.body).shape == (64, 48, 4)


def test_a_jpeg_s_thumbnail_further_pictures_and_tail_are_private() -> None:
    plain = saved(photograph(), "JPEG")
    thumbnail = b"JFXX\0\x13" + bytes(12)
    jfif = b"JFIF\0\1\1\0\0\1\0\1\1\1" + b"\x80\x90\xa0"
    files = (
        with_jpeg_segment(plain, 0xE0, thumbnail),
        plain[:2] + b"\xff\xe0" + (len(jfif) + 2).to_bytes(2, "big") + jfif + plain[20:],
        saved(photograph(), "MPO", save_all=True, append_images=[photograph()]),
        plain + b"a video of secret comment",
    )
    for data in files:
        assert run(data, "jpeg").body == plain


def test_a_16_bit_png_keeps_its_depth_when_its_text_goes() -> None:
    data = png((2, 1), 16, 0, b"\0\1\2\3\4", (b"tEXt", b"Comment\0secret comment"))
    assert run(data, "png").body == png((2, 1), 16, 0, b"\0\1\2\3\4")


@pytest.mark.parametrize("source_format", ["PNG", "GIF", "BMP", "TIFF", "JPEG", "WEBP"])
@pytest.mark.parametrize("format", ["png", "webp"])
def test_another_format_holds_the_same_pixels_losslessly(source_format: str, format: Format) -> None:
    data = saved(photograph(), source_format)
    out = run(data, format)
    assert out.copied == (source_format == format.upper())
    assert shown(out.body).tobytes() == shown(data).tobytes()


@pytest.mark.parametrize("format", ["png", "webp"])
def test_colours_beneath_full_transparency_survive_another_format(format: Format) -> None:
    rgba = np.random.default_rng(5).integers(0, 256, (20, 30, 4), dtype=np.uint8)
    rgba[:10, :, 3] = 0
    out = run(tiff(rgba, photometric="rgb", extrasamples=["unassalpha"]), format)
    assert np.array_equal(shown(out.body), rgba)


def test_a_turned_tiff_becomes_an_upright_png() -> None:
    exif = Image.Exif()
    exif[0x0112], exif[0x010F] = 6, "SecretMaker"
    out = run(saved(photograph(), "TIFF", exif=exif), "png")
    assert shown(out.body).tobytes() == np.rot90(np.asarray(photograph().convert("RGBA")), -1).tobytes()
    assert b"SecretMaker" not in out.body


def test_a_jpeg_from_a_transparent_png_says_what_it_lost() -> None:
    picture = photograph((256, 256)).convert("RGBA")
    picture.putalpha(0)
    picture.paste(photograph((256, 128)), (0, 0))
    out = run(saved(picture, "PNG"), "jpeg", quality=60)
    assert out.notes == (
        "jpeg cannot hold the png source's pixels exactly: encoded at quality 95",
        "transparency blended over white",
    )
    seen = np.asarray(opened(out.body)).astype(float)
    assert (seen[200:] > 250).all()
    assert np.abs(seen[:120] - np.asarray(picture)[:120, :, :3]).mean() < 2


@every_format
@pytest.mark.parametrize("target", FORMATS)
def test_a_source_that_says_it_is_ai_goes_on_saying_so(format: Format, target: Format, tmp_path: Path) -> None:
    made = Provenance("secret comment", 0, "m", None, json.dumps({"prompt": "secret xmp"}), "Overpaint")
    out = run(encode(photograph(), format=format, quality=80, provenance=made), target)
    assert exiftool(out.body, tmp_path)["XMP-iptcExt:DigitalSourceType"] == AI
    assert not any(secret in out.body for secret in SECRETS)
    assert not decode(out.body, max_pixels=BUDGET).private_metadata


@every_format
@pytest.mark.parametrize("target", FORMATS)
def test_a_source_that_is_no_ai_is_not_marked(format: Format, target: Format) -> None:
    assert b"DigitalSourceType" not in run(private_file(format), target).body
