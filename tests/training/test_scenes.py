from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
import torch

from overpaint_producer.cli.demo import PROMPT
from overpaint_producer.cli.demo import STYLES as SHOTS
from training.captions import caption, full_caption
from training.scenes import SEEDS, attributes_of, draw, family_of, split_seeds
from training.tokenizer import vocabulary_size, word_list, write_tokenizer
from training.words import COLOURS, PALETTE, PLACES, SHAPES, STYLES, Shape, Style


@pytest.mark.parametrize("style", STYLES)
def test_the_same_seed_draws_the_same_scene_and_another_does_not(style: Style) -> None:
    attributes = attributes_of(11).evolve(style=style)

    one, again = draw(attributes, 64), draw(attributes, 64)
    other = draw(attributes_of(12).evolve(style=style), 64)

    assert one.picture.tobytes() == again.picture.tobytes()
    assert np.array_equal(one.mask, again.mask)
    assert one.picture.tobytes() != other.picture.tobytes()


def test_drawing_leaves_the_global_random_state_alone() -> None:
    np.random.seed(0)
    expected = np.random.random()
    np.random.seed(0)

    draw(attributes_of(3), 32)

    assert np.random.random() == expected


@pytest.mark.parametrize("shape", SHAPES)
def test_the_mask_holds_exactly_what_the_objects_colour_changes(shape: Shape) -> None:
    """Painted flat in two colours on a far-away ground, only pixels of the mask or on its edge differ."""
    attributes = attributes_of(5).evolve(style="flat", shape=shape, place="plain", ground="white")

    red, blue = (draw(attributes.evolve(colour=colour), 64) for colour in ("red", "blue"))
    changed = (np.asarray(red.picture) != np.asarray(blue.picture)).any(axis=-1)
    grown = torch.nn.functional.max_pool2d(torch.from_numpy(red.mask)[None].float(), 5, 1, 2)[0].bool().numpy()

    assert np.array_equal(red.mask, blue.mask)
    assert 0.05 < red.mask.mean() < 0.6
    assert not (changed & ~grown).any()
    assert (changed & red.mask).sum() > 0.4 * red.mask.sum()


def test_a_flat_objects_commonest_colour_is_nearest_the_named_one() -> None:
    for index, colour in enumerate(COLOURS):
        scene = draw(attributes_of(index).evolve(style="flat", shape="square", colour=colour), 64)
        inside = np.asarray(scene.picture)[scene.mask].astype(float)
        nearest = min(COLOURS, key=lambda name: np.abs(np.median(inside, axis=0) - PALETTE[name]).sum())
        assert nearest == colour


def test_styles_of_one_scene_differ_and_keep_its_mask() -> None:
    attributes = attributes_of(8)

    scenes = [draw(attributes.evolve(style=style), 64) for style in STYLES]

    for index, scene in enumerate(scenes):
        assert np.array_equal(scene.mask, scenes[0].mask)
        for other in scenes[:index]:
            assert np.abs(np.asarray(scene.picture, float) - np.asarray(other.picture, float)).mean() > 8


def test_a_family_is_two_colours_times_two_styles_of_one_scene() -> None:
    for seed in range(200):
        plain, recoloured, restyled, both = family_of(seed)
        assert plain.colour == restyled.colour != recoloured.colour == both.colour
        assert plain.style == recoloured.style != restyled.style == both.style
        assert {(one.shape, one.place, one.ground, one.seed) for one in (plain, recoloured, restyled, both)} == {
            (plain.shape, plain.place, plain.ground, seed)
        }
        assert plain.ground not in (plain.colour, both.colour)


def test_the_splits_share_no_seed_and_each_draws_from_its_own() -> None:
    train, held_out = SEEDS["train"], SEEDS["held-out"]

    assert train.stop <= held_out.start
    for split, seeds in SEEDS.items():
        assert all(seed in seeds for seed in split_seeds(split, np.random.default_rng(0), 2_000))


def test_seeds_show_every_attribute_about_as_often_as_any_other() -> None:
    drawn = [attributes_of(seed) for seed in range(3_000)]

    attributes: list[tuple[Sequence[str], list[str]]] = [
        (COLOURS, [scene.colour for scene in drawn]),
        (SHAPES, [scene.shape for scene in drawn]),
        (STYLES, [scene.style for scene in drawn]),
        (PLACES[1:], [scene.place for scene in drawn if scene.place != "plain"]),
    ]
    for names, chosen in attributes:
        shares = np.array([chosen.count(name) for name in names]) / len(chosen) * len(names)
        assert (shares > 0.75).all()
        assert (shares < 1.25).all()


def test_captions_and_the_demos_prompts_are_made_of_known_words() -> None:
    rng = np.random.default_rng(0)
    texts = [PROMPT, *(shot.prompt for shot in SHOTS)]
    for seed in range(1_500):
        texts += [caption(attributes_of(seed), rng), full_caption(attributes_of(seed))]

    used = {word for text in texts for word in re.findall(r"[a-z]+", text)}

    assert used <= set(word_list())
    assert not any("{" in text for text in texts)


def test_known_words_are_one_token_and_other_text_still_tokenises(tmp_path: Path) -> None:
    tokenizer = write_tokenizer(tmp_path)

    assert len(tokenizer) == vocabulary_size()
    assert tokenizer.model_max_length == 32
    for word in word_list():
        assert tokenizer.tokenize(word) == [f"{word}</w>"]
    assert tokenizer.tokenize("a blue car on grass, watercolor") == [
        "a</w>", "blue</w>", "car</w>", "on</w>", "grass</w>", ",</w>", "watercolor</w>",
    ]  # fmt: skip
    unknown = tokenizer.unk_token_id
    for text in ("naïve zebra №7!", "日本 🎨", "8 bit"):
        assert unknown not in tokenizer(text)["input_ids"][1:-1]
