"""Upscaling: diffusers' own pixels in one tile, no seam between several, and no forward larger than a tile."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path
from typing import Any, cast

import diffusers
import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from PIL import Image
from skimage import data

from overpaint_common.errors import JobCancelled, NotServed
from overpaint_common.fleet import ModelCard, settle
from overpaint_common.job import Job, Output, Prepare
from overpaint_common.passes import Img2Img, Pass, Upscale
from overpaint_worker.engine.calls import Call
from overpaint_worker.engine.engine import Engine
from overpaint_worker.engine.loading import PipelineLoader
from overpaint_worker.engine.model import PipelineModel
from overpaint_worker.engine.registry import ModelSpec, Registry
from overpaint_worker.engine.tiled import tiling_of
from overpaint_worker.imaging.placement import plan
from overpaint_worker.operations import upscale as operation
from overpaint_worker.operations.passes import Outcome, run_passes
from overpaint_worker.operations.tracker import Tracker
from overpaint_worker.operations.work import Inputs, Scope
from tests.engine.direct import Direct, call, noise_picture
from tests.support import tiny_models
from tests.support.cards import model_card

TOLERANCE = 1e-4
SIDE = 32
"""Of the tiny upscaler's tiles; those of the one that ships are twice that."""
MINI, TINY, SD = "overpaint-mini-upscaler", "tiny-upscaler", "sd"

Pixels = NDArray[Any]


def tiny_upscaler(folder: Path) -> Path:
    """An x4 upscaler with random weights that reads its prompt; 32 x 32 pixels to a tile."""
    parts = diffusers.StableDiffusionImg2ImgPipeline.from_pretrained(
        tiny_models.tiny_stable_diffusion(folder / "sd"), dtype=torch.float32
    ).components
    torch.manual_seed(31)
    config = {"in_channels": 7, "out_channels": 4, "num_class_embeds": 1000, "sample_size": SIDE}
    vae = diffusers.AutoencoderKL(
        block_out_channels=(8, 8, 8),
        down_block_types=("DownEncoderBlock2D",) * 3,
        up_block_types=("UpDecoderBlock2D",) * 3,
        norm_num_groups=4,
        latent_channels=4,
        scaling_factor=0.08333,
    )
    pipeline = diffusers.StableDiffusionUpscalePipeline(
        vae=vae,
        text_encoder=parts["text_encoder"],
        tokenizer=parts["tokenizer"],
        unet=diffusers.UNet2DConditionModel.from_config(parts["unet"].config, **config),
        low_res_scheduler=diffusers.DDPMScheduler(beta_schedule="scaled_linear"),
        scheduler=parts["scheduler"],
    )
    pipeline.save_pretrained(folder)
    return folder


class Upscalers:
    """Each as our loader and as diffusers itself loads it, and the img2img model beside them."""

    def __init__(self, root: Path) -> None:
        tiny = ModelSpec(path=tiny_upscaler(root / TINY), task="upscale")
        sd = ModelSpec(path=tiny_models.tiny_stable_diffusion(root / SD))
        self.specs: Mapping[str, ModelSpec] = {MINI: Registry.embedded()[MINI], TINY: tiny, SD: sd}
        self.model = cache(PipelineLoader(Registry(models=dict(self.specs)), "cpu"))
        self.direct = cache(self._direct)

    def _direct(self, name: str) -> Direct:
        kind = "Img2Img" if name == SD else "Upscale"
        return Direct(f"StableDiffusion{kind}Pipeline", cast(Path, self.specs[name].path))

    def paint(self, given: Call, on_step: Callable[[int], None] = lambda _: None) -> Pixels:
        return self.model(given.model).run(given, on_step).pixels

    def card(self, name: str) -> ModelCard:
        spec = self.specs[name]
        return model_card(
            name, operations=spec.operations, family=spec.family, steps_rule=spec.steps_rule, default_steps=3
        )


@pytest.fixture(scope="module")
def upscalers(tmp_path_factory: pytest.TempPathFactory) -> Upscalers:
    return Upscalers(tmp_path_factory.mktemp("upscalers"))


def enlarging(name: str, picture: Image.Image, **changes: Any) -> Call:
    settings = {"op": "upscale", "steps": 2, "guidance_scale": 1.0, "strength": 1.0, "noise_level": 20}
    return call(name, picture, **(settings | changes))


