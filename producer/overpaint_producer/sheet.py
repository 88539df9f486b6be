"""A contact sheet: many pictures on one page, each with its caption."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from PIL import Image, ImageChops, ImageDraw, ImageFont, ImageStat
from PIL.PngImagePlugin import PngInfo

_PAPER, _INK, _FAINT = (252, 251, 248), (32, 33, 36), (110, 112, 118)
_MARGIN, _GAP = 28, 16
_TITLE, _HEADING, _CAPTION, _DETAIL = 26, 17, 15, 13
"""Letter heights in pixels."""

_XMP = """<?xpacket begin="\ufeff" id="W5M0MpCehiHzreSzNTczkc9d"?>
<x:xmpmeta xmlns:x="adobe:ns:meta/"><rdf:RDF xmlns:rdf="http://www.w3.org/1999/02/22-rdf-syntax-ns#">
<rdf:Description rdf:about="" xmlns:Iptc4xmpExt="http://iptc.org/std/Iptc4xmpExt/2008-02-29/"
 Iptc4xmpExt:DigitalSourceType="http://cv.iptc.org/newscodes/digitalsourcetype/compositeWithTrainedAlgorithmicMedia"/>
</rdf:RDF></x:xmpmeta>
<?xpacket end="w"?>"""

_Font = ImageFont.FreeTypeFont | ImageFont.ImageFont


@dataclass(frozen=True, slots=True)
class Tile:
    """One picture of the sheet."""

    picture: Image.Image
    caption: str
    """In dark letters below it."""
    detail: str = ""
    """In fainter ones below that."""


@dataclass(frozen=True, slots=True)
class Row:
    """Pictures that belong together."""

    heading: str
    tiles: Sequence[Tile]


def contact_sheet(title: str, rows: Sequence[Row], *, footer: str = "", side: int = 192) -> Image.Image:
    """Lay the rows out under each other; every picture is fitted into a square of `side` pixels by Lanczos.

    Captions wrap within their tile. The page grows with its content: RGB, wide enough for the longest row.
    """
    columns = max((len(row.tiles) for row in rows), default=1)
    width = 2 * _MARGIN + columns * side + (columns - 1) * _GAP
    page = _Page(width)
    page.text(title, _TITLE, _INK, space=10)
    for row in rows:
        page.text(row.heading, _HEADING, _FAINT, space=10)
        page.tiles(row.tiles, side)
    if footer:
        page.text(footer, _DETAIL, _FAINT, space=0)
    return page.finished()


def save_sheet(sheet: Image.Image, file: Path) -> None:
    """Write a PNG that is marked, for machines, as made in part by a trained model (IPTC digital source type)."""
    notes = PngInfo()
    notes.add_itxt("XML:com.adobe.xmp", _XMP)
    sheet.save(file, format="PNG", pnginfo=notes, optimize=True)


def mean_change(picture: Image.Image, original: Image.Image) -> float:
    """Mean absolute difference over pixels and channels, 0 to 255, at the original's size."""
    same_size = picture.resize(original.size, Image.Resampling.LANCZOS)
    means = ImageStat.Stat(ImageChops.difference(same_size, original)).mean
    return float(sum(means) / len(means))


class _Page:
    """Paper that is filled from the top; drawn once its height is known."""

    def __init__(self, width: int) -> None:
        self._width = width
        self._y = _MARGIN
        self._marks: list[tuple[int, int, Image.Image | str, int, tuple[int, int, int]]] = []

    def text(self, text: str, size: int, colour: tuple[int, int, int], *, space: int) -> None:
        self._y = self._lines(text, _MARGIN, self._y, self._width - 2 * _MARGIN, size, colour) + space

    def tiles(self, tiles: Sequence[Tile], side: int) -> None:
        top, lowest = self._y, self._y
        for column, tile in enumerate(tiles):
            x = _MARGIN + column * (side + _GAP)
            self._marks.append((x, top, _fitted(tile.picture, side), 0, _INK))
            y = self._lines(tile.caption, x, top + side + 6, side, _CAPTION, _INK)
            lowest = max(lowest, self._lines(tile.detail, x, y, side, _DETAIL, _FAINT))
        self._y = lowest + 22

    def finished(self) -> Image.Image:
        page = Image.new("RGB", (self._width, self._y + _MARGIN), _PAPER)
        draw = ImageDraw.Draw(page)
        for x, y, mark, size, colour in self._marks:
            if isinstance(mark, str):
                draw.text((x, y), mark, font=ImageFont.load_default(size), fill=colour)
            else:
                page.paste(mark, (x, y))
        return page

    def _lines(self, text: str, x: int, y: int, width: int, size: int, colour: tuple[int, int, int]) -> int:
        for line in _wrapped(text, ImageFont.load_default(size), width):
            self._marks.append((x, y, line, size, colour))
            y += round(size * 1.35)
        return y


def _fitted(picture: Image.Image, side: int) -> Image.Image:
    scale = side / max(picture.size)
    size = tuple(max(1, round(pixels * scale)) for pixels in picture.size)
    square = Image.new("RGB", (side, side), _PAPER)
    resized = picture.convert("RGB").resize((size[0], size[1]), Image.Resampling.LANCZOS)
    square.paste(resized, ((side - size[0]) // 2, (side - size[1]) // 2))
    return square


def _wrapped(text: str, font: _Font, width: int) -> list[str]:
    """The text in lines of at most `width` pixels; a word that is wider is broken."""
    lines: list[str] = []
    for word in (part for whole in text.split() for part in _parts(whole, font, width)):
        if lines and font.getlength(f"{lines[-1]} {word}") <= width:
            lines[-1] += f" {word}"
        else:
            lines.append(word)
    return lines


def _parts(word: str, font: _Font, width: int) -> list[str]:
    parts = [word]
    while len(parts[-1]) > 1 and font.getlength(parts[-1]) > width:
        last = parts.pop()
        fitting = max((n for n in range(1, len(last)) if font.getlength(last[:n]) <= width), default=1)
        parts += [last[:fitting], last[fitting:]]
    return parts
