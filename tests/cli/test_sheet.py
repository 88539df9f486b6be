"""The contact sheet shows every picture and marks itself as made by a model."""

from __future__ import annotations

from pathlib import Path

import pytest
from PIL import Image

from overpaint_producer.local.scene import SIDE, draw_scene
from overpaint_producer.sheet import Row, Tile, contact_sheet, save_sheet

RED, BLUE = (200, 30, 30), (30, 30, 200)


def colours(sheet: Image.Image) -> dict[tuple[int, ...], int]:
    found = sheet.getcolors(maxcolors=1 << 20)
    assert found is not None
    return {colour: count for count, colour in found if isinstance(colour, tuple)}


def test_every_picture_is_there_at_its_full_size() -> None:
    tiles = [Tile(Image.new("RGB", (8, 8), colour), "a") for colour in (RED, BLUE)]
    seen = colours(contact_sheet("title", [Row("row", tiles)], side=100))
    assert (seen[RED], seen[BLUE]) == (100 * 100, 100 * 100)


@pytest.mark.parametrize("size", [(200, 100), (100, 200), (1, 400)])
def test_a_picture_keeps_its_proportions(size: tuple[int, int]) -> None:
    sheet = contact_sheet("title", [Row("row", [Tile(Image.new("RGB", size, RED), "a")])], side=100)
    longest = max(size)
    assert colours(sheet)[RED] == max(1, size[0] * 100 // longest) * max(1, size[1] * 100 // longest)


def test_a_long_caption_wraps_and_the_page_grows() -> None:
    picture = Image.new("RGB", (8, 8), RED)
    short = contact_sheet("title", [Row("row", [Tile(picture, "red")])])
    long = contact_sheet("title", [Row("row", [Tile(picture, "a red house in the snow " * 5)])])
    assert long.width == short.width
    assert long.height > short.height


def test_an_empty_sheet_is_still_a_page() -> None:
    assert contact_sheet("nothing", []).width > 0


def test_the_file_says_that_a_model_had_part_in_it(tmp_path: Path) -> None:
    save_sheet(contact_sheet("title", []), tmp_path / "sheet.png")
    with Image.open(tmp_path / "sheet.png") as sheet:
        assert "compositeWithTrainedAlgorithmicMedia" in sheet.info["XML:com.adobe.xmp"]


def test_the_scene_is_the_same_picture_every_time() -> None:
    scene = draw_scene()
    assert (scene.size, scene.mode) == ((SIDE, SIDE), "RGB")
    assert scene.tobytes() == draw_scene().tobytes()
    assert len(scene.getcolors(1 << 20) or []) > 50
