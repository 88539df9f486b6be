"""What the trained model can do, measured on held-out scenes with the pipelines of diffusers."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field
from functools import partial
from itertools import pairwise
from pathlib import Path
from typing import Any, Final, Unpack

import numpy as np
import torch
from diffusers import (
    AutoPipelineForImage2Image,
    AutoPipelineForInpainting,
    ControlNetModel,
    StableDiffusionControlNetImg2ImgPipeline,
    StableDiffusionUpscalePipeline,
)
from numpy.typing import NDArray
from PIL import Image, ImageFilter
from scipy.stats import binomtest
from torch import nn
from tqdm import tqdm

from overpaint_producer.sheet import Row, Tile, contact_sheet, save_sheet
from overpaint_worker.imaging.edges import edges as edges_of
from training.captions import full_caption
from training.classifier import names_of
from training.enlarged import FACTOR
from training.judging import colour_of, distance, edge_energy, interval, overlap, psnr, share_of
from training.scenes import Attributes, Changes, Scene, attributes_of, draw, split_seeds
from training.upscaler import upscale
from training.words import COLOURS, SHAPE_WORDS, STYLES, Colour

GUIDANCE: Final = 4.0
STRENGTHS: Final = (0.2, 0.35, 0.5, 0.65, 0.8, 0.95)
_AT_ONCE: Final = 10
_TILES: Final = 8
_SIDE: Final = 128
"""Pixels of a tile on the sheet."""
_AROUND: Final = 7
"""Pixels of the filter that widens an object's mask for inpainting."""


@dataclass(frozen=True, slots=True)
class Finding:
    """One figure."""

    what: str
    value: float | None
    """None where no picture decides it."""
    goal: float | None = None
    """At least this much is wanted; None for a figure that stands beside another."""
    low: float | None = None
    high: float | None = None
    """95 % confidence interval."""
    count: int = 0
    """Of pictures, or of pairs."""

    @property
    def reached(self) -> bool | None:
        return None if self.goal is None else self.value is not None and self.value >= self.goal


@dataclass(slots=True)
class Report:
    """All figures, and rows of pictures to look at beside them."""

    findings: list[Finding] = field(default_factory=list)
    rows: list[Row] = field(default_factory=list)

    def add(self, what: str, value: float, *, goal: float | None = None, count: int = 0) -> None:
        self.findings.append(Finding(what, value, goal, count=count))

    def share(self, what: str, hits: list[bool], goal: float | None = None) -> None:
        """The share of hits; without any picture to count, that is what is told."""
        if not hits:
            self.findings.append(Finding(what, None, goal))
            return
        low, high = interval(sum(hits), len(hits))
        self.findings.append(Finding(what, sum(hits) / len(hits), goal, low, high, len(hits)))

    def show(
        self, heading: str, pictures: Sequence[Image.Image], captions: Sequence[str] = (), details: Sequence[str] = ()
    ) -> None:
        """Add a row of the first pictures, each with what it shows and what was found in it."""
        shown = pictures[:_TILES]
        texts = [text or [""] * len(pictures) for text in (captions, details)]
        self.rows.append(Row(heading, [Tile(*each) for each in zip(shown, *texts, strict=False)]))

    def save(self, folder: Path) -> None:
        """Write `report.json`, `report.md` and `sheet.png` into the folder."""
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "report.json").write_text(json.dumps([asdict(finding) for finding in self.findings], indent=1) + "\n")
        (folder / "report.md").write_text(self.table())
        reached = [finding.reached for finding in self.findings if finding.goal is not None]
        title = f"overpaint-mini: {sum(map(bool, reached))} of {len(reached)} goals reached"
        footer = "Held-out scenes of the repository's own generator; report.md has the figures."
        save_sheet(contact_sheet(title, self.rows, footer=footer, side=_SIDE), folder / "sheet.png")

    def table(self) -> str:
        """The figures as a Markdown table."""
        lines = ["| figure | measured | 95 % interval | of | goal | reached |", "| --- | --- | --- | --- | --- | --- |"]
        for found in self.findings:
            between = "" if found.low is None else f"{found.low:.2f} to {found.high:.2f}"
            measured = "none decided" if found.value is None else f"{found.value:.3g}"
            goal = "" if found.goal is None else f"{found.goal:g}"
            reached = {None: "", True: "yes", False: "no"}[found.reached]
            lines.append(f"| {found.what} | {measured} | {between} | {found.count or ''} | {goal} | {reached} |")
        return "\n".join(lines) + "\n"