def as_diffusers(given: Call) -> dict[str, Any]:
    return {
        "image": given.picture,
        "prompt": given.prompt,
        "negative_prompt": given.negative_prompt or None,
        "num_inference_steps": given.steps,
        "guidance_scale": given.guidance_scale,
        "noise_level": given.noise_level,
        "seed": given.seed,
    }


@contextmanager
def seen(model: PipelineModel) -> Iterator[dict[str, set[tuple[int, ...]]]]:
    """The shapes of what the UNet and the VAE's decoder are given within the block."""
    pipeline = model._faces.own
    shapes: dict[str, set[tuple[int, ...]]] = {"unet": set(), "vae": set()}

    def see(name: str) -> Callable[..., None]:
        return lambda _, given, named: shapes[name].add(tuple((*given, *named.values())[0].shape))

    hooks = [
        pipeline.unet.register_forward_pre_hook(see("unet"), with_kwargs=True),
        pipeline.vae.decoder.register_forward_pre_hook(see("vae"), with_kwargs=True),
    ]
    try:
        yield shapes
    finally:
        for hook in hooks:
            hook.remove()


# One tile


@pytest.mark.parametrize("noise_level", [0, 20, 350])
@pytest.mark.parametrize(("name", "size"), [(MINI, (40, 24)), (MINI, (64, 64)), (TINY, (32, 20))])
def test_a_picture_of_one_tile_is_what_diffusers_makes(
    upscalers: Upscalers, name: str, size: tuple[int, int], noise_level: int
) -> None:
    """Given a picture that fits one tile, when it is upscaled, then it is diffusers' pixels for the same seed."""
    given = enlarging(name, noise_picture(*size), noise_level=noise_level)

    ours = upscalers.paint(given)

    assert ours.shape == (size[1] * 4, size[0] * 4, 3)
    assert np.abs(ours - upscalers.direct(name)(**as_diffusers(given))).max() <= TOLERANCE


@pytest.mark.parametrize("changes", [{}, {"negative_prompt": "a house"}, {"scheduler": "euler"}])
def test_with_guidance_it_is_what_diffusers_makes(upscalers: Upscalers, changes: dict[str, Any]) -> None:
    """Given guidance, with a negative prompt or another scheduler, when upscaled, then it is diffusers' pixels."""
    given = enlarging(TINY, noise_picture(24, 32), guidance_scale=5.0, **changes)
    theirs = Direct("StableDiffusionUpscalePipeline", cast(Path, upscalers.specs[TINY].path))
    if "scheduler" in changes:
        theirs.pipeline.scheduler = diffusers.EulerDiscreteScheduler.from_config(theirs.pipeline.scheduler.config)

    assert np.abs(upscalers.paint(given) - theirs(**as_diffusers(given))).max() <= TOLERANCE


# Several tiles


def smooth(width: int, height: int) -> Image.Image:
    down, across = np.mgrid[0:height, 0:width]
    red, green = 40 + 170 * across / width, 60 + 140 * down / height
    blue = 200 - 120 * (across + down) / (width + height)
    return Image.fromarray(np.stack([red, green, blue], -1).round().astype(np.uint8))


def photograph(width: int, height: int) -> Image.Image:
    whole = Image.fromarray(data.astronaut()).resize((256, 256), Image.Resampling.LANCZOS)
    return whole.crop((40, 0, 40 + width, height))


PICTURES = {"smooth": smooth, "photograph": photograph}


def gradients(pixels: Pixels, reach: int, zones: Zones) -> float:
    """How much steeper it is within zones of columns and of rows than outside: the mean absolute difference between
    the means of `reach` pixels on either side of a line, over that of all other lines."""
    within, outside = [], []
    for ranges, along in zip(zones, (pixels.swapaxes(0, 1), pixels), strict=True):
        sums = np.cumsum(np.concatenate([np.zeros_like(along[:1]), along]).astype(np.float64), 0)
        lines = np.arange(reach, len(along) - reach + 1)
        steps = np.abs(sums[lines + reach] - 2 * sums[lines] + sums[lines - reach]).mean((1, 2)) / reach
        inside = np.isin(lines, [line for each in ranges for line in each])
        within.append(steps[inside])
        outside.append(steps[~inside])
    return float(np.concatenate(within).mean() / np.concatenate(outside).mean())


def overlaps(length: int, side: int = 64) -> list[range]:
    """The lines of an enlarged picture, from where the second tile begins to where the first one ends."""
    return [range((length - side) * 4, side * 4 + 1)]


def edges(length: int, side: int = 64) -> list[range]:
    """The lines where a tile begins or ends."""
    return [range(line * 4, line * 4 + 1) for line in (length - side, side)]


