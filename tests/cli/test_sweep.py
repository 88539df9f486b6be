"""`overpaint sweep` without a worker: which jobs it makes, what it refuses, and how its page is laid out."""

from __future__ import annotations

from itertools import product
from typing import Any

import pytest
from PIL import Image

from overpaint_common.errors import StrengthTooSmall
from overpaint_producer.cli.sweep_sheet import MOST_COLUMNS, SIDE, Axes, Cell, grid, page, words
from tests.cli.conftest import Place

PAPER = (252, 251, 248)
SOURCE = (1, 2, 3)


def swept(place: Place, *arguments: str) -> str:
    """Sweep while nobody works: the jobs are accepted, the wait ends at once. What it said."""
    done = place.run("sweep", str(place.source), str(place.output), *arguments, "--timeout", "0")
    assert done.exit_code == 4, done.output
    return done.stderr


def refused(place: Place, *arguments: str) -> str:
    done = place.run("sweep", str(place.source), str(place.output), *arguments)
    assert (done.exit_code, done.stdout) == (2, ""), done.output
    assert place.requests() == []
    return done.stderr


def laid_out(axes: Axes, cells: list[Cell], *, original: bool = True) -> Image.Image:
    source = Image.new("RGB", (10, 10), SOURCE) if original else None
    return page("a cat", axes, cells, source, footer="Painted by mini.")


def squares(sheet: Image.Image) -> dict[Any, list[tuple[int, int]]]:
    """Where each plain picture of full size stands, by its colour: columns and rows in pixels."""
    found: dict[Any, list[tuple[int, int]]] = {}
    pixels = sheet.load()
    assert pixels is not None
    y = 0
    while y < sheet.height:
        line = [pixels[x, y] for x in range(sheet.width)]
        x, any_found = 0, False
        while x < sheet.width:
            colour = line[x]
            if colour != PAPER and line[x : x + SIDE] == [colour] * SIDE:
                found.setdefault(colour, []).append((x, y))
                x, any_found = x + SIDE, True
            else:
                x += 1
        y += SIDE if any_found else 1
    return found


def painted(values: dict[str, Any], colour: tuple[int, int, int]) -> Cell:
    return Cell(values, picture=Image.new("RGB", (SIDE, SIDE), colour), change=1.0)


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (("--strengths", "0.3,0.6", "--guidance", "1,4,8"), product((0.3, 0.6), (1, 4, 8), (0,), ("a cat",))),
        (("--seeds", "5,6,7", "-s", "0.7", "--seed", "9"), product((0.7,), (4,), (5, 6, 7), ("a cat",))),
        (
            ("--style", "oils", "--style", "ink", "--strengths", "0.4,0.8", "--seed", "9"),
            product((0.4, 0.8), (4,), (9,), ("a cat, oils", "a cat, ink")),
        ),
    ],
    ids=["strengths-guidance", "seeds", "styles-strengths"],
)
def test_every_combination_is_a_job(place: Place, arguments: tuple[str, ...], expected: Any) -> None:
    """Given axes, when they are swept, then there is one job for each combination, and all else is the same."""
    swept(place, "-p", "a cat", *arguments)
    jobs = place.requests()
    found = {(p["strength"], p["guidance_scale"], p["seed"], p["prompt"]) for job in jobs for p in job["passes"]}
    wanted = set(expected)
    assert found == wanted
    assert len(jobs) == len(wanted)


def test_a_job_says_which_cell_it_is(place: Place) -> None:
    """Given two axes and a label, when they are swept, then each job's labels hold its values."""
    swept(place, "-p", "a cat", "--strengths", "0.5", "--style", "oils", "--label", "order=7")
    (job,) = place.requests()
    assert job["labels"] == {"order": "7", "sweep.strength": "0.5", "sweep.style": "oils"}


def test_the_same_sweep_under_a_key_goes_on(place: Place) -> None:
    """Given a sweep that broke off, when it comes again under its key with one more value, then the jobs of the first
    are taken up and one is new."""
    swept(place, "-p", "a cat", "--seeds", "1,2", "--key", "k")
    first = {job["id"] for job in place.requests()}
    swept(place, "-p", "a cat", "--seeds", "1,2,3", "--key", "k")
    again = {job["id"] for job in place.requests()}
    assert first < again
    assert (len(first), len(again)) == (2, 3)


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("-p", "x"), "sweep one or two of --strengths, --guidance, --seeds and --style, not none"),
        (("-p", "x", "--strengths", "0.1", "--guidance", "1", "--seeds", "1"), "and --style, not 3"),
        (("--strengths", "0.5"), "say what the picture should become"),
        (("-p", "x", "--strengths", "0.5", "-s", "0.2"), "--strengths gives the values: leave out --strength"),
        (("-p", "x", "--guidance", "2", "-g", "3"), "--guidance gives the values: leave out --guidance-scale"),
        (("-p", "x", "--strengths", "0.5", "--sheet", "nowhere/sheet.png"), "there is no folder 'nowhere'"),
        (("-p", "x", "--strengths", "0.5", "--mask", "nowhere.png"), "there is no file 'nowhere.png' for the mask"),
        (("-p", "x", "--seeds", ",".join(map(str, range(257)))), "257 cells; sweep at most 256 at once"),
        (("-p", "x", "--seeds", "1.5"), "'1.5' is no list of whole numbers"),
        (("-p", "x", "--strengths", "0.5", "--seed", "-4"), "(given: -4)"),
        (("-p", "x", "--strengths", "0.2", "--preset", "progressive"), "3 painting passes, which cannot share one"),
        (("-p", "x", "--strengths", "0.001,0.002"), "error[strength_too_small]: pass 0: strength 0.001 of 40 steps"),
        (("-p", "x", "--strengths", "0.5", "--model", "sdxl"), "error[unknown_model]"),
    ],
)
def test_what_cannot_be_swept_is_named(place: Place, arguments: tuple[str, ...], said: str) -> None:
    """Given axes or options that do not go together, when they are swept, then the message names them; no job is."""
    assert said in refused(place, *arguments)