@dataclass(frozen=True, slots=True)
class Subject:
    """The model under measurement and what judges it."""

    pipeline: Any
    classifier: nn.Module
    side: int
    count: int
    """Pictures of each experiment."""
    steps: int
    """Of a whole schedule: a strength runs its share of them."""

    def scenes(self, number: int, **changes: Unpack[Changes]) -> list[Scene]:
        """Held-out scenes of experiment `number`, with attributes changed."""
        seeds = split_seeds("held-out", np.random.default_rng((7, number)), self.count)
        return [draw(attributes_of(seed).evolve(**changes), self.side) for seed in seeds]

    def repaint(
        self, sources: list[Image.Image], prompts: list[str], strength: float, **more: Any
    ) -> list[Image.Image]:
        """Image-to-image of each source; picture i has seed i."""
        return self.painted(self.pipeline, sources, prompts, strength=strength, **more)

    def painted(
        self, pipeline: Any, sources: list[Image.Image], prompts: list[str], *, guidance: float = GUIDANCE, **more: Any
    ) -> list[Image.Image]:
        """Run a pipeline over pictures; lists among `more` hold one entry for each. Picture i has seed i."""
        made: list[Image.Image] = []
        for first in range(0, len(sources), _AT_ONCE):
            chunk = slice(first, first + _AT_ONCE)
            generators = [torch.Generator().manual_seed(first + i) for i in range(len(sources[chunk]))]
            arguments = {name: value[chunk] if isinstance(value, list) else value for name, value in more.items()}
            made += pipeline(
                prompt=prompts[chunk], image=sources[chunk], generator=generators, num_inference_steps=self.steps,
                guidance_scale=guidance, **arguments,
            ).images  # fmt: skip
        return made


@dataclass(frozen=True, slots=True)
class Folders:
    """What is measured, each in the layout of diffusers."""

    model: Path
    controlnet: Path | None = None
    """Of edges; None leaves its experiment out."""
    upscaler: Path | None = None
    """None leaves its experiment out."""


def measure(folders: Folders, classifier: nn.Module, side: int, count: int, steps: int) -> Report:
    """Run every experiment with `count` pictures."""
    pipeline = _loaded(AutoPipelineForImage2Image, folders.model)
    subject, report = Subject(pipeline, classifier.eval(), side, count, steps), Report()
    experiments: list[Callable[[Subject, Report], None]] = [
        judges, recolouring, styles, strengths, shapes, inpainting, guidance, negative_prompts,
    ]  # fmt: skip
    if folders.controlnet is not None:
        experiments.append(partial(edges, folder=folders.controlnet))
    if folders.upscaler is not None:
        experiments.append(partial(upscaling, folder=folders.upscaler))
    for experiment in tqdm(experiments, desc="measuring"):
        experiment(subject, report)
    return report


def judges(subject: Subject, report: Report) -> None:
    """How often the judges are right on the generator's own pictures: no model could do better."""
    scenes = subject.scenes(0)
    told = names_of(subject.classifier, _pictures(scenes))
    shown = [scene.attributes for scene in scenes]
    colours = _colours(_pictures(scenes), scenes)
    report.share("judge: colours of drawn scenes", _agree(colours, [one.colour for one in shown]))
    report.share("judge: shapes of drawn scenes", _agree(told["shape"], [one.shape for one in shown]))
    report.share("judge: styles of drawn scenes", _agree(told["style"], [one.style for one in shown]))


