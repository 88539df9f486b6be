"""Colours to sRGB, as the picture's own ICC profile says."""

from __future__ import annotations

from io import BytesIO

from PIL import Image, ImageChops, ImageCms

# The spaces that a profile may have for the modes `samples.split` gives.
_SPACES = {"L": "GRAY", "RGB": "RGB", "CMYK": "CMYK"}


def to_srgb(picture: Image.Image, profile: bytes | None) -> tuple[Image.Image, str | None]:
    """The picture as sRGB (mode RGB), and a note where the profile moved colours or had to be ignored.

    `picture` is L, RGB or CMYK. Relative colorimetric with black point compensation. A profile that already is sRGB
    leaves every pixel untouched. A damaged profile, or one of another colour space than the picture's, is ignored: a
    picture without a profile counts as sRGB (CMYK: the plain inverse of its inks).
    """
    if not profile:
        return _plain(picture), None
    try:
        source = ImageCms.ImageCmsProfile(BytesIO(profile))
        space = source.profile.xcolor_space.strip()
        if space != _SPACES[picture.mode]:
            return _plain(picture), f"ICC profile ignored: it is {space}, the picture {picture.mode}"
        transform = ImageCms.buildTransform(
            source,
            ImageCms.createProfile("sRGB"),
            picture.mode,
            "RGB",
            ImageCms.Intent.RELATIVE_COLORIMETRIC,
            ImageCms.Flags.BLACKPOINTCOMPENSATION,
        )
        if _changes_nothing(transform, picture.mode):
            return _plain(picture), None
        converted = ImageCms.applyTransform(picture, transform) or _plain(picture)
        return converted, f"colours converted to sRGB from {ImageCms.getProfileDescription(source).strip()!r}"
    except Exception as error:  # Whatever a damaged profile makes lcms raise: the picture itself is fine.
        return _plain(picture), f"ICC profile ignored: {error}"


def _plain(picture: Image.Image) -> Image.Image:
    return picture if picture.mode == "RGB" else picture.convert("RGB")


def _changes_nothing(transform: ImageCms.ImageCmsTransform, mode: str) -> bool:
    """Whether the transform moves no colour by more than one level: the profile is sRGB under some name."""
    if mode == "CMYK":
        return False
    levels = range(0, 256, 15)
    if mode == "L":
        probe = Image.frombytes("L", (256, 1), bytes(range(256)))
    else:
        probe = Image.frombytes(
            "RGB", (18 * 18, 18), bytes(v for r in levels for g in levels for b in levels for v in (r, g, b))
        )
    moved = ImageCms.applyTransform(probe, transform)
    if moved is None:
        return True
    extremes = ImageChops.difference(moved, probe.convert("RGB")).convert("RGB").getextrema()
    return max(high for _, high in extremes) <= 1  # type: ignore[misc]
