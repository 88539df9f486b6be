"""The worker warns of parameters that work against the job, and of nothing that was wanted."""

from __future__ import annotations

from typing import Any

import pytest
from PIL import Image

from overpaint_common.fleet import ModelCard
from overpaint_common.job import Job, Output
from overpaint_common.passes import OPERATIONS, Edit, Img2Img, Inpaint, MatchColor, Pass, Upscale
from overpaint_common.presets import PRESETS, passes
from overpaint_worker.imaging.placement import Size
from overpaint_worker.operations.advice import (
    COLOURS_LOST,
    FAR_FROM_NATIVE,
    HOLDS,
    colours_lost,
    far_from_native,
    may_lose_colours,
    names_colours,
)
from tests.imaging.files import photograph
from tests.support.cards import model_card

MASK = "s3://inbox/mask.png"
STYLE = "oil painting, thick strokes"


def job(*passes: Pass) -> Job:
    return Job(source="s3://inbox/cat.png", model="m", passes=passes, output=Output(prefix="s3://outbox/"))


def card(name: str = "m", native_size: int = 512) -> ModelCard:
    return model_card(
        name,
        operations=OPERATIONS,
        native_size=native_size,
        default_steps=50,
        default_guidance_scale=7.5,
        max_steps=200,
        max_size=8192,
    )


CARDS = {"m": card(), "xl": card("xl", 1024), "x4": card("x4", 128)}


def painted(**fields: Any) -> Img2Img:
    return Img2Img(**{"prompt": STYLE, "strength": 0.8, **fields})


@pytest.mark.parametrize(
    ("size", "steps", "told"),
    [
        ((512, 512), (painted(),), []),
        ((680, 384), (painted(),), []),
        ((512, 104), (painted(),), ["'m' worked at 512 x 104"]),
        ((1024, 1024), (painted(),), ["'m' worked at 1024 x 1024"]),
        ((512, 512), (painted(), painted(model="xl")), ["'xl' worked at 512 x 512"]),
        ((1024, 1024), (painted(), painted(), painted(model="xl")), ["'m' worked at 1024 x 1024"]),
        ((1024, 1024), (painted(strength=0), MatchColor()), []),
        ((1024, 768), (Upscale(model="x4"),), []),
        ((1024, 768), (Inpaint(mask=MASK, only_masked=True),), []),
        ((1024, 768), (Inpaint(mask=MASK),), ["'m' worked at 1024 x 768"]),
        ((1024, 768), (Edit(prompt="make it winter"),), ["'m' worked at 1024 x 768"]),
        ((512, 512), (painted(enlarge=2, strength=0.3), painted(strength=0.2)), []),
        ((512, 512), (painted(enlarge=2, strength=0.7),), ["'m' worked at 1024 x 1024"]),
        ((512, 512), (Upscale(model="x4"), painted(strength=0.3)), []),
        ((128, 128), (Upscale(model="x4"), painted()), []),
        ((512, 512), (Upscale(model="x4"), painted()), ["'m' worked at 2048 x 2048"]),
    ],
)
def test_sizes_far_from_native_are_told_once_a_model(size: Size, steps: tuple[Pass, ...], told: list[str]) -> None:
    """Given passes on models of several sizes, when the size that each works at is held against its own, then those far
    off are named, but for tiles, masked regions, and enlarged pictures at strengths that hold them."""
    notes = far_from_native(job(*steps), size, CARDS)
    assert [note.code for note in notes] == ["size_far_from_native"] * len(told)
    for note, text in zip(notes, told, strict=True):
        assert text in note.message


@pytest.mark.parametrize("factor", [FAR_FROM_NATIVE, 1 / FAR_FROM_NATIVE], ids=["larger", "smaller"])
def test_the_limit_is_what_the_pages_say(factor: float) -> None:
    """Given pictures a little within and a little beyond the limit, when they are judged, then only the latter are
    told, with a remedy."""
    side = 512 * factor**0.5
    off = 8 if factor > 1 else -8
    inside, outside = round(side - off), round(side + off)
    assert far_from_native(job(painted()), (inside, inside), CARDS) == ()
    (note,) = far_from_native(job(painted()), (outside, outside), CARDS)
    assert "prepare" in note.message


