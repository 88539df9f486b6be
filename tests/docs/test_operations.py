"""docs/operations.md: its tables are the contract's, and its pictures those of its own jobs."""

from __future__ import annotations

from typing import get_args

import pytest
from PIL import Image
from pydantic import BaseModel

from overpaint_common.job import Job, Prepare
from overpaint_common.passes import Control, Diffusion, Edit, Img2Img, Inpaint, MatchColor, Pass, Upscale
from tests.docs.pages import DOCS, page
from tools.gallery import Example, Shown, drawings, examples

CHART = "see-what-strength-does"

OPERATIONS = page(DOCS / "operations.md")
EXAMPLES = list(examples(OPERATIONS.text))
DRAWINGS = list(drawings(OPERATIONS.text))
SHOWN: list[Shown] = [*(example for example in EXAMPLES if example.runs_here), *DRAWINGS]


@pytest.mark.parametrize("example", EXAMPLES, ids=lambda example: example.name)
def test_each_job_of_the_page_is_one(example: Example) -> None:
    """Given a job of the page, when it is read as the worker reads it, then it is valid."""
    assert isinstance(example.job("s3://photos/", "s3://pictures/"), Job)


@pytest.mark.parametrize("example", SHOWN, ids=lambda example: example.name)
def test_what_runs_here_has_its_picture(example: Shown) -> None:
    """Given a job for the models that ship, or a drawing, when the gallery is read, then its picture is there and
    shown, marked where a model made it."""
    file = DOCS / "gallery" / f"{example.name}.png"
    assert f"](gallery/{file.name})" in OPERATIONS.text
    assert file.stat().st_size < 200_000
    with Image.open(file) as picture:
        assert ("compositeWithTrainedAlgorithmicMedia" in str(picture.info)) is (example.name != CHART)


def test_the_gallery_holds_nothing_else() -> None:
    """Given the page's jobs, when the gallery is listed, then it has just their pictures."""
    kept = {file.stem for file in (DOCS / "gallery").iterdir()}
    assert kept == {example.name for example in SHOWN}


def test_every_operation_has_a_job() -> None:
    """Given the operations of the contract, when the page's jobs are read, then each is there."""
    shown = {p["op"] for example in EXAMPLES for p in example.body["passes"]}
    assert shown == {kind.model_fields["op"].default for kind in get_args(get_args(Pass)[0])}


@pytest.mark.parametrize(
    ("heading", "kind", "beyond"),
    [
        ("Operations", Diffusion, None),
        ("Preparation", Prepare, None),
        ("Repaint a part: inpaint", Inpaint, Diffusion),
        ("Hold the structure: controls", Control, None),
        ("Keep the palette: match_color", MatchColor, None),
        ("Enlarge: upscale", Upscale, Diffusion),
        ("Follow an instruction: edit", Edit, Diffusion),
        ("Repaint: img2img", Img2Img, Diffusion),
    ],
)
def test_the_tables_list_every_field(heading: str, kind: type[BaseModel], beyond: type[BaseModel] | None) -> None:
    """Given the fields that a kind of pass adds, when its section is read, then each is named."""
    fields = set(kind.model_fields) - set(beyond.model_fields if beyond else ()) - {"op"}
    text = OPERATIONS.section(heading).text
    assert [name for name in sorted(fields) if f"`{name}`" not in text] == []