WIDE, HIGH = 112, 80
"""Two tiles across and two down."""
CUTS = [range(64 * 4, 64 * 4 + 1)]
"""Where tiles meet that are put side by side."""
Zones = tuple[list[range], list[range]]


@dataclass(frozen=True)
class Enlarged:
    """One picture, enlarged in four ways."""

    ours: Pixels
    whole: Pixels
    """By diffusers in one piece."""
    beside: Pixels
    """By diffusers in tiles, put side by side."""
    bicubic: Pixels | None
    """For a picture whose own structure is not the same everywhere."""


@pytest.fixture(scope="module", params=PICTURES)
def enlarged(request: pytest.FixtureRequest, upscalers: Upscalers) -> Enlarged:
    given = enlarging(MINI, PICTURES[request.param](WIDE, HIGH), steps=3, prompt="")
    direct = upscalers.direct(MINI)
    beside = np.zeros((HIGH * 4, WIDE * 4, 3), np.float32)
    for left, top in ((0, 0), (64, 0), (0, 64), (64, 64)):
        part = given.picture.crop((left, top, min(left + 64, WIDE), min(top + 64, HIGH)))
        made = direct(**as_diffusers(replace(given, picture=part)))
        beside[top * 4 : (top + 64) * 4, left * 4 : (left + 64) * 4] = made
    bicubic = None
    if request.param == "photograph":
        bicubic = np.asarray(given.picture.resize((WIDE * 4, HIGH * 4), Image.Resampling.BICUBIC)) / 255
    return Enlarged(upscalers.paint(given), direct(**as_diffusers(given)), beside, bicubic)


def test_no_seam_shows_where_tiles_meet(enlarged: Enlarged) -> None:
    """Given a smooth gradient and a photograph of four tiles, when they are upscaled, then where a tile begins or ends
    it is at most 1.1 times as steep as elsewhere, a photograph's own structure divided out; where tiles are put side by
    side, over twice."""

    def steepness(pixels: Pixels, zones: Zones) -> float:
        own = 1 if enlarged.bicubic is None else gradients(enlarged.bicubic, 1, zones)
        return gradients(pixels, 1, zones) / own

    assert steepness(enlarged.ours, (edges(WIDE), edges(HIGH))) <= 1.1
    assert steepness(enlarged.beside, (CUTS, CUTS)) > 2


@pytest.mark.parametrize("reach", [4, 16])
def test_where_tiles_blend_no_step_hides(enlarged: Enlarged, reach: int) -> None:
    """Given the same, when steps are looked for over 4 and 16 pixels wherever tiles overlap, then they are at most
    1.1 times those of the picture that diffusers enlarges in one piece."""
    zones = overlaps(WIDE), overlaps(HIGH)
    assert gradients(enlarged.ours, reach, zones) <= 1.1 * gradients(enlarged.whole, reach, zones)


def test_tiles_come_near_the_picture_enlarged_in_one_piece(enlarged: Enlarged) -> None:
    """Given the same, when they are upscaled in tiles, then they are diffusers' picture of one piece, within 25 dB."""
    assert -10 * np.log10(((enlarged.ours - enlarged.whole) ** 2).mean()) > 25


LARGER = [(100, 100), pytest.param((300, 200), marks=pytest.mark.long)]


@pytest.mark.parametrize("larger", LARGER)
def test_the_device_holds_one_tile_whatever_the_pictures_size(upscalers: Upscalers, larger: tuple[int, int]) -> None:
    """Given small and large pictures, when they are upscaled with guidance, then UNet and VAE see the same shapes."""
    shapes = []
    for size in ((40, 36), larger):
        with seen(upscalers.model(TINY)) as told:
            made = upscalers.paint(enlarging(TINY, noise_picture(*size), steps=1, guidance_scale=3.0))
        assert made.shape == (size[1] * 4, size[0] * 4, 3)
        shapes.append(told)

    assert shapes[0] == shapes[1] == {"unet": {(2, 7, SIDE, SIDE)}, "vae": {(1, 4, SIDE, SIDE)}}


@pytest.mark.parametrize("size", [(1, 1), (1, 70), (33, 3), (37, 41), (65, 32)])
def test_any_size_becomes_four_times_as_large(upscalers: Upscalers, size: tuple[int, int]) -> None:
    """Given odd and tiny sizes, when they are upscaled, then they are four times as large and hold no NaN, and no
    forward is larger than a tile."""
    with seen(upscalers.model(TINY)) as shapes:
        made = upscalers.paint(enlarging(TINY, noise_picture(*size), steps=1))

    assert made.shape == (size[1] * 4, size[0] * 4, 3)
    assert np.isfinite(made).all()
    assert max(max(shape[2:]) for told in shapes.values() for shape in told) <= SIDE


