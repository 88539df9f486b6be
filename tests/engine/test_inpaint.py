"""Inpainting: the masked part as diffusers paints it, and everything else the picture's own, to the bit."""

from __future__ import annotations

import io
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any, cast

import numpy as np
import pytest
from hypothesis import HealthCheck, assume, example, given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from PIL import Image
from scipy.ndimage import gaussian_filter

from overpaint_common.errors import JobCancelled, SourceError
from overpaint_common.fleet import ModelCard, settle, total_steps
from overpaint_common.job import Job, Output, Prepare
from overpaint_common.passes import Img2Img, Inpaint, Pass
from overpaint_worker.attempt import _decode_other
from overpaint_worker.engine.calls import Call, Painted
from overpaint_worker.engine.engine import Engine
from overpaint_worker.engine.loading import PipelineLoader
from overpaint_worker.engine.model import PipelineModel
from overpaint_worker.engine.registry import ModelSpec, Registry
from overpaint_worker.finishing import encode_variants
from overpaint_worker.imaging.decode import decode
from overpaint_worker.imaging.fit import fit
from overpaint_worker.operations.passes import Outcome, run_passes
from overpaint_worker.operations.tracker import Tracker
from overpaint_worker.operations.work import Inputs
from tests.engine.conftest import Models
from tests.engine.direct import Direct, call, noise_picture
from tests.support import tiny_models
from tests.support.cards import model_card
from training.captions import full_caption
from training.judging import colour_of
from training.report import recoloured
from training.scenes import SEEDS, attributes_of, draw

TOLERANCE = 1e-4
MASK = "s3://inbox/mask.png"

SD, SDXL = "StableDiffusionInpaintPipeline", "StableDiffusionXLInpaintPipeline"
CLASSES = {"mini": SD, "sd": SD, "heun": SD, "pndm": SD, "sd-inpaint": SD, "sdxl": SDXL, "sdxl-inpaint": SDXL}
"""Four channels, and nine where the model was made for masks; two schedulers call a model more than once a step."""
EVERY = ["mini", "sd", "sd-inpaint", "sdxl", "sdxl-inpaint"]

Pixels = NDArray[Any]


class Painters:
    """The models, an engine on them that remembers what went in and came out, and diffusers' own pipelines."""

    def __init__(self, models: Models, root: Path) -> None:
        self._models, self._root = models, root
        self.folder = cache(self._folder)
        self.direct = cache(lambda name: Direct(CLASSES[name], self.folder(name)))
        self.engine = Engine(cache(self._load))
        self.calls: list[Call] = []
        self.futures: list[Future[Painted]] = []

    def submit(self, given: Call) -> Future[Painted]:
        self.calls.append(given)
        self.futures.append(self.engine.submit(given))
        return self.futures[-1]

    @property
    def last(self) -> tuple[Call, Pixels]:
        return self.calls[-1], self.futures[-1].result(0).pixels

    def _folder(self, name: str) -> Path:
        if not name.endswith("-inpaint"):
            return self._models.folder(name)
        return tiny_models.tiny_inpainting(self._root / name, xl=name.startswith("sdxl"))

    def _load(self, name: str) -> PipelineModel:
        return PipelineLoader(Registry(models={name: self.spec(name)}), "cpu")(name)

    def spec(self, name: str) -> ModelSpec:
        family = "stable-diffusion-xl" if name.startswith("sdxl") else "stable-diffusion"
        task = "inpaint" if name.endswith("-inpaint") else "repaint"
        return ModelSpec(path=self.folder(name), family=family, task=task)


@pytest.fixture(scope="module")
def painters(models: Models, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Painters]:
    made = Painters(models, tmp_path_factory.mktemp("inpainting"))
    made.engine.start()
    yield made
    made.engine.stop()


def box_mask(size: tuple[int, int], box: tuple[int, int, int, int]) -> Image.Image:
    mask = Image.new("L", size)
    mask.paste(255, box)
    return mask


