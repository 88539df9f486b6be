"""What was encoded once is not encoded again, within so many bytes, and no picture shows it."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from overpaint_worker.engine.caches import ByteCache
from overpaint_worker.engine.calls import Call, Painted
from overpaint_worker.engine.loading import Tuning
from overpaint_worker.engine.model import PipelineModel
from overpaint_worker.engine.registry import FileSpec
from overpaint_worker.engine.routines import Routine
from overpaint_worker.engine.statistics import CacheUse, Statistics
from tests.engine.crowds import at_once, crowd, engine_on, staggered
from tests.engine.direct import call, noise_picture
from tests.engine.tiny_families import ENTRIES, INPAINT, SIDE, Shelf
from tests.support.tiny_models import tiny_lora

TOLERANCE = 1e-4
SOURCE = noise_picture(SIDE, SIDE)
FEW = ("sd", "sd3")
NAMES = [*FEW, *(pytest.param(name, marks=pytest.mark.long) for name in ENTRIES if name not in FEW)]


@pytest.fixture(scope="module")
def shelf(tmp_path_factory: pytest.TempPathFactory) -> Shelf:
    return Shelf(tmp_path_factory.mktemp("caches"))


# Within so many bytes


def texts(limit: int) -> ByteCache[str]:
    """A cache of texts that counts a byte for each letter."""
    return ByteCache(limit, len)


def test_what_was_put_is_found_and_counted() -> None:
    cache = texts(10)
    cache.put("a", "four")

    assert (cache.get("a"), cache.get("b")) == ("four", None)
    assert cache.use == CacheUse(hits=1, misses=1, bytes=4)


def test_the_least_recently_used_makes_room() -> None:
    cache = texts(10)
    for key in ("a", "b", "c"):
        cache.put(key, "xyz")
    cache.get("a")

    cache.put("d", "xyz")

    assert [key for key in "abcd" if cache.get(key)] == ["a", "c", "d"]
    assert cache.use.bytes == 9


def test_a_large_value_makes_as_much_room_as_it_takes() -> None:
    cache = texts(10)
    for key in ("a", "b", "c"):
        cache.put(key, "xyz")

    cache.put("d", "x" * 5)

    assert [key for key in "abcd" if cache.get(key)] == ["c", "d"]
    assert cache.use.bytes == 8


def test_one_that_is_larger_than_all_is_not_kept_and_drives_nothing_out() -> None:
    cache = texts(10)
    cache.put("a", "four")

    cache.put("b", "x" * 11)

    assert (cache.get("a"), cache.get("b")) == ("four", None)


def test_a_key_that_is_put_again_counts_once() -> None:
    cache = texts(10)
    cache.put("a", "four")
    cache.put("a", "seventy")

    assert (cache.get("a"), cache.use.bytes) == ("seventy", 7)

    cache.put("a", "x" * 11)

    assert (cache.get("a"), cache.use.bytes) == (None, 0)


def test_a_cache_that_is_cleared_remembers_what_it_counted() -> None:
    cache = texts(10)
    cache.put("a", "four")
    cache.get("a")

    cache.clear()

    assert cache.get("a") is None
    assert cache.use == CacheUse(hits=1, misses=1, bytes=0)


# Of a model


@contextmanager
def forwards(model: PipelineModel) -> Iterator[dict[str, list[int]]]:
    """The rows of each forward of what computes one item a time, by the part."""
    pipeline = model._faces.own
    parts = {"text": pipeline.text_encoder, "encoder": pipeline.vae.encoder, "decoder": pipeline.vae.decoder}
    if hasattr(pipeline, "text_encoder_2"):
        parts["text 2"] = pipeline.text_encoder_2
    seen: dict[str, list[int]] = {name: [] for name in parts}

    def see(name: str) -> Callable[..., None]:
        return lambda _, given, named: seen[name].append(len([*given, *named.values()][0]))

    hooks = [part.register_forward_pre_hook(see(name), with_kwargs=True) for name, part in parts.items()]
    try:
        yield seen
    finally:
        for hook in hooks:
            hook.remove()


def paint(
    model: PipelineModel, calls: Sequence[Call], arrive: Callable[..., list[Painted]] = at_once
) -> tuple[list[Painted], Statistics]:
    with engine_on(model) as engine:
        return arrive(engine, calls), engine.statistics()


def asked(**changes: Any) -> Call:
    return call("sd", SOURCE, **changes)


def pixels(painted: Sequence[Painted]) -> list[bytes]:
    return [each.pixels.tobytes() for each in painted]


@pytest.mark.parametrize("name", NAMES)
def test_texts_and_pictures_are_encoded_and_decoded_one_at_a_time(shelf: Shelf, name: str) -> None:
    """Given a crowd, when it runs, then no forward of a text encoder or of the VAE has two rows."""
    model, calls = shelf.load(name), [each.call for each in crowd(name)]

    with forwards(model) as seen:
        paint(model, calls)

    assert all(set(rows) == {1} for part, rows in seen.items() if rows), seen
    assert len(seen["decoder"]) == len(calls)


def test_the_same_prompts_are_encoded_once(shelf: Shelf) -> None:
    """Given variants and operations with one prompt and one negative prompt, then each text goes through once."""
    model = shelf.load("sd", controls={})
    calls = [asked(negative_prompt="a house", seed=seed, strength=strength) for seed, strength in ((1, 0.5), (2, 0.9))]
    calls.append(replace(calls[0], picture=noise_picture(SIDE, SIDE, seed=3), **INPAINT))

    with forwards(model) as seen:
        paint(model, calls, staggered)
        _, statistics = paint(model, calls)

    assert seen["text"] == [1, 1]
    assert (statistics.caches["prompts"].hits, statistics.caches["prompts"].misses) == (5, 1)


def test_calls_that_wait_for_the_same_encode_it_once(shelf: Shelf) -> None:
    """Given two variants that both got as far as wanting the same texts and source encoded, then each is once."""
    model = shelf.load("sd", controls={})
    routines = [Routine(partial(model.run, asked(seed=seed), lambda _: None)) for seed in (1, 2)]

    with forwards(model) as seen:
        for routine in routines:
            routine.go_on()
        while waiting := [(routine, turn) for routine in routines if (turn := routine.turn) is not None]:
            for routine, turn in waiting:
                routine.go_on(turn.compute([turn.wanted])[0])

    assert (seen["text"], seen["encoder"], seen["decoder"]) == ([1, 1], [1], [1, 1])
    assert {name: (use.hits, use.misses) for name, use in model.caches().items()} == {
        "prompts": (1, 1),
        "posteriors": (1, 1),
    }


@pytest.mark.parametrize("change", [{"prompt": "a lake"}, {"negative_prompt": "a lake"}, {"guidance_scale": 1.0}])
def test_other_prompts_are_encoded_anew(shelf: Shelf, change: dict[str, Any]) -> None:
    """Given another prompt, another negative one, or none for want of guidance, then nothing is taken from before."""
    model, first = shelf.load("sd", controls={}), asked(negative_prompt="a house")
    other = replace(first, **change)
    cold, _ = paint(shelf.load("sd", controls={}), [other])

    with forwards(model) as seen:
        paint(model, [first])
        warm, statistics = paint(model, [other])

    assert len(seen["text"]) == (3 if "guidance_scale" in change else 4)
    assert (statistics.caches["prompts"].hits, statistics.caches["prompts"].misses) == (0, 2)
    assert pixels(warm) == pixels(cold)


def test_variants_and_styles_of_a_source_encode_it_once(shelf: Shelf) -> None:
    """Given one source, when it is painted with other seeds, prompts and strengths, then the VAE encodes it once, and
    each is still what diffusers makes of it: the noise that a seed draws for it was not kept."""
    model, (kind, *_) = shelf.load("sd", controls={}), ENTRIES["sd"].kinds
    calls = [asked(seed=seed, prompt=prompt) for seed in (1, 2) for prompt in ("a red cat", "a lake")]
    calls.append(asked(seed=1, strength=1.0))

    with forwards(model) as seen:
        painted, statistics = paint(model, calls, staggered)

    assert seen["encoder"] == [1]
    assert (statistics.caches["posteriors"].hits, statistics.caches["posteriors"].misses) == (4, 1)
    for each, ours in zip(calls, painted, strict=True):
        assert np.abs(ours.pixels - shelf.solo(kind, each).pixels).max() <= TOLERANCE


def test_other_sources_are_encoded_anew(shelf: Shelf) -> None:
    """Given a source that differs in one pixel, when it is painted, then it is encoded for itself."""
    model, other = shelf.load("sd", controls={}), SOURCE.copy()
    other.putpixel((31, 31), (0, 0, 0))
    given = [asked(reproducible=True), replace(asked(reproducible=True), picture=other)]

    with forwards(model) as seen:
        painted, _ = paint(model, given)

    assert seen["encoder"] == [1, 1]
    assert pixels(painted) == [pixels(paint(shelf.load("sd", controls={}), [each])[0])[0] for each in given]


@pytest.mark.parametrize("name", ["sd", "sdxl", "flux"])
def test_an_inpainting_of_a_source_finds_what_its_repainting_left(shelf: Shelf, name: str) -> None:
    """Given a repainted source, when it is inpainted too, then no more is encoded than the picture without the mask."""
    model, given = shelf.load(name, controls={}), call(name, SOURCE)

    with forwards(model) as seen:
        paint(model, [given])
        _, statistics = paint(model, [replace(given, **INPAINT)])

    assert len(seen["encoder"]) == 2
    assert (statistics.caches["posteriors"].hits, statistics.caches["posteriors"].misses) == (1, 2)


def test_texts_read_through_a_lora_are_kept_apart(shelf: Shelf, tmp_path: Path) -> None:
    """Given a LoRA in the text encoder, when calls with it and without take turns, then each reads its own."""
    file = tiny_lora(tmp_path / "ink.safetensors", shelf.folder("sd"), seed=31)
    loras = {"ink": FileSpec(path=file)}
    calls = [asked(), asked(loras=(("ink", 0.8),)), asked(loras=(("ink", 0.3),))]
    cold = [pixels(paint(shelf.load("sd", controls={}, loras=loras), [each])[0])[0] for each in calls]
    model = shelf.load("sd", controls={}, loras=loras)

    with forwards(model) as seen:
        warm = [pixels(paint(model, [each])[0])[0] for each in (*calls, *calls)]

    assert warm == cold + cold
    assert len(set(cold)) == 3
    # Prompt and negative prompt, for each.
    assert len(seen["text"]) == 6


@pytest.mark.parametrize("name", NAMES)
def test_a_warm_cache_changes_not_one_bit(shelf: Shelf, name: str) -> None:
    """Given reproducible calls, when they come again, then all they encode is found, and the pictures are the same."""
    model, calls = shelf.load(name), [replace(each.call, reproducible=True) for each in crowd(name)]
    cold, before = paint(model, calls)

    warm, after = paint(model, calls[::-1])

    assert pixels(warm[::-1]) == pixels(cold)
    for cache, use in after.caches.items():
        assert use.misses == before.caches[cache].misses
        assert use.bytes == before.caches[cache].bytes
        asked_for = before.caches[cache].hits + before.caches[cache].misses
        assert use.hits - before.caches[cache].hits == asked_for


def test_a_reproducible_call_takes_nothing_that_was_made_by_other_kernels(shelf: Shelf) -> None:
    """Given what was encoded by whatever kernels were fastest, when a reproducible call comes, then it is not taken."""
    model, modes = shelf.load("sd", controls={}), dict[str, bool]()

    def see(part: Any, *_: Any) -> None:
        modes[type(part).__name__] = torch.are_deterministic_algorithms_enabled()

    pipeline = model._faces.own
    hooks = [part.register_forward_pre_hook(see) for part in (pipeline.text_encoder, pipeline.vae.encoder)]
    paint(model, [asked()])
    paint(model, [asked(reproducible=True)])
    for hook in hooks:
        hook.remove()

    assert modes == {"CLIPTextModel": True, "Encoder": True}


def test_without_room_nothing_is_kept_and_the_picture_is_the_same(shelf: Shelf) -> None:
    """Given no bytes for caches, when a call comes twice, then it is encoded twice, and the picture is the same."""
    model, given = shelf.load("sd", controls={}, tuning=Tuning(cache_bytes=0)), asked(reproducible=True)

    with forwards(model) as seen:
        painted, statistics = paint(model, [given, given])

    assert (len(seen["text"]), len(seen["encoder"])) == (4, 2)
    assert all(use.bytes == use.hits == 0 for use in statistics.caches.values())
    assert set(pixels(painted)) == set(pixels(paint(shelf.load("sd", controls={}), [given])[0]))


def test_many_sources_stay_within_the_bytes(shelf: Shelf) -> None:
    """Given room for two sources, when twelve are painted, then the bytes of two are held."""
    # 8 channels, mean and variance, of 4 x 4 latents of float32; a quarter of the room is for prompts.
    source = 8 * 4 * 4 * 4
    model = shelf.load("sd", controls={}, tuning=Tuning(cache_bytes=(2 * source + 10) * 4 // 3))

    _, statistics = paint(model, [replace(asked(), picture=noise_picture(SIDE, SIDE, seed=n)) for n in range(12)])

    assert statistics.caches["posteriors"].bytes == 2 * source