@pytest.mark.parametrize("size", [(24, 24), (40, 24)])
def test_noise_level_prompt_guidance_and_seed_count(upscalers: Upscalers, size: tuple[int, int]) -> None:
    """Given one tile or two, when one parameter changes, then so does the picture; when none does, not a bit of it."""
    given = enlarging(TINY, noise_picture(*size), guidance_scale=4.0)
    before = upscalers.paint(given)

    assert np.array_equal(upscalers.paint(given), before)
    assert np.array_equal(upscalers.paint(replace(given, reproducible=True)), before)
    changes: list[dict[str, Any]] = [
        {"noise_level": 200},
        {"prompt": "a blue dog"},
        {"negative_prompt": "a house"},
        {"guidance_scale": 8.0},
        {"seed": 8},
        {"steps": 3},
        {"scheduler": "euler_a"},
    ]
    for change in changes:
        assert np.abs(upscalers.paint(replace(given, **change)) - before).max() > 1e-3, change


@pytest.mark.parametrize("size", [(24, 24), (40, 24)])
def test_a_noise_level_beyond_the_models_is_refused(upscalers: Upscalers, size: tuple[int, int]) -> None:
    """Given more noise than the upscaler was trained with, when it is asked for, then the error names both numbers."""
    with pytest.raises(NotServed, match=r"noise_level 351: this upscaler takes 0 to 350"):
        upscalers.paint(enlarging(TINY, noise_picture(*size), noise_level=351))


def test_a_negative_prompt_without_guidance_is_told(upscalers: Upscalers) -> None:
    """Given guidance off and a negative prompt, when tiles are upscaled, then it changes nothing and a note says so."""
    given = enlarging(TINY, noise_picture(40, 24))

    made = upscalers.model(TINY).run(replace(given, negative_prompt="a house"), lambda _: None)

    assert [note.code for note in made.warnings] == ["negative_prompt_ignored"]
    assert np.array_equal(made.pixels, upscalers.paint(given))


# Steps


def test_steps_are_told_and_every_tile_is_a_boundary(upscalers: Upscalers) -> None:
    """Given two tiles and three steps, when upscaled, then steps are told in order, and at least after each tile."""
    told: list[int] = []

    upscalers.paint(enlarging(TINY, noise_picture(40, 24), steps=3), told.append)

    assert told == sorted(told)
    assert set(told) == {0, 1, 2, 3}
    assert all(told.count(steps) >= 2 for steps in (0, 1, 2, 3))


@pytest.mark.parametrize("boundary", [1, 6, 12])
def test_a_call_may_end_or_run_another_between_tiles(upscalers: Upscalers, boundary: int) -> None:
    """Given a call that is cancelled at some tile, or that lets another run there, then every other paints the same."""
    given = enlarging(TINY, noise_picture(40, 24), guidance_scale=3.0)
    other = enlarging(TINY, noise_picture(24, 50, seed=1), seed=9)
    alone, other_alone = upscalers.paint(given), upscalers.paint(other)
    count, within = 0, []

    def cancel(_: int) -> None:
        nonlocal count
        count += 1
        if count == boundary:
            raise JobCancelled("cancelled")

    def let_pass(_: int) -> None:
        nonlocal count
        count += 1
        if count == boundary:
            within.append(upscalers.paint(other))

    with pytest.raises(JobCancelled):
        upscalers.paint(given, cancel)
    count = 0
    assert np.array_equal(upscalers.paint(given, let_pass), alone)
    assert np.array_equal(within[0], other_alone)


def test_a_tile_that_fails_leaves_nothing_behind(upscalers: Upscalers) -> None:
    """Given a UNet that fails within a tile, when the next call runs, then it paints what it did before."""
    one, several = enlarging(TINY, noise_picture(24, 24)), enlarging(TINY, noise_picture(40, 24))
    before = upscalers.paint(one), upscalers.paint(several)

    def fail(*_: Any) -> None:
        raise RuntimeError("out of memory")

    hook = upscalers.model(TINY)._faces.own.unet.mid_block.register_forward_pre_hook(fail)
    with pytest.raises(RuntimeError, match="out of memory"):
        upscalers.paint(several)
    hook.remove()

    assert np.array_equal(upscalers.paint(one), before[0])
    assert np.array_equal(upscalers.paint(several), before[1])


