"""A chart of how much of a trajectory runs: one bar for each strength, or for each pass."""

from __future__ import annotations

from collections.abc import Sequence

from PIL import Image, ImageDraw, ImageFont

from overpaint_common.plan import Stretch

_PAPER, _INK, _FAINT = (252, 251, 248), (32, 33, 36), (110, 112, 118)
_TRACK, _RUN, _GRID, _WARN = (232, 230, 224), (54, 98, 160), (208, 206, 200), (176, 58, 46)
_MARGIN, _ROW, _BAR, _AXIS = 32, 34, 20, 640
_TITLE, _TEXT, _SMALL = 24, 16, 14
"""Letter heights in pixels."""

_STATIONS = 5
"""Labelled stations along the axis of steps, besides the first."""


def steps_chart(title: str, axis: str, planned: Sequence[Stretch]) -> Image.Image:
    """Draw each stretch as a bar from its start step to its last one, over the whole trajectory in grey.

    `axis` names what the bars are labelled with. All bars share one axis of steps, as long as the longest trajectory.
    RGB, about 1000 pixels wide; as high as it has bars.
    """
    longest = max((each.steps for each in planned), default=0) or 1
    labels = _MARGIN + round(max(_width(text, _TEXT) for text in [axis, *(each.label for each in planned)])) + 14
    notes = round(max((_width(_note(each), _SMALL) for each in planned), default=0)) + 14
    top = _MARGIN + round(_TITLE * 2.2) + _ROW
    bottom = top + len(planned) * _ROW
    page = Image.new("RGB", (labels + _AXIS + notes + _MARGIN, bottom + 84 + _MARGIN), _PAPER)
    draw = ImageDraw.Draw(page)
    draw.text((_MARGIN, _MARGIN), title, font=_font(_TITLE), fill=_INK)
    draw.text((labels - 14, top - 12), axis, font=_font(_SMALL), fill=_FAINT, anchor="rs")
    scale = _AXIS / longest
    for step in _stations(longest):
        x = labels + round(step * scale)
        draw.line([(x, top), (x, bottom)], fill=_GRID)
        draw.line([(x, bottom), (x, bottom + 6)], fill=_FAINT)
        draw.text((x, bottom + 10), str(step), font=_font(_SMALL), fill=_FAINT, anchor="ma")
    for row, each in enumerate(planned):
        _bar(draw, labels, top + row * _ROW + _ROW // 2, scale, each)
    draw.line([(labels, bottom), (labels + _AXIS, bottom)], fill=_FAINT)
    draw.text((labels + _AXIS // 2, bottom + 32), "denoising step", font=_font(_SMALL), fill=_FAINT, anchor="ma")
    _legend(draw, labels, bottom + 66)
    return page


def _bar(draw: ImageDraw.ImageDraw, left: int, middle: int, scale: float, each: Stretch) -> None:
    top, bottom = middle - _BAR // 2, middle + _BAR // 2
    draw.text((left - 14, middle), each.label, font=_font(_TEXT), fill=_INK, anchor="rm")
    start, end = (left + round(step * scale) for step in (each.start, each.steps))
    if each.start:
        draw.rectangle((left, top, start, bottom), fill=_TRACK)
    if each.running:
        draw.rectangle((start, top, end, bottom), fill=_RUN)
    colour = _WARN if each.refused else _FAINT
    draw.text((left + _AXIS + 14, middle), _note(each), font=_font(_SMALL), fill=colour, anchor="lm")


def _legend(draw: ImageDraw.ImageDraw, left: int, top: int) -> None:
    for colour, text in ((_RUN, "runs"), (_TRACK, "skipped: what the source already settles")):
        draw.rectangle((left, top, left + 22, top + 12), fill=colour)
        draw.text((left + 30, top + 6), text, font=_font(_SMALL), fill=_FAINT, anchor="lm")
        left += 30 + round(_width(text, _SMALL)) + 28


def _note(each: Stretch) -> str:
    if each.steps == 0:
        return "no model"
    if each.refused:
        return "refused: runs nothing"
    if each.running == 0:
        return "the source itself"
    return f"{each.running} of {each.steps} run"


def _stations(longest: int) -> list[int]:
    """0, the last step and round numbers between."""
    rough = longest / _STATIONS
    magnitude = 10 ** (len(str(max(1, int(rough)))) - 1)
    stride = next((n * magnitude for n in (1, 2, 5, 10) if n * magnitude >= rough), longest)
    inner = [step for step in range(0, longest, stride) if longest - step >= stride / 2 or step == 0]
    return [*inner, longest]


def _font(size: int) -> ImageFont.FreeTypeFont | ImageFont.ImageFont:
    return ImageFont.load_default(size)


def _width(text: str, size: int) -> float:
    return _font(size).getlength(text)