def inpaint(**changes: Any) -> Inpaint:
    given: dict[str, Any] = {"mask": MASK, "prompt": "a red cat", "strength": 0.6, "steps": 5, "guidance_scale": 4.0}
    return Inpaint(**(given | {"seed": 7} | changes))


def card(painters: Painters, name: str) -> ModelCard:
    return model_card(name, operations=painters.spec(name).operations, steps_rule=painters.spec(name).steps_rule)


class Run:
    """One job through the worker's operations."""

    def __init__(
        self,
        painters: Painters,
        name: str,
        source: Image.Image,
        mask: Image.Image,
        *passes: Pass,
        tracker: Tracker | None = None,
        **fields: Any,
    ) -> None:
        prepare = fields.setdefault("prepare", Prepare(fit="keep"))
        fields.setdefault("output", Output(prefix="s3://outbox/"))
        body = Job(source="s3://inbox/cat.png", model=name, passes=passes, **fields)
        cards = {name: card(painters, name)}
        self.job = settle(body, cards)
        self.source = source
        fitted = fit(source, size=prepare.size or 64, method=prepare.fit)
        self.inputs = Inputs(fitted.picture, fitted.placement, {MASK: mask.convert("RGB")})
        tracker = tracker or Tracker(lambda _, __: None, threading.Event())
        self.outcome: Outcome = run_passes(self.job, self.inputs, cards, cast(Engine, painters), tracker)
        self.made = np.asarray(self.outcome.variants[0].picture)

    def at_source_size(self) -> Pixels:
        """What is stored where the job asks for the source's size."""
        file = io.BytesIO()
        self.source.save(file, "PNG")
        source = decode(file.getvalue(), max_pixels=10**7)
        job = self.job.model_copy(update={"output": Output(prefix="s3://outbox/", size="source")})
        encoded = encode_variants(job, self.outcome, source, self.inputs, {})
        return np.asarray(Image.open(io.BytesIO(encoded[0].picture.data)).convert("RGB"))


def direct(painters: Painters, name: str, picture: Image.Image, mask: Image.Image, **changes: Any) -> Pixels:
    """diffusers' own pixels, unrounded, on inputs of a size that it takes as it is."""
    given: dict[str, Any] = {"prompt": "a red cat", "strength": 0.6, "num_inference_steps": 5, "guidance_scale": 4.0}
    sizes = {"width": picture.width, "height": picture.height}
    return painters.direct(name)(picture, mask_image=mask, **sizes, **(given | {"seed": 7} | changes))


def rounded(pixels: Pixels) -> Pixels:
    return (pixels * 255).round().astype(np.uint8)


@pytest.mark.parametrize("strength", [0.6, 1.0])
@pytest.mark.parametrize("name", EVERY)
def test_the_masked_part_is_what_diffusers_paints(painters: Painters, name: str, strength: float) -> None:
    """Given models of 4 and of 9 channels, when a job inpaints, then inside it is diffusers' and outside the source."""
    source, mask = noise_picture(64, 48), box_mask((64, 48), (13, 8, 47, 35))

    made = Run(painters, name, source, mask, inpaint(strength=strength)).made

    theirs = direct(painters, name, source, mask, strength=strength)
    assert np.abs(painters.last[1] - theirs).max() <= TOLERANCE
    inside = np.asarray(mask) > 0
    assert np.array_equal(made[~inside], np.asarray(source)[~inside])
    assert np.abs(made[inside].astype(int) - rounded(theirs)[inside]).max() <= 1
    assert np.abs(made[inside].astype(int) - np.asarray(source)[inside]).mean() > 5


@pytest.mark.parametrize("name", ["sd", "sd-inpaint", "sdxl"])
def test_without_guidance_and_with_a_negative_prompt(painters: Painters, name: str) -> None:
    """Given guidance off, or a negative prompt, when a job inpaints, then it is still what diffusers paints."""
    source, mask = noise_picture(32, 32), box_mask((32, 32), (8, 8, 24, 24))
    for asked in ({"guidance_scale": 1.0}, {"negative_prompt": "a house", "guidance_scale": 6.0}):
        Run(painters, name, source, mask, inpaint(**asked))
        assert np.abs(painters.last[1] - direct(painters, name, source, mask, **asked)).max() <= TOLERANCE


