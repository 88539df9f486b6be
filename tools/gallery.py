"""The pictures of the pages about operations and strength, made by running the pages' own jobs and commands.

python -m tools.gallery
"""

from __future__ import annotations

import json
import os
import re
import shlex
from collections.abc import Iterator
from contextlib import chdir
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import click
from PIL import Image, ImageDraw

from overpaint_common.job import Job
from overpaint_common.references import Reference
from overpaint_producer import Producer
from overpaint_producer.cli import main as overpaint
from overpaint_producer.local.scene import SIDE, draw_scene
from overpaint_producer.local.stack import LocalStack
from overpaint_producer.sheet import Row, Tile, contact_sheet, save_sheet

DOCS = Path(__file__).parents[1] / "docs"
PAGES = (*sorted((DOCS / "operations").glob("*.md")), DOCS / "strength.md")
GALLERY = DOCS / "gallery"
INPUTS, OUTPUTS = "s3://photos/", "s3://pictures/"
"""Where the pages' jobs read and write."""
MODEL = "overpaint-mini"
MARK = "XML:com.adobe.xmp"
PATIENCE = 300.0


@dataclass(frozen=True, slots=True)
class Shown:
    """What a page shows a picture of."""

    heading: str

    @property
    def name(self) -> str:
        """Of its picture."""
        return "-".join(re.findall(r"[a-z0-9]+", self.heading.lower()))


@dataclass(frozen=True, slots=True)
class Example(Shown):
    """One job of a page."""

    body: dict[str, Any]

    @property
    def runs_here(self) -> bool:
        """Whether the models that ship with Overpaint can run it."""
        return "model" not in self.body

    def job(self, inputs: str, output: str) -> Job:
        """The whole job; pictures are read below `inputs`. Raises pydantic's ValidationError."""
        text = json.dumps({"model": MODEL, **self.body}).replace(INPUTS, inputs)
        return Job.model_validate({**json.loads(text), "output": {"prefix": output, "intermediates": True}})


@dataclass(frozen=True, slots=True)
class Drawing(Shown):
    """One call of the command line on a page, which draws its own picture."""

    words: tuple[str, ...]

    @property
    def file(self) -> str:
        """Where the call puts its picture."""
        return self.words[-1]


def examples(page: str) -> Iterator[Example]:
    """The jobs of a page, in its order."""
    return (Example(heading, json.loads(body)) for heading, body in _blocks(page, "json"))


def drawings(page: str) -> Iterator[Drawing]:
    """The calls of a page that draw a picture, in its order."""
    for heading, body in _blocks(page, "sh"):
        for line in body.replace("\\\n", " ").splitlines():
            words = shlex.split(line)
            if words[-2:-1] in (["--chart"], ["--sheet"]):
                yield Drawing(heading, tuple(words))


def _blocks(page: str, language: str) -> Iterator[tuple[str, str]]:
    """The code blocks in one language, each behind the heading that it stands under."""
    heading = ""
    parts = r"^##? (?P<heading>[^\n]+)$|^```(?P<language>\w*)\n(?P<body>.*?)^```$"
    for part in re.finditer(parts, page, re.MULTILINE | re.DOTALL):
        heading = part["heading"] or heading
        if part["body"] and part["language"] == language:
            yield heading, part["body"]


def draw_inputs(folder: Path) -> None:
    """The pictures that the pages' jobs name."""
    scene = draw_scene()
    scene.save(folder / "house.png")
    wide = Image.new("RGB", (2 * SIDE, SIDE))
    wide.paste(scene.crop((0, 0, 1, SIDE)).resize((2 * SIDE, SIDE)))
    wide.paste(scene, (SIDE // 2, 0))
    wide.save(folder / "wide-house.png")
    wall = Image.new("L", scene.size)
    ImageDraw.Draw(wall).rectangle((15, 27, 47, 54), fill=255)
    wall.save(folder / "house-wall.png")


def run(example: Example, producer: Producer, stack: LocalStack) -> Image.Image:
    """What a job read and made, side by side."""
    job = example.job(f"{stack.inputs.as_uri()}/", stack.outputs.as_uri())
    record = producer.submit(job).wait(timeout=PATIENCE).raise_for_status()
    read = [_tile(uri, name.rpartition(".")[2]) for name, uri in job.pictures.items()]
    made = []
    for variant in record.variants:
        for number, done in enumerate(variant.passes):
            last = number + 1 == len(variant.passes)
            output = variant.outputs[0] if last else done.output
            if output is not None:
                caption = f"{done.op}, seed {done.seed}" if done.seed is not None else done.op
                made.append(_tile(output.uri, caption))
    return contact_sheet(example.heading, [Row("", [*read, *made])], side=160)


def draw(drawing: Drawing, stack: LocalStack) -> Path:
    """The file that a call drew."""
    places = {INPUTS: f"{stack.inputs.as_uri()}/", OUTPUTS: f"{stack.outputs.as_uri()}/"}
    words = [re.sub("|".join(places), lambda found: places[found[0]], word) for word in drawing.words[1:]]
    with chdir(stack.folder):
        overpaint(words, standalone_mode=False)
    return stack.folder / drawing.file


def _tile(uri: str, caption: str) -> Tile:
    with Image.open(Reference.parse(uri).path) as picture:
        return Tile(picture.convert("RGB"), caption, f"{picture.width} x {picture.height}")


@click.command()
@click.option("--only", default="", help="Examples whose heading has this in it.")
def main(only: str) -> None:
    """Run the jobs and the drawing commands of the pages, and write docs/gallery."""
    text = "\n".join(page.read_text() for page in PAGES)
    GALLERY.mkdir(exist_ok=True)
    with TemporaryDirectory() as folder, LocalStack(Path(folder), environment={}, say=click.echo) as stack:
        draw_inputs(stack.inputs)
        with Producer(stack.settings) as producer:
            for example in examples(text):
                if only.lower() not in example.heading.lower():
                    continue
                if not example.runs_here:
                    click.echo(f"not run: {example.heading}, which needs model {example.body['model']!r}")
                    continue
                sheet = stack.folder / f"{example.name}.png"
                save_sheet(run(example, producer, stack), sheet)
                _keep(sheet, example)
        os.environ.update(stack.variables)
        for drawing in drawings(text):
            if only.lower() in drawing.heading.lower():
                _keep(draw(drawing, stack), drawing)


def _keep(drawn: Path, shown: Shown) -> None:
    """Put it into the gallery in 256 colours, marked as what a model made where it is so."""
    file = GALLERY / f"{shown.name}.png"
    with Image.open(drawn) as picture:
        small = picture.convert("RGB").quantize(256, kmeans=3)
        if MARK in picture.info:
            save_sheet(small, file)
        else:
            small.save(file, optimize=True)
    click.echo(f"{file}: {file.stat().st_size / 1000:.0f} kB")


if __name__ == "__main__":
    main()