def recolouring(subject: Subject, report: Report) -> None:
    """Another colour in the full caption at strength 0.8."""
    scenes = subject.scenes(1)
    wishes = [recoloured(scene.attributes) for scene in scenes]
    made = subject.repaint(_pictures(scenes), [full_caption(wish) for wish in wishes], 0.8)
    told = _colours(made, scenes)
    report.share("recoloured at strength 0.8", _agree(told, [wish.colour for wish in wishes]), 0.8)
    report.show("Sources", _pictures(scenes), [f"{s.attributes.colour} {s.attributes.shape}" for s in scenes])
    report.show("Recoloured at strength 0.8", made, [wish.colour for wish in wishes], _told(told))


def styles(subject: Subject, report: Report) -> None:
    """Each of the six styles asked for in turn at strength 0.8, of sources in another style."""
    asked = [STYLES[index % len(STYLES)] for index in range(subject.count)]
    scenes = [
        draw(each.evolve(style=STYLES[STYLES.index(style) - 1]), subject.side) if each.style == style else scene
        for scene, style in zip(subject.scenes(2), asked, strict=True)
        for each in (scene.attributes,)
    ]
    prompts = [full_caption(s.attributes.evolve(style=style)) for s, style in zip(scenes, asked, strict=True)]
    made = subject.repaint(_pictures(scenes), prompts, 0.8)
    told = names_of(subject.classifier, made)["style"]
    hits = _agree(told, asked)
    report.share("style as asked at strength 0.8", hits, 0.8)
    for style in STYLES:
        report.share(f"of these {style}", [hit for hit, each in zip(hits, asked, strict=True) if each == style], 0.6)
    report.show("Sources", _pictures(scenes), [scene.attributes.style for scene in scenes])
    report.show("Another style at strength 0.8", made, asked, _told(told))


def strengths(subject: Subject, report: Report) -> None:
    """Distance to the source over rising strengths; where the object is at 0.3."""
    scenes = subject.scenes(3, style="flat", place="plain")
    sources, prompts = _pictures(scenes), [full_caption(recoloured(scene.attributes)) for scene in scenes]
    rising = [subject.repaint(sources, prompts, strength) for strength in STRENGTHS]
    away = [[distance(p, s) for p, s in zip(made, sources, strict=True)] for made in rising]
    pairs = [after > before for one, two in pairwise(away) for before, after in zip(one, two, strict=True)]
    report.share("further from the source at the next strength", pairs, 0.98)
    held = [overlap(p, s.mask) for p, s in zip(subject.repaint(sources, prompts, 0.3), scenes, strict=True)]
    report.share("object in place at strength 0.3 (overlap at least 0.6)", [value >= 0.6 for value in held])
    report.add("mean overlap at strength 0.3", float(np.mean(held)), goal=0.6, count=len(held))
    report.show("Sources", sources)
    for strength, made, each in zip(STRENGTHS, rising, away, strict=True):
        report.show(f"Another colour at strength {strength:g}", made, details=[f"{value:.0f} away" for value in each])


def shapes(subject: Subject, report: Report) -> None:
    """The source's shape at strength 0.5, in another colour."""
    scenes = subject.scenes(4)
    made = subject.repaint(_pictures(scenes), [full_caption(recoloured(s.attributes)) for s in scenes], 0.5)
    told = names_of(subject.classifier, made)["shape"]
    shown = [scene.attributes.shape for scene in scenes]
    report.share("shape kept at strength 0.5", _agree(told, shown), 0.7)
    report.show("Sources", _pictures(scenes), shown)
    report.show("Another colour at strength 0.5: the shape", made, shown, _told(told))