@pytest.mark.parametrize("name", ["mini", "sd", "sd-inpaint", "sdxl"])
@pytest.mark.parametrize("size", [(72, 40), (70, 61)])
def test_sizes_that_are_no_multiple_of_what_the_model_takes(
    painters: Painters, name: str, size: tuple[int, int]
) -> None:
    """Given odd sizes, when they are inpainted, then as if border pixels of picture and mask went on to a multiple."""
    multiple = 4 if name == "mini" else 8
    picture, mask = noise_picture(*size), box_mask(size, (24, 16, size[0], size[1]))
    wider = tuple(-(-side // multiple) * multiple for side in size)
    rows, columns = (np.minimum(np.arange(wider[axis]), size[axis] - 1) for axis in (1, 0))
    padded = [Image.fromarray(np.asarray(given)[rows][:, columns]) for given in (picture, mask)]

    ours = painters.engine.submit(call(name, picture, op="inpaint", mask=mask)).result(60).pixels

    theirs = direct(painters, name, *padded)
    assert ours.shape == (size[1], size[0], 3)
    assert np.abs(ours - theirs[: size[1], : size[0]]).max() <= TOLERANCE


@pytest.mark.parametrize("name", EVERY)
@pytest.mark.parametrize(
    ("masked", "region"),
    [
        # 10 pixels around 30 x 20 make 50 x 40, and a square of 50 around the middle.
        ((40, 30, 70, 50), (30, 15, 80, 65)),
        # At the corner the square moves inside.
        ((110, 80, 128, 96), (100, 68, 128, 96)),
    ],
)
def test_the_masked_region_alone_is_painted_at_the_native_size(
    painters: Painters, name: str, masked: tuple[int, int, int, int], region: tuple[int, int, int, int]
) -> None:
    """Given only_masked, when a job inpaints, then diffusers paints the region at 64 x 64, and it is laid back."""
    source, mask = noise_picture(128, 96), box_mask((128, 96), masked)
    side = region[2] - region[0]

    made = Run(painters, name, source, mask, inpaint(only_masked=True, padding=10)).made

    seen = source.crop(region).resize((64, 64), Image.Resampling.LANCZOS)
    centres = ((np.arange(64) + 0.5) * side / 64).astype(int)
    hard = Image.fromarray(np.asarray(mask.crop(region))[centres][:, centres])
    given, pixels = painters.last
    assert given.picture.tobytes() == seen.tobytes()
    assert given.mask is not None
    assert given.mask.tobytes() == hard.tobytes()
    theirs = direct(painters, name, seen, hard)
    assert np.abs(pixels - theirs).max() <= TOLERANCE
    expected = np.asarray(source).copy()
    back = Image.fromarray(rounded(theirs)).resize((side, side), Image.Resampling.LANCZOS)
    expected[region[1] : region[3], region[0] : region[2]] = np.asarray(back)
    inside = np.asarray(mask) > 0
    assert np.abs(made[inside].astype(int) - expected[inside]).max() <= 1
    assert np.array_equal(made[~inside], np.asarray(source)[~inside])


def test_a_region_larger_than_the_model_is_made_smaller(painters: Painters) -> None:
    """Given a mask of 120 pixels in a long picture, when only it is painted, then at the native area and laid back."""
    source, mask = noise_picture(160, 40), box_mask((160, 40), (20, 10, 140, 30))

    made = Run(painters, "sd", source, mask, inpaint(only_masked=True, padding=0)).made

    # The region is all of the height, 120 x 40: of the sizes in eights of at most 64 x 64 pixels in all, the nearest.
    given = painters.calls[-1]
    assert given.picture.size == (104, 32)
    assert given.mask is not None
    expected = source.crop((20, 0, 140, 40)).resize((96, 32), Image.Resampling.LANCZOS)
    assert given.picture.crop((4, 0, 100, 32)).tobytes() == expected.tobytes()
    assert given.mask.getbbox() == (4, 8, 100, 24)
    inside = np.asarray(mask) > 0
    assert np.array_equal(made[~inside], np.asarray(source)[~inside])
    assert (made[inside] != np.asarray(source)[inside]).mean() > 0.9


def test_greys_blend(painters: Painters) -> None:
    """Given a mask of greys, when it is used as it is, then each pixel is its grey's share of what was painted."""
    ramp = Image.fromarray(np.tile(np.arange(256, dtype=np.uint8)[None, ::4], (64, 1)))
    source = noise_picture()

    run = Run(painters, "sd", source, ramp, inpaint())

    given, pixels = painters.last
    assert np.array_equal(np.asarray(given.mask), np.where(np.asarray(ramp) >= 128, 255, 0))
    share = np.asarray(ramp)[..., None] / 255
    expected = rounded(pixels) * share + np.asarray(source) * (1 - share)
    assert np.abs(run.made - expected).max() <= 1
    touched = run.outcome.variants[0].touched
    assert touched is not None
    assert touched.tobytes() == ramp.tobytes()


def test_threshold_makes_greys_hard_and_invert_swaps_them(painters: Painters) -> None:
    """Given greys of 60 and 200, when a threshold or an inversion is asked for, then that part is repainted."""
    greys = box_mask((64, 64), (0, 0, 32, 64)).point(lambda white: 200 if white else 60)
    left = np.arange(64) < 32

    def changed(**asked: Any) -> tuple[float, float]:
        run = Run(painters, "sd", noise_picture(), greys, inpaint(strength=1.0, **asked))
        assert set(np.asarray(run.outcome.variants[0].touched).flat) <= {0, 255}
        other = (run.made != np.asarray(noise_picture())).any(-1)
        return other[:, left].mean(), other[:, ~left].mean()

    for asked, (on_the_left, on_the_right) in (
        ({"threshold": 0.5}, (True, False)),
        ({"threshold": 0.2}, (True, True)),
        ({"threshold": 0.5, "invert": True}, (False, True)),
    ):
        shares = changed(**asked)
        assert (shares[0] > 0.9, shares[1] > 0.9) == (on_the_left, on_the_right)
        assert all(share == 0 or share > 0.9 for share in shares)


def test_feather_fades_the_edge_over_pixels_of_the_picture(painters: Painters) -> None:
    """Given a feather of 2, when a job inpaints, then the model's mask stays and what it paints fades by a Gaussian."""
    mask, source = box_mask((64, 64), (16, 16, 48, 48)), noise_picture()

    run = Run(painters, "sd", source, mask, inpaint(feather=2))

    given, pixels = painters.last
    assert np.array_equal(np.asarray(given.mask), np.asarray(mask))
    share = gaussian_filter(np.asarray(mask).astype(float), 2, mode="nearest")[..., None] / 255
    expected = rounded(pixels) * share + np.asarray(source) * (1 - share)
    assert np.abs(run.made - expected).max() <= 1 + 0.03 * 255
    soft = np.asarray(run.outcome.variants[0].touched)
    assert (run.made[soft == 0] == np.asarray(source)[soft == 0]).all()
    assert (run.made[soft == 255] == rounded(pixels)[soft == 255]).all()
    assert 0 < soft[32, 14] < 128 <= soft[32, 17] < 255


def test_beside_a_fitted_source_nothing_is_repainted(painters: Painters) -> None:
    """Given a wide source padded to a square, when its mask is white, then its padding is not in the mask."""
    source = noise_picture(128, 64)

    run = Run(painters, "sd", source, Image.new("L", (128, 64), 255), inpaint(), prepare=Prepare(fit="pad"))

    given = painters.calls[-1]
    assert np.array_equal(np.asarray(given.mask), np.asarray(box_mask((64, 64), (0, 16, 64, 48))))
    beside = np.r_[0:16, 48:64]
    assert np.array_equal(run.made[beside], np.asarray(run.inputs.source)[beside])


def test_a_mask_of_half_the_size_covers_the_same(painters: Painters) -> None:
    """Given the same mask at half and at three times the size, when jobs inpaint, then the same pictures come."""
    whole = box_mask((64, 64), (16, 8, 48, 40))
    one = Run(painters, "sd", noise_picture(), whole, inpaint())
    for size in ((32, 32), (192, 192), (8, 8)):
        other = Run(painters, "sd", noise_picture(), whole.resize(size, Image.Resampling.NEAREST), inpaint())
        assert other.made.tobytes() == one.made.tobytes()
        assert other.outcome.warnings == ()


def files() -> dict[str, bytes]:
    """The same box, white on black, as files of every kind."""
    white = np.asarray(box_mask((24, 16), (6, 4, 18, 12))) > 0
    grey = Image.fromarray(white.astype(np.uint8) * 255)
    transparent = Image.new("RGBA", (24, 16), (255, 255, 255, 0))
    transparent.paste((255, 255, 255, 255), (6, 4, 18, 12))
    pictures = {
        "l": grey,
        "bilevel": grey.convert("1"),
        "palette": grey.convert("P"),
        "rgb": grey.convert("RGB"),
        "sixteen": Image.fromarray(white.astype(np.uint16) * 65535),
        "white on transparent white": transparent,
        "la": transparent.convert("LA"),
    }
    made = {}
    for name, picture in pictures.items():
        file = io.BytesIO()
        picture.save(file, "PNG")
        made[name] = file.getvalue()
    file = io.BytesIO()
    pictures["l"].save(file, "BMP")
    return made | {"bmp": file.getvalue()}


@pytest.mark.parametrize("kind", sorted(files()))
def test_masks_of_any_mode_say_the_same(kind: str) -> None:
    """Given one mask saved in many ways, when it is fetched, then it is the same grey; transparent is black."""
    mask = _decode_other(MASK, files()[kind], 10_000)
    assert np.array_equal(np.asarray(mask.convert("L")), np.asarray(box_mask((24, 16), (6, 4, 18, 12))))


def test_a_mask_in_another_aspect_is_stretched_and_the_record_says_so(painters: Painters) -> None:
    """Given a square mask for a wide source, when a job inpaints, then it is scaled to its size and warned of."""
    mask = box_mask((64, 64), (32, 0, 64, 64))

    run = Run(painters, "sd", noise_picture(128, 64), mask, inpaint(), variants=2)

    (note,) = run.outcome.warnings
    assert note.code == "mask_stretched"
    assert all(said in note.message for said in (MASK, "64 x 64", "128 x 64"))
    changed = (run.made != np.asarray(noise_picture(128, 64))).any((0, 2))
    assert not changed[:64].any()
    assert changed[64:].all()


@pytest.mark.parametrize(
    ("grey", "asked"),
    [
        (0, {}),
        (255, {"invert": True}),
        (100, {}),
        (100, {"threshold": 0.5}),
        (0, {"only_masked": True}),
    ],
)
def test_a_mask_without_white_is_an_error_before_anything_is_painted(
    painters: Painters, grey: int, asked: dict[str, Any]
) -> None:
    """Given nothing to repaint, when a job runs, then the error names the mask and the model was not called."""
    before = len(painters.calls)
    with pytest.raises(SourceError, match=rf"mask {MASK}.* leaves nothing to repaint.*white"):
        Run(painters, "sd", noise_picture(), Image.new("L", (64, 64), grey), inpaint(**asked))
    assert len(painters.calls) == before


def test_a_feather_that_swallows_the_mask_is_an_error(painters: Painters) -> None:
    """Given one white pixel and a feather of 30, when a job runs, then the error asks for less."""
    with pytest.raises(SourceError, match="less feather than 30"):
        Run(painters, "sd", noise_picture(), box_mask((64, 64), (9, 9, 10, 10)), inpaint(feather=30))


def test_a_mask_that_vanishes_at_the_model_s_size_is_an_error(painters: Painters) -> None:
    """Given a line that the model's size averages away, when a job runs, then it says that nothing is left."""
    mask = box_mask((512, 512), (100, 0, 101, 512))
    with pytest.raises(SourceError, match="none of the 64 x 64 pixels"):
        Run(painters, "sd", noise_picture(512, 512), mask, inpaint(), prepare=Prepare(fit="pad"))


@pytest.mark.parametrize("name", ["sd", "heun", "pndm", "sd-inpaint", "sdxl"])
def test_progress_ends_exactly_at_the_total(painters: Painters, name: str) -> None:
    """Given passes of several strengths, when they inpaint, then every step is told once and the last is the total."""
    totals: list[int] = []
    passes = (inpaint(strength=0.5, steps=4), inpaint(strength=0), inpaint(strength=1.0, steps=3))
    tracker = Tracker(lambda _, total: totals.append(total), threading.Event())

    run = Run(
        painters, name, noise_picture(32, 32), box_mask((32, 32), (8, 8, 24, 24)), *passes, tracker=tracker, variants=2
    )

    assert totals == sorted(totals)
    assert set(totals) == set(range(total_steps(run.job, {name: card(painters, name)}) + 1))
    assert [r.effective_steps for r in run.outcome.variants[1].runs] == [2, 0, 3]


def test_a_cancelled_job_stops_at_its_next_step(painters: Painters) -> None:
    """Given a job that is cancelled in its second step, when it inpaints, then it goes no further."""
    totals: list[int] = []
    cancelled = threading.Event()

    def report(_: str, total: int) -> None:
        totals.append(total)
        if total == 2:
            cancelled.set()

    with pytest.raises(JobCancelled):
        Run(
            painters,
            "sd",
            noise_picture(),
            box_mask((64, 64), (8, 8, 24, 24)),
            inpaint(steps=8, strength=1.0),
            tracker=Tracker(report, cancelled),
        )
    assert totals[-1] == 2


@pytest.mark.parametrize(
    ("name", "reproducible"),
    [*((name, False) for name in ("mini", "pndm", "heun", "sdxl", "sd-inpaint")), ("pndm", True), ("sd-inpaint", True)],
)
def test_calls_beside_each_other_paint_what_each_paints_alone(
    painters: Painters, name: str, reproducible: bool
) -> None:
    """Given inpainting that is joined by inpainting and by img2img on the same weights, then all are as when alone."""
    bulk = call(
        name,
        noise_picture(32, 32),
        op="inpaint",
        mask=box_mask((32, 32), (8, 8, 24, 32)),
        steps=5,
        priority="bulk",
        reproducible=reproducible,
    )
    other = replace(
        bulk,
        picture=noise_picture(32, 32, seed=1),
        mask=box_mask((32, 32), (0, 0, 16, 24)),
        prompt="a lake",
        strength=1.0,
        steps=3,
        priority="standard",
    )
    whole = replace(other, op="img2img", mask=None, priority="interactive", seed=3)
    joining = [other] if name.endswith("-inpaint") else [other, whole]
    alone = [painters.engine.submit(each).result(60).pixels for each in (bulk, *joining)]
    futures: list[Future[Painted]] = []

    def at(moment: int, arrive: Callable[[], None]) -> Callable[[str, int], None]:
        return lambda phase, steps: arrive() if (phase, steps) == ("denoise", moment) else None

    def second() -> None:
        futures.extend(painters.engine.submit(each) for each in joining[1:])

    def first() -> None:
        futures.append(painters.engine.submit(replace(other, on_progress=at(1, second))))

    painted = [painters.engine.submit(replace(bulk, on_progress=at(1, first))).result(60)]
    painted += [futures[number].result(60) for number in range(len(joining))]

    for together, by_itself in zip(painted, alone, strict=True):
        assert np.abs(together.pixels - by_itself).max() <= (0 if reproducible else TOLERANCE)
    assert (max(each.rows for each in painted) > 2) is not reproducible


def test_variants_and_later_passes_go_on_from_what_was_inpainted(painters: Painters) -> None:
    """Given an inpaint and an img2img of two variants, when they run, then the second repaints the first's picture."""
    source, mask = noise_picture(), box_mask((64, 64), (16, 16, 48, 48))
    second = Img2Img(prompt="a house", strength=0.5, steps=4, guidance_scale=4.0, seed=90)

    run = Run(painters, "sd", source, mask, inpaint(), second, variants=2)

    for index, variant in enumerate(run.outcome.variants):
        first = Image.composite(
            Image.fromarray(rounded(direct(painters, "sd", source, mask, seed=7 + index))), source, mask
        )
        given = painters.calls[-2 + index]
        assert np.abs(np.asarray(given.picture).astype(int) - np.asarray(first)).max() <= 1
        assert variant.touched is None
    assert len({variant.picture.tobytes() for variant in run.outcome.variants}) == 2


@pytest.mark.parametrize("fitting", ["pad", "crop", "stretch", "bucket"])
@pytest.mark.parametrize("size", [(150, 101), (41, 67)])
@pytest.mark.parametrize("only_masked", [False, True])
def test_at_the_source_s_size_all_beside_the_mask_is_the_source_s_own(
    painters: Painters, size: tuple[int, int], fitting: str, only_masked: bool
) -> None:
    """Given a model that works at another size, when the output has the source's, then unmasked pixels are its own."""
    width, height = size
    source = Image.fromarray(np.random.default_rng(5).integers(0, 256, (height, width, 3), dtype=np.uint8))
    mask = box_mask(size, (width // 4, height // 3, width - 7, height - 9))

    run = Run(
        painters,
        "sd",
        source,
        mask,
        inpaint(only_masked=only_masked, padding=3, strength=1.0),
        prepare=Prepare(fit=cast(Any, fitting)),
    )

    left, top, right, bottom = run.inputs.placement.visible
    made, own = run.at_source_size(), np.asarray(source)[top:bottom, left:right]
    inside = np.asarray(mask)[top:bottom, left:right] > 0
    assert made.shape == own.shape
    assert np.array_equal(made[~inside], own[~inside])
    assert (made[inside] != own[inside]).any(-1).mean() > 0.9


def test_at_the_source_s_size_a_feather_is_as_wide_as_on_the_picture(painters: Painters) -> None:
    """Given a source four times the model's size, when a mask is feathered by 2, then at the source's size by 8."""
    source = noise_picture(256, 256)
    mask = box_mask((256, 256), (64, 64, 192, 192))

    run = Run(painters, "sd", source, mask, inpaint(feather=2, strength=1.0), prepare=Prepare(fit="pad"))

    made = run.at_source_size()
    soft = gaussian_filter(np.asarray(mask).astype(float), 8, mode="nearest")
    assert np.array_equal(made[soft < 0.01], np.asarray(source)[soft < 0.01])
    changed = (made != np.asarray(source)).any(-1)
    assert changed[soft > 10].mean() > 0.95


def test_passes_of_strength_0_touch_nothing_and_others_add_up(painters: Painters) -> None:
    """Given two masks and one of them inverted at strength 0, when three passes run, then what neither shows stays."""
    size, source, left = (150, 100), noise_picture(150, 100, seed=2), box_mask((150, 100), (10, 10, 40, 50))
    both = Image.fromarray(np.maximum(np.asarray(left), np.asarray(box_mask(size, (90, 20, 130, 80))) // 2))
    passes = (inpaint(threshold=0.4), inpaint(invert=True, strength=0), inpaint(threshold=0.9, strength=1.0))

    made = Run(painters, "sd", source, both, *passes, prepare=Prepare(fit="pad")).at_source_size()

    changed = (made != np.asarray(source)).any(-1)
    assert not changed[np.asarray(both) == 0].any()
    assert changed[np.asarray(both) == 255].mean() > 0.9
    assert changed[np.asarray(both) == 127].mean() > 0.9


@settings(
    deadline=None, max_examples=20, suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow]
)
@given(
    source=st.tuples(st.integers(1, 60), st.integers(1, 60)),
    mask=st.tuples(st.integers(1, 80), st.integers(1, 80)),
    mode=st.sampled_from(["L", "1", "RGB", "P"]),
    fitting=st.sampled_from(["pad", "crop", "stretch", "bucket", "keep"]),
    asked=st.fixed_dictionaries(
        {},
        optional={
            "invert": st.booleans(),
            "threshold": st.floats(0.01, 1),
            "feather": st.floats(0, 9),
            "only_masked": st.just(True),
            "padding": st.integers(0, 40),
        },
    ),
    seed=st.integers(0, 1000),
)
@example(source=(1, 60), mask=(1, 1), mode="L", fitting="pad", asked={"only_masked": True, "padding": 0}, seed=1)
@example(source=(60, 1), mask=(80, 1), mode="1", fitting="stretch", asked={"only_masked": True}, seed=1)
def test_whatever_the_mask_the_rest_stays_to_the_bit(
    painters: Painters,
    source: tuple[int, int],
    mask: tuple[int, int],
    mode: str,
    fitting: str,
    asked: dict[str, Any],
    seed: int,
) -> None:
    """Given any sizes, modes and settings, when a job inpaints, then where its mask is 0 the picture is what it was."""
    random = np.random.default_rng(seed)
    picture = Image.fromarray(random.integers(0, 256, (source[1], source[0], 3), dtype=np.uint8))
    drawn = Image.fromarray((random.random((mask[1], mask[0])) < 0.5).astype(np.uint8) * 255).convert(mode)
    prepare = Prepare(fit=cast(Any, fitting), size=32)
    try:
        run = Run(painters, "sd", picture, drawn, inpaint(steps=2, **asked), prepare=prepare)
    except SourceError:  # Nothing to repaint, as the tests above have it.
        assume(False)
    before, touched = np.asarray(run.inputs.source), run.outcome.variants[0].touched
    assert touched is not None
    stays = np.asarray(touched) == 0
    assert run.made.shape == before.shape
    assert np.array_equal(run.made[stays], before[stays])
    if drawn.size == picture.size and "feather" not in asked:
        grey = np.asarray(drawn.convert("L"))
        left, top, right, bottom = run.inputs.placement.visible
        kept = (grey == (255 if asked.get("invert") else 0))[top:bottom, left:right]
        assert np.array_equal(run.at_source_size()[kept], np.asarray(picture)[top:bottom, left:right][kept])


@pytest.mark.parametrize("only_masked", [False, pytest.param(True, marks=pytest.mark.long)])
def test_the_shipped_model_recolours_what_the_mask_shows(painters: Painters, only_masked: bool) -> None:
    """Given scenes and masks of their objects, when the shipped model inpaints, then most take the colour named."""
    first = SEEDS["held-out"].start + 4000
    hits = 0
    for seed in range(first, first + 4):
        scene = draw(attributes_of(seed), 64)
        wish = recoloured(scene.attributes)
        mask = Image.fromarray(scene.mask.astype(np.uint8) * 255)
        asked = inpaint(
            prompt=full_caption(wish), strength=0.9, steps=12, only_masked=only_masked, padding=24, seed=seed
        )
        run = Run(painters, "mini", scene.picture, mask, asked)
        assert np.array_equal(run.made[~scene.mask], np.asarray(scene.picture)[~scene.mask])
        hits += colour_of(Image.fromarray(run.made), scene.mask) == wish.colour
    assert hits >= 3, f"{hits} of 4"