def test_each_picture_stands_at_its_values() -> None:
    """Given three strengths at two guidance scales, when the page is laid out, then columns are strengths and rows
    guidance scales, each row behind the source."""
    axes: Axes = {"strength": (0.2, 0.4, 0.6), "guidance_scale": (1.0, 8.0)}
    columns, rows = grid(axes)
    cells = [
        painted({**column, **row}, (50 * x + 50, 100 * y + 50, 200))
        for y, row in enumerate(rows)
        for x, column in enumerate(columns)
    ]
    found = squares(laid_out(axes, cells))
    assert set(found) == {SOURCE, *((50 * x + 50, 100 * y + 50, 200) for x in range(3) for y in range(2))}
    (top, bottom) = sorted(y for _, y in found[SOURCE])
    for row, height in enumerate((top, bottom)):
        places = [found[(50 * x + 50, 100 * row + 50, 200)] for x in range(3)]
        assert [y for place in places for _, y in place] == [height] * 3
        across = [x for place in places for x, _ in place]
        assert across == sorted(across)
        assert found[SOURCE][0][0] < across[0]


def test_a_long_row_goes_on_in_the_next_line() -> None:
    """Given 20 seeds, when the page is laid out, then it is eight pictures wide and shows them all in order."""
    axes: Axes = {"seed": tuple(range(20))}
    cells = [painted({"seed": seed}, (10 * seed, 90, 90)) for seed in range(20)]
    sheet = laid_out(axes, cells)
    found = squares(sheet)
    order = sorted(((y, x, colour) for colour, at in found.items() for x, y in at))
    assert [colour for _, _, colour in order] == [SOURCE, *((10 * seed, 90, 90) for seed in range(20))]
    assert len({x for _, x, _ in order}) == MOST_COLUMNS
    assert len({y for y, _, _ in order}) == 3
    assert sheet.width < MOST_COLUMNS * (SIDE + 24)


def test_a_cell_without_a_picture_says_why_in_its_place() -> None:
    """Given a cell that was refused, when the page is laid out, then its place is kept and the page has its reason."""
    axes: Axes = {"strength": (0.01, 0.9)}
    reason = StrengthTooSmall("strength 0.01 of 40 steps leaves no step to run; " + "use steps >= 100 " * 20)
    good = painted({"strength": 0.9}, (9, 99, 199))
    with_reason = laid_out(axes, [Cell({"strength": 0.01}, error=reason), good], original=False)
    without = laid_out(axes, [painted({"strength": 0.01}, (99, 9, 199)), good], original=False)
    assert squares(with_reason)[(9, 99, 199)] == squares(without)[(9, 99, 199)]
    assert with_reason.height > without.height


@pytest.mark.parametrize("style", ["oils", "watercolor and ink on rough handmade paper " * 5, "x" * 400])
def test_no_label_is_cut_off(style: str) -> None:
    """Given labels of any length, when the page is laid out, then its margin stays empty and each tile's label ends
    before the next tile."""
    axes: Axes = {"style": (style, "neon")}
    cells = [painted({"style": style}, (9, 99, 199)), painted({"style": "neon"}, (99, 9, 199))]
    sheet = laid_out(axes, cells, original=False)
    inside = sheet.crop((20, 20, sheet.width - 20, sheet.height - 20))
    blank = Image.new("RGB", sheet.size, PAPER)
    blank.paste(inside, (20, 20))
    assert blank.tobytes() == sheet.tobytes()
    (left, top) = squares(sheet)[(9, 99, 199)][0]
    gap = sheet.crop((left + SIDE + 1, top, left + SIDE + 15, sheet.height))
    assert gap.getcolors() == [(gap.width * gap.height, PAPER)]


def test_values_are_spelt_as_people_do() -> None:
    """Given values of every axis, when they are put in words, then numbers are short and styles are as written."""
    assert words({"strength": 0.30000000000000004, "guidance_scale": 7.0}) == "strength 0.3, guidance 7"
    assert words({"style": "oil painting", "seed": 12}) == "oil painting, seed 12"