# Jobs


def run(upscalers: Upscalers, name: str, source: Image.Image, *passes: Pass, **fields: Any) -> tuple[Outcome, Job]:
    fields = {"prepare": Prepare(fit="keep"), "output": Output(prefix="s3://outbox/")} | fields
    cards = {name: upscalers.card(name)}
    job = settle(Job(source="s3://inbox/cat.png", model=name, passes=passes, **fields), cards)
    engine = Engine(upscalers.model)
    engine.start()
    inputs = Inputs(source, plan(source.size, size=64, method="keep", multiple=1))
    outcome = run_passes(job, inputs, cards, engine, Tracker(lambda _, __: None, threading.Event()))
    engine.stop()
    return outcome, job


def rounded(pixels: Pixels) -> Pixels:
    return (pixels * 255).round().astype(np.uint8)


def test_each_variant_is_upscaled_by_its_own_seed(upscalers: Upscalers) -> None:
    """Given two variants of a picture of two tiles, when a job upscales, then each is its own seed's picture."""
    source = noise_picture(40, 24)

    outcome, _ = run(upscalers, TINY, source, Upscale(prompt="a red cat", seed=7, noise_level=60), variants=2)

    for number, variant in enumerate(outcome.variants):
        given = enlarging(TINY, source, steps=3, guidance_scale=4.0, seed=7 + number, noise_level=60)
        assert np.array_equal(np.asarray(variant.picture), rounded(upscalers.paint(given)))
        assert [(p.seed, p.effective_steps) for p in variant.runs] == [(7 + number, 3)]


def test_img2img_enlarged_is_diffusers_on_the_enlarged_picture(upscalers: Upscalers) -> None:
    """Given enlarge, when a job runs img2img, then it is diffusers' picture of the source enlarged by Lanczos."""
    source = noise_picture(40, 24)

    outcome, _ = run(
        upscalers, SD, source, Img2Img(prompt="a red cat", strength=0.5, steps=4, enlarge=2, seed=7, guidance_scale=4)
    )

    larger = source.resize((80, 48), Image.Resampling.LANCZOS)
    theirs = upscalers.direct(SD)(
        larger, seed=7, prompt="a red cat", strength=0.5, num_inference_steps=4, guidance_scale=4.0
    )
    made = np.asarray(outcome.variants[0].picture)
    assert made.shape == (48, 80, 3)
    assert np.abs(made.astype(int) - rounded(theirs)).max() <= 1


@pytest.mark.parametrize(("size", "variants"), [((10_000, 10_000), 1), ((2501, 2500), 1), ((1300, 1300), 4)])
def test_more_pixels_than_host_memory_should_hold_are_refused(size: tuple[int, int], variants: int) -> None:
    """Given an enormous source, or many variants of a large one, when upscaled, then it is refused with its numbers."""
    with pytest.raises(NotServed, match=f"{size[0] * 4} x {size[1] * 4} of {size[0]} x {size[1]}.*{variants} variants"):
        begun(size, variants)


def test_as_many_as_it_should_hold_are_not() -> None:
    """Given a source of exactly as many pixels, when it is upscaled, then it is begun."""
    assert begun((2500, 2500), 1).picture.size == (2500, 2500)


def begun(size: tuple[int, int], variants: int) -> Call:
    picture = Image.new("1", size)
    upscale = Upscale(steps=3, guidance_scale=1.0, seed=7)
    scope = Scope(
        job=Job(
            source="s3://inbox/cat.png",
            model=TINY,
            passes=(upscale,),
            variants=variants,
            output=Output(prefix="s3://outbox/"),
        ),
        variant=0,
        picture=picture,
        inputs=Inputs(picture, plan(size, size=64, method="keep")),
        native_size=64,
        reads={},
        on_progress=lambda _, __: None,
        cancelled=threading.Event(),
    )
    return operation.begin(upscale, scope).call


def test_tiles_are_of_what_the_unet_was_trained_on(upscalers: Upscalers) -> None:
    """Given the tiny upscaler, the one that ships, and no upscaler, then tiles are 32, 64 and none."""
    sides = [tiling_of(upscalers.direct(name).pipeline) for name in (TINY, MINI, SD)]
    assert [None if tiling is None else (tiling.side, tiling.overlap) for tiling in sides] == [(32, 8), (64, 16), None]
