"""The pages about operations: their tables are the contract's, and their pictures those of their own jobs."""

from __future__ import annotations

import re
from typing import get_args

import pytest
from PIL import Image
from pydantic import BaseModel
from pydantic.fields import FieldInfo

from overpaint_common.job import Job, Prepare
from overpaint_common.passes import Control, Diffusion, Edit, Img2Img, Inpaint, Lora, MatchColor, Pass, Upscale
from overpaint_common.plan import FAMILIES
from overpaint_common.steps import effective_steps
from tests.docs.pages import DOCS, page
from tools.gallery import PAGES, Example, Shown, drawings, examples

CHART = "see-what-strength-does"

TEXTS = [page(path) for path in PAGES]
EXAMPLES = [example for text in TEXTS for example in examples(text.text)]
DRAWINGS = [drawing for text in TEXTS for drawing in drawings(text.text)]
SHOWN: list[Shown] = [*(example for example in EXAMPLES if example.runs_here), *DRAWINGS]


@pytest.mark.parametrize("example", EXAMPLES, ids=lambda example: example.name)
def test_each_job_of_the_page_is_one(example: Example) -> None:
    """Given a job of the pages, when it is read as the worker reads it, then it is valid."""
    assert isinstance(example.job("s3://photos/", "s3://pictures/"), Job)


@pytest.mark.parametrize("example", SHOWN, ids=lambda example: example.name)
def test_what_runs_here_has_its_picture(example: Shown) -> None:
    """Given a job for the models that ship, or a drawing, when the gallery is read, then its picture is there and
    shown, marked where a model made it."""
    file = DOCS / "gallery" / f"{example.name}.png"
    (shown,) = [text for text in TEXTS if f"gallery/{file.name})" in text.text]
    assert f"# {example.heading}\n" in shown.text
    assert file.stat().st_size < 200_000
    with Image.open(file) as picture:
        assert ("compositeWithTrainedAlgorithmicMedia" in str(picture.info)) is (example.name != CHART)


def test_the_gallery_holds_nothing_else() -> None:
    """Given the pages' jobs, when the gallery is listed, then it has just their pictures."""
    kept = {file.stem for file in (DOCS / "gallery").iterdir()}
    assert kept == {example.name for example in SHOWN}


def test_every_operation_has_a_job() -> None:
    """Given the operations of the contract, when the pages' jobs are read, then each is there."""
    shown = {p["op"] for example in EXAMPLES for p in example.body["passes"]}
    assert shown == {kind.model_fields["op"].default for kind in get_args(get_args(Pass)[0])}


def test_every_page_has_a_picture() -> None:
    """Given the pages about operations, when they are read, then each but the list of all shows something."""
    assert [text.name for text in TEXTS if "![" not in text.text and text.path.name != "index.md"] == []


@pytest.mark.parametrize(
    ("file", "kind", "beyond"),
    [
        ("index", Diffusion, None),
        ("preparation", Prepare, None),
        ("inpaint", Inpaint, Diffusion),
        ("controls", Control, None),
        ("loras", Lora, None),
        ("match-color", MatchColor, None),
        ("upscale", Upscale, Diffusion),
        ("edit", Edit, Diffusion),
        ("img2img", Img2Img, Diffusion),
    ],
)
def test_the_tables_list_every_field(file: str, kind: type[BaseModel], beyond: type[BaseModel] | None) -> None:
    """Given the fields that a kind of pass adds, when its page's table is read, then each is named with its default."""
    fields = set(kind.model_fields) - set(beyond.model_fields if beyond else ()) - {"op"}
    rows = [
        row
        for first in ("field", "`prepare`", "prepare")
        for row in page(DOCS / "operations" / f"{file}.md").rows(first)
    ]
    assert [name for name in sorted(fields) if not any(name in row[0] for row in rows)] == []
    for name, default, *_ in (row for row in rows if len(row) == 3):
        for each, shown in zip(name.split("`, `"), default.split("`, `"), strict=True):
            assert shown.strip("`") in as_shown(kind.model_fields[each.strip("`")]), name


def as_shown(field: FieldInfo) -> set[str]:
    """How a table may write a field's default."""
    if field.is_required():
        return {"required"}
    match field.default:
        case None:
            return {"none", "the model's", "the job's", "derived"}
        case () | "":
            return {"none", "empty"}
        case bool(value):
            return {str(value).lower()}
        case value:
            return {f"{value:g}" if isinstance(value, float) else str(value)}


STRENGTH = page(DOCS / "strength.md")


def test_the_strength_page_counts_steps_as_each_family_does() -> None:
    """Given the page's table of effective steps, when they are counted as its families do, then it is the same."""
    (titles,) = re.findall(r"^\| family \|(.+)\|$", STRENGTH.text, re.MULTILINE)
    asked = [re.findall(r"[\d.]+", title) for title in titles.split("|")]
    rows = STRENGTH.rows("family")
    assert [row[0] for row in rows] == list(FAMILIES)
    for family, *cells in rows:
        counted = [effective_steps(FAMILIES[family], int(steps), float(strength)) for steps, strength in asked]
        assert cells == [str(steps) if steps else "refused" for steps in counted]


def test_the_strength_page_says_how_much_of_50_steps_runs() -> None:
    """Given the page's ranges of strength, when their ends are counted, then these are the table's steps."""
    rows = STRENGTH.rows("strength")
    ends = [[float(end) for end in row[0].split(" to ")] for row in rows]
    assert [row[3] for row in rows] == [
        " to ".join(str(effective_steps("floor", 50, end)) for end in each) for each in ends
    ]
    assert ends[0] == [0]
    assert ends[-1] == [1]
