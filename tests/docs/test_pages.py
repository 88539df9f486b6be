"""What the pages name exists: commands, options, make targets, extras, files, links, and the registry example."""

from __future__ import annotations

import importlib.util
import re
import tomllib
from pathlib import Path

import click
import pytest
from PIL import Image

from overpaint_producer.cli import main
from overpaint_producer.cli.demo import STRENGTHS, STYLES
from overpaint_producer.local.scene import draw_scene
from overpaint_worker.engine.registry import Registry
from tests.docs.pages import DOCS, README, ROOT, Page, page, pages

EVERY_PAGE = pytest.mark.parametrize("found", pages(), ids=[found.name for found in pages()])


@EVERY_PAGE
def test_every_command_and_option_exists(found: Page) -> None:
    """Given the calls of `overpaint` on a page, when the command line parses them, then it knows all their words."""
    for words in found.commands("overpaint"):
        command: click.Command = main
        context = click.Context(main)
        while isinstance(command, click.Group) and words and not words[0].startswith("-"):
            known = command.get_command(context, words[0])
            assert known is not None, f"{command.name} {words[0]}"
            command, words = known, words[1:]
            context = click.Context(command, parent=context)
        command.make_parser(context).parse_args(list(words))


def test_commands_are_found_on_the_pages() -> None:
    """Given the README, when its commands are collected, then the reader of pages sees blocks as well as spans."""
    calls = page(README).commands("overpaint")
    assert ["up"] in calls
    assert ["--help"] in calls
    assert any("--strength" in call for call in calls)
    assert any("--feather" in call for call in page(DOCS / "operations" / "inpaint.md").commands("overpaint"))


def test_the_pages_name_every_command() -> None:
    """Given the commands of the command line and their own, when the pages' calls are collected, then each is there."""
    named = [words for found in pages() for words in found.commands("overpaint")]
    for name in main.list_commands(click.Context(main)):
        command = main.get_command(click.Context(main), name)
        assert command is not None
        inner = command.list_commands(click.Context(command)) if isinstance(command, click.Group) else [""]
        for each in inner:
            wanted = [name, each] if each else [name]
            assert any(words[: len(wanted)] == wanted for words in named), wanted


@EVERY_PAGE
def test_every_make_target_exists(found: Page) -> None:
    """Given the calls of `make` on a page, when the Makefile is read, then each target is there."""
    targets = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))
    assert {words[0] for words in found.commands("make") if words} <= targets


@EVERY_PAGE
def test_every_variable_is_one_that_the_settings_page_lists(found: Page) -> None:
    """Given the OVERPAINT_ names of a page, but the tests' own, when the settings page is read, then it has them."""
    named = re.compile(r"OVERPAINT_(?!TEST_)[A-Z0-9_]+")
    assert set(named.findall(found.text)) <= set(named.findall(page(DOCS / "settings.md").text))


@EVERY_PAGE
def test_every_extra_exists(found: Page) -> None:
    """Given the extras that a page installs, when pyproject.toml is read, then it has them."""
    extras = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["optional-dependencies"]
    named = {name for group in re.findall(r"\.\[([a-z][\w,]*)\]", found.text) for name in group.split(",")}
    assert named <= extras.keys()


@EVERY_PAGE
def test_every_link_leads_somewhere(found: Page) -> None:
    """Given the relative links of a page, when they are followed, then file and heading are there."""
    relative = [link for link in found.links if not link.startswith("https://")]
    for link in relative:
        target, _, anchor = link.partition("#")
        file = found.path.parent / target if target else found.path
        assert file.exists(), link
        assert not anchor or anchor in page(file).anchors, link


@EVERY_PAGE
def test_every_file_between_backticks_exists(found: Page) -> None:
    """Given the names of files on a page, when they are looked for, then the repository has them."""
    places = [ROOT, DOCS, *(ROOT / part for part in ("common", "producer", "worker"))]
    for name in (
        word for span in found.spans for word in span.split() if re.fullmatch(r"[\w/-]+\.(py|svg|png|md)", word)
    ):
        assert any((place / name).is_file() for place in places), name


def test_the_registry_example_is_a_registry(tmp_path: Path) -> None:
    """Given the handbook's registry, when a worker reads it, then it has both models, pinned."""
    (block,) = page(DOCS / "handbook.md").blocks("toml")
    file = tmp_path / "models.toml"
    file.write_text(block)
    models = Registry.load(file).models
    assert {spec.family for spec in models.values()} == {"stable-diffusion", "stable-diffusion-xl"}
    assert all(spec.revision is not None for spec in models.values())


def test_the_picture_is_small_marked_and_of_todays_demo(tmp_path: Path) -> None:
    """Given the demo's list of pictures, when docs/picture.py lays them out, then the page has the committed shape."""
    spec = importlib.util.spec_from_file_location("picture", DOCS / "picture.py")
    assert spec is not None
    assert spec.loader is not None
    script = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(script)
    for shot in (*STRENGTHS, *STYLES):
        draw_scene().save(tmp_path / f"{shot.name}.png")
    committed = DOCS / "overpaint.png"
    assert committed.stat().st_size < 150_000
    with Image.open(committed) as kept:
        assert kept.size == script.readme_picture(tmp_path).size
        assert "compositeWithTrainedAlgorithmicMedia" in str(kept.info)