def inpainting(subject: Subject, report: Report) -> None:
    """The object's surroundings masked with it, repainted in another colour, and put back into the source."""
    pipeline = AutoPipelineForInpainting.from_pipe(subject.pipeline)
    pipeline.set_progress_bar_config(disable=True)
    scenes = subject.scenes(5)
    wishes = [recoloured(scene.attributes) for scene in scenes]
    masks = [
        Image.fromarray(scene.mask.astype(np.uint8) * 255).filter(ImageFilter.MaxFilter(_AROUND)) for scene in scenes
    ]
    made = subject.painted(
        pipeline, _pictures(scenes), [full_caption(wish) for wish in wishes], mask_image=masks, strength=0.9,
        height=subject.side, width=subject.side,
    )  # fmt: skip
    whole = [Image.composite(p, s.picture, mask) for p, s, mask in zip(made, scenes, masks, strict=True)]
    told = _colours(whole, scenes)
    report.share("inpainted in the named colour", _agree(told, [wish.colour for wish in wishes]), 0.75)
    alone = [_same_outside(p, s.picture, mask) for p, s, mask in zip(whole, scenes, masks, strict=True)]
    report.share("outside of the mask left alone", alone, 1.0)
    report.show("Sources", _pictures(scenes))
    report.show("The object's surroundings masked and inpainted", whole, [w.colour for w in wishes], _told(told))


def guidance(subject: Subject, report: Report) -> None:
    """Guidance 6 against guidance 1, at a strength where neither follows the caption always."""
    scenes = subject.scenes(6)
    wishes = [recoloured(scene.attributes) for scene in scenes]
    prompts = [full_caption(wish) for wish in wishes]
    followed: dict[float, list[bool]] = {}
    report.show("Sources", _pictures(scenes))
    for scale in (1.0, 6.0):
        made = subject.repaint(_pictures(scenes), prompts, 0.6, guidance=scale)
        told = _colours(made, scenes)
        followed[scale] = _agree(told, [wish.colour for wish in wishes])
        report.share(f"recoloured at strength 0.6, guidance {scale:g}", followed[scale])
        report.show(f"Strength 0.6, guidance {scale:g}", made, [wish.colour for wish in wishes], _told(told))
    _compared(report, "guidance 6 where one of the two failed", followed[6.0], followed[1.0])


def negative_prompts(subject: Subject, report: Report) -> None:
    """The source's colour as a negative prompt, with a prompt that names none."""
    scenes = subject.scenes(7)
    prompts = [f"a {SHAPE_WORDS[scene.attributes.shape][0]}, {scene.attributes.style}" for scene in scenes]
    colours = [scene.attributes.colour for scene in scenes]
    report.show("Sources", _pictures(scenes), colours)
    shares = []
    for heading, negative in (("No negative prompt", [""] * len(colours)), ("Negative prompt", colours)):
        made = subject.repaint(_pictures(scenes), prompts, 0.7, negative_prompt=[*negative])
        shares.append([share_of(p, s.mask, s.attributes.colour) for p, s in zip(made, scenes, strict=True)])
        report.show(f"{heading}, strength 0.7", made, negative, [f"{value:.0%} as before" for value in shares[-1]])
    without, named = np.array(shares)
    changed = [bool(after < before) for before, after in zip(without, named, strict=True) if before != after]
    report.add("share of the source's colour, no negative prompt", float(without.mean()), count=len(scenes))
    report.add("share of it, named in the negative prompt", float(named.mean()), count=len(scenes))
    report.share("of the pictures in which it changed, less of it", changed, 0.5)


def edges(subject: Subject, report: Report, *, folder: Path) -> None:
    """The source's shape at strength 0.9 in another colour, with its edges through the ControlNet and without."""
    controlnet = ControlNetModel.from_pretrained(folder, dtype=torch.float32)
    pipeline = StableDiffusionControlNetImg2ImgPipeline(
        **subject.pipeline.components, controlnet=controlnet, requires_safety_checker=False
    )
    pipeline.set_progress_bar_config(disable=True)
    scenes = subject.scenes(8)
    sources, prompts = _pictures(scenes), [full_caption(recoloured(scene.attributes)) for scene in scenes]
    found = [edges_of(source) for source in sources]
    held = subject.painted(pipeline, sources, prompts, control_image=found, strength=0.9)
    free = subject.repaint(sources, prompts, 0.9)
    shown = [scene.attributes.shape for scene in scenes]
    told = [names_of(subject.classifier, made)["shape"] for made in (held, free)]
    kept = [_agree(names, shown) for names in told]
    report.share("shape kept at strength 0.9, with edges", kept[0])
    report.share("shape kept at strength 0.9, without", kept[1])
    _compared(report, "edges kept it where one of the two did", *kept)
    report.show("Sources", sources, shown)
    report.show("Their edges", found)
    report.show("Strength 0.9 with the edges", held, shown, _told(told[0]))
    report.show("Strength 0.9 without", free, shown, _told(told[1]))


