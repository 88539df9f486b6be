"""On real models: the palette stays while the style changes, padding counts for nothing, black bars bleed."""

from __future__ import annotations

import threading
from functools import cache

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image
from scipy.ndimage import gaussian_filter
from scipy.stats import wasserstein_distance
from skimage.color import lab2rgb, rgb2lab

from overpaint_common.fleet import settle
from overpaint_common.job import Job, Output
from overpaint_common.passes import Img2Img, MatchColor, Pass
from overpaint_worker.engine.engine import Engine
from overpaint_worker.imaging.fit import Fill, fit, restore
from overpaint_worker.imaging.placement import Method as Fit
from overpaint_worker.operations.passes import Outcome, run_passes
from overpaint_worker.operations.tracker import Tracker
from overpaint_worker.operations.work import Inputs
from tests.engine.conftest import Models
from tests.engine.direct import noise_picture
from tests.support.cards import model_card
from training.judging import distance
from training.scenes import SEEDS, Scene, attributes_of, draw
from training.words import PALETTE, SHAPE_WORDS, STYLE_WORDS, STYLES

SCENES = 5


def paint(
    engine: Engine,
    models: Models,
    name: str,
    source: Image.Image,
    *passes: Pass,
    method: Fit = "keep",
    fill: Fill = "edge",
    variants: int = 1,
    seed: int = 5,
) -> tuple[Outcome, Inputs]:
    """Run passes on a source fitted to 64 x 64; every variant keeps the picture before its last pass."""
    card = model_card(name, operations=("img2img", "match_color"), steps_rule=models.registry[name].steps_rule)
    output = Output(prefix="s3://outbox/", intermediates=True)
    job = Job(source="s3://inbox/cat.png", model=name, passes=passes, output=output, seed=seed, variants=variants)
    fitted = fit(source, size=64, method=method, fill=fill)
    inputs = Inputs(fitted.picture, fitted.placement)
    tracker = Tracker(lambda *_: None, threading.Event())
    return run_passes(settle(job, {name: card}), inputs, {name: card}, engine, tracker), inputs


def lab(picture: Image.Image) -> NDArray[np.float64]:
    found: NDArray[np.float64] = rgb2lab(np.asarray(picture, np.float64) / 255)
    return found


def palette_apart(one: Image.Image, other: Image.Image) -> float:
    """The earth mover's distance of the two palettes' channels of L*a*b*, by scipy: no mean and no spread in it."""
    pairs = zip(lab(one).reshape(-1, 3).T, lab(other).reshape(-1, 3).T, strict=True)
    return float(np.linalg.norm([wasserstein_distance(*pair) for pair in pairs]))


def alike(one: Image.Image, other: Image.Image, *, detail: bool) -> float:
    """Correlation of the two lightnesses, or only of their detail, -1 to 1: what is where, whatever its colour."""
    both = [lab(each)[..., 0] for each in (one, other)]
    if detail:
        both = [lightness - gaussian_filter(lightness, 1.5) for lightness in both]
    return float(np.corrcoef(both[0].ravel(), both[1].ravel())[0, 1])


@cache
def scenes() -> tuple[Scene, ...]:
    first = SEEDS["held-out"].start + 6000
    return tuple(draw(attributes_of(seed), 64) for seed in range(first, first + SCENES))


def restyled(scene: Scene) -> str:
    """A prompt for the same thing in another style, without a word on colours."""
    shown = scene.attributes
    styles = [style for style in STYLES if style != shown.style]
    return f"a {SHAPE_WORDS[shown.shape][0]}, {STYLE_WORDS[styles[shown.seed % len(styles)]][0]}"


Run = tuple[Image.Image, Image.Image, Image.Image]


@pytest.fixture(scope="module")
def repainted(engine: Engine, models: Models) -> dict[str, list[Run]]:
    """For each method: source, repainted at 0.8 in another style, the same with the source's palette."""
    found: dict[str, list[Run]] = {}
    for scene in scenes():
        step = Img2Img(prompt=restyled(scene), strength=0.8, steps=8)
        for method in ("lab", "histogram", "wavelet"):
            outcome, _ = paint(engine, models, "mini", scene.picture, step, MatchColor(method=method))
            (variant,) = outcome.variants
            found.setdefault(method, []).append((scene.picture, variant.between[0], variant.picture))
    return found


@pytest.mark.parametrize(
    ("method", "palette", "style", "detail"),
    [("lab", 0.55, 0.75, False), ("histogram", 0.55, 0.75, False), ("wavelet", 0.3, 0.7, True)],
    ids=["lab", "histogram", "wavelet"],
)
def test_the_palette_stays_while_the_style_changes(
    repainted: dict[str, list[Run]], method: str, palette: float, style: float, detail: bool
) -> None:
    """Given scenes repainted at strength 0.8 in another style, when their colours are matched, then the palettes come
    back to a share of their distance from the sources', while the pictures keep the painting (its detail alone after
    wavelet, which takes the rest from the source) and are far from the source."""
    runs = repainted[method]
    before = np.mean([palette_apart(painted, source) for source, painted, _ in runs])
    after = np.mean([palette_apart(matched, source) for source, _, matched in runs])
    assert after < palette * before, f"{before:.1f} to {after:.1f}"
    kept = np.mean([alike(matched, painted, detail=detail) for _, painted, matched in runs])
    away = np.mean([distance(matched, source) for source, _, matched in runs])
    print(f"{method}: palette {before:.1f} -> {after:.1f}; alike to painting {kept:.2f}; to source {away:.1f}")
    assert kept > style, f"{kept:.2f}"
    assert away > 20, f"{away:.1f}"