@pytest.mark.parametrize(
    "prompt",
    [
        "a blue car on a city street",
        "REDDISH light",
        "vibrant blues and warm oranges",
        "golden crown",
        "keep the original color palette",
        "Colourful umbrellas",
        "pencil sketch with cross-hatching",
        "dramatic sunset lighting",
        "black-and-white photograph",
        "monochrome",
        "a snowy street",
    ],
)
def test_prompts_that_name_colours(prompt: str) -> None:
    """Given prompts that ask for colours, or for a light or technique with its own, then they are known as such."""
    assert names_colours(prompt)


@pytest.mark.parametrize(
    "prompt", ["", STYLE, "watercolor with soft edges", "a tired hare in Greenland", "stone wall", "professional photo"]
)
def test_prompts_that_name_none(prompt: str) -> None:
    """Given prompts without a colour, some with one inside a word, then they are known as such."""
    assert not names_colours(prompt)


@pytest.mark.parametrize(
    ("steps", "may"),
    [
        ((painted(),), True),
        ((painted(strength=HOLDS),), False),
        ((painted(prompt="a red barn"),), False),
        ((painted(negative_prompt="blue"),), True),
        ((painted(), painted(strength=0.2, prompt="golden light")), False),
        ((painted(), painted(strength=0, prompt="golden light")), True),
        ((painted(), MatchColor()), False),
        ((painted(), MatchColor(amount=0)), True),
        ((MatchColor(), painted()), True),
        ((painted(), MatchColor(), painted(strength=0.3)), False),
        ((painted(), Inpaint(mask=MASK, prompt="a beach")), False),
        ((Edit(prompt="make it winter"), painted()), False),
        ((Upscale(prompt="sharp"),), False),
        ((painted(), Upscale(prompt="sharp, blue")), True),
    ],
)
def test_when_colours_may_be_lost(steps: tuple[Pass, ...], may: bool) -> None:
    """Given chains of passes, when their parameters are read, then only those that may carry colours off unasked are
    suspected."""
    assert may_lose_colours(steps) is may


def test_no_preset_that_keeps_colours_is_suspected() -> None:
    """Given all presets with a prompt about style alone, then just those beyond the strength that holds colours, with
    no match after it, are suspected."""
    made = {name: passes(name, STYLE, **({"mask": MASK} if preset.needs else {})) for name, preset in PRESETS.items()}
    suspected = [name for name, steps in made.items() if may_lose_colours(steps)]
    assert suspected == ["balanced", "heavy", "style-transfer", "keep-composition", "progressive", "staged"]


def flat(grey: int) -> Image.Image:
    return Image.new("RGB", (48, 64), (grey, grey, grey))


def lightness(grey: int) -> float:
    """L* of an 8-bit grey above the dark ones: sRGB's curve (IEC 61966-2-1), then CIE 15:2004."""
    luminance: float = ((grey / 255 + 0.055) / 1.055) ** 2.4
    return float(116 * luminance ** (1 / 3) - 16)


def test_lost_colours_are_told_beyond_the_limit_and_of_the_worst_variant() -> None:
    """Given a grey and lighter ones, when the palettes are compared, then one note comes beyond the limit, with the
    distance of the variant that is furthest: the difference in L*."""
    source, near, far = flat(100), flat(130), flat(200)
    assert lightness(130) - lightness(100) < COLOURS_LOST
    assert colours_lost(job(painted()), source, [near]) == ()
    (note,) = colours_lost(job(painted()), source, [near, far, near])
    assert note.code == "colours_lost"
    assert f"the colours are {lightness(200) - lightness(100):.0f} from" in note.message
    assert colours_lost(job(painted(prompt="white")), source, [far]) == ()


def test_the_same_colours_at_another_size_or_place_are_not_lost() -> None:
    """Given a picture that was enlarged and turned, when its palette is compared, then nothing is told."""
    turned = photograph((64, 48)).resize((640, 480)).transpose(Image.Transpose.ROTATE_180)
    assert colours_lost(job(painted(strength=1)), photograph((64, 48)), [turned]) == ()