def upscaling(subject: Subject, report: Report, *, folder: Path) -> None:
    """Crops of large scenes, made small and enlarged again four times."""
    pipeline = _loaded(StableDiffusionUpscalePipeline, folder)
    truths, small = [], []
    for scene in (draw(scene.attributes, FACTOR * subject.side) for scene in subject.scenes(9)):
        first, last = FACTOR * subject.side // 2 - subject.side // 2, FACTOR * subject.side // 2 + subject.side // 2
        truths.append(scene.picture.crop((first, first, last, last)))
        small.append(truths[-1].reduce(FACTOR))
    ours = [
        picture
        for first in range(0, len(small), _AT_ONCE)
        for picture in upscale(pipeline, small[first : first + _AT_ONCE], subject.steps)
    ]
    bicubic = [picture.resize(truths[0].size, Image.Resampling.BICUBIC) for picture in small]
    faithful = [psnr(picture.reduce(FACTOR), before) for picture, before in zip(ours, small, strict=True)]
    report.add(
        "upscaled and reduced again, PSNR to the small picture, dB", float(np.mean(faithful)), goal=30, count=len(small)
    )
    nearer = [
        abs(edge_energy(a) - edge_energy(t)) < abs(edge_energy(b) - edge_energy(t))
        for a, b, t in zip(ours, bicubic, truths, strict=True)
    ]
    report.share("its edge energy nearer the truth's than bicubic's", nearer, 0.5)
    for name, made in (("bicubic", bicubic), ("upscaled", ours)):
        values = [psnr(picture, truth) for picture, truth in zip(made, truths, strict=True)]
        report.add(f"{name}, median PSNR to the truth, dB", float(np.median(values)), count=len(values))
        report.show(f"Enlarged four times: {name}", made, details=[f"{value:.1f} dB" for value in values])
    report.show("The truth", truths)


def recoloured(source: Attributes) -> Attributes:
    """The same scene in a colour that neither its object nor its ground has; the choice is the seed's."""
    others = [name for name in COLOURS if name not in (source.colour, source.ground)]
    chosen: Colour = others[source.seed % len(others)]
    return source.evolve(colour=chosen)


def _loaded(kind: Any, folder: Path) -> Any:
    pipeline = kind.from_pretrained(folder, dtype=torch.float32)
    pipeline.set_progress_bar_config(disable=True)
    return pipeline


def _compared(report: Report, what: str, one: list[bool], other: list[bool]) -> None:
    """How often `one` was right where exactly one of the two was: more than half means better (sign test)."""
    decided = [a for a, b in zip(one, other, strict=True) if a != b]
    report.share(what, decided, 0.5)
    if decided:
        report.add("its sign test, p", float(binomtest(sum(decided), len(decided)).pvalue), count=len(decided))


def _colours(pictures: list[Image.Image], scenes: list[Scene]) -> list[Colour]:
    """Of the objects."""
    return [colour_of(picture, scene.mask) for picture, scene in zip(pictures, scenes, strict=True)]


def _agree(told: Sequence[str], asked: Sequence[str]) -> list[bool]:
    return [one == other for one, other in zip(told, asked, strict=True)]


def _told(names: Sequence[str]) -> list[str]:
    return [f"found: {name}" for name in names]


def _same_outside(one: Image.Image, other: Image.Image, mask: Image.Image) -> bool:
    outside: NDArray[np.bool_] = np.asarray(mask) == 0
    return bool((np.asarray(one)[outside] == np.asarray(other)[outside]).all())


def _pictures(scenes: list[Scene]) -> list[Image.Image]:
    return [scene.picture for scene in scenes]