def test_padding_counts_for_nothing(engine: Engine, models: Models) -> None:
    """Given a wide source between black bars, when it is painted and matched, then what comes back is what the formula
    of Reinhard gives for the picture without its bars."""
    source = noise_picture(64, 24, seed=3)
    muted = Image.blend(source, Image.new("RGB", source.size, (128, 128, 128)), 0.5)
    steps = (Img2Img(prompt="a red cat", strength=0.6), MatchColor())
    outcome, inputs = paint(engine, models, "sd", muted, *steps, method="pad", fill=(0, 0, 0))

    (variant,) = outcome.variants
    painted, matched = (restore(picture, inputs.placement) for picture in (variant.between[0], variant.picture))
    before, wanted = lab(painted), lab(muted)
    gain = np.minimum(wanted.std((0, 1)) / before.std((0, 1)), 5)
    expected = lab2rgb((before - before.mean((0, 1))) * gain + wanted.mean((0, 1))) * 255
    assert matched.size == (64, 24)
    assert np.abs(np.asarray(matched) - expected.clip(0, 255)).max() < 1.01
    assert variant.picture.size == (64, 64)


def test_an_enlarged_picture_takes_the_palette_of_its_content(engine: Engine, models: Models) -> None:
    """Given a padded source that is painted at twice its size, when it is matched, then the histograms of its content
    are the source's."""
    source = noise_picture(64, 40, seed=8)
    steps = (Img2Img(prompt="a red cat", strength=0.4, enlarge=2), MatchColor(method="histogram"))
    outcome, inputs = paint(engine, models, "sd", source, *steps, method="pad", fill=(0, 0, 0))

    (variant,) = outcome.variants
    content = restore(variant.picture, inputs.placement)
    assert variant.picture.size == (128, 128)
    assert content.size == (128, 80)
    for channel in range(3):
        values = [np.asarray(each)[..., channel].ravel() for each in (content, source)]
        assert wasserstein_distance(*values) < 4
        painted = np.asarray(restore(variant.between[0], inputs.placement))[..., channel].ravel()
        assert wasserstein_distance(painted, values[1]) > 20


def test_lost_colours_are_noted_once_and_not_where_they_are_matched(engine: Engine, models: Models) -> None:
    """Given a red picture repainted at strength 0.9 without a word on colours, when the job ends, then one note says
    so; matched, or at strength 0.2 from its own palette, none does."""
    source = scenes()[0].picture
    lost, _ = paint(engine, models, "mini", source, Img2Img(prompt="a star", strength=1), variants=2)
    (note,) = lost.warnings
    assert note.code == "colours_lost"
    assert "match_color" in note.message
    step = Img2Img(prompt="a star", strength=1)
    matched, _ = paint(engine, models, "mini", source, step, MatchColor())
    assert matched.warnings == ()
    light, _ = paint(engine, models, "mini", source, Img2Img(prompt="a star", strength=0.3))
    assert light.warnings == ()


def darkening(engine: Engine, models: Models, source: Image.Image, fill: Fill, seed: int) -> float:
    """How much darker the two rows beside the padding came back than they went in, 0 to 255."""
    step = Img2Img(prompt="a yellow circle on a plain background", strength=0.3, steps=10)
    outcome, inputs = paint(engine, models, "mini", source, step, method="pad", fill=fill, seed=seed)
    came = restore(outcome.variants[0].picture, inputs.placement)
    went = restore(inputs.source, inputs.placement)
    rows = [0, 1, came.height - 2, came.height - 1]
    return float((np.asarray(went, np.float64) - np.asarray(came, np.float64))[rows].mean())


def test_black_bars_bleed_into_the_picture_and_its_own_border_does_not(engine: Engine, models: Models) -> None:
    """Given bright wide pictures, when they are painted between black bars and between their own borders, then the
    rows beside the bars come back darker with black, in all and on average by a lot."""
    dark, bright = [], []
    for seed, colour in enumerate(("yellow", "orange", "pink", "white")):
        source = Image.new("RGB", (128, 64), (235, 230, 215))
        source.paste(PALETTE[colour], (48, 16, 80, 48))  # type: ignore[index]
        dark.append(darkening(engine, models, source, (0, 0, 0), seed))
        bright.append(darkening(engine, models, source, "edge", seed))
    print(f"darker by {np.round(dark, 1)} between black bars, {np.round(bright, 1)} between borders")
    assert np.mean(dark) > np.mean(bright) + 10, (dark, bright)
    assert all(black > edge for black, edge in zip(dark, bright, strict=True)), (dark, bright)
