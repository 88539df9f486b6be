"""Keyword arguments as editors and type checkers see them: those of the contract, no more and no fewer."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Annotated, Any, Literal, get_args, get_origin, get_type_hints

import pytest
from mypy import api
from pydantic import BaseModel

from overpaint_common.job import Job, Output
from overpaint_common.passes import Diffusion, Img2Img, Inpaint
from overpaint_producer.fields import Img2ImgFields, InpaintFields, JobFields, OutputFields, PaintingFields

ROOT = Path(__file__).parents[2]

GIVEN_BY_NAME = {"source", "model", "passes", "output", "prefix", "prompt", "strength", "mask", "op", "schema_version"}
"""What the producer's methods take as parameters of their own, and what no caller gives."""

SNIPPET = """
from datetime import UTC, datetime
from overpaint_producer import AsyncProducer, Lora, Producer

def paint(producer: Producer) -> str:
    job = producer.img2img(
        "s3://photos/cat.png", prompt="a cat", output="s3://pictures/", steps=20, seed=1, labels={{"order": "7"}},
        loras=[Lora(name="ink"), {{"name": "paper", "scale": 0.5}}], deadline=datetime.now(UTC), format="webp",
        scheduler="euler", {extra}
    )
    return job.id

async def paint_async(producer: AsyncProducer) -> str:
    job = await producer.inpaint(
        "s3://photos/cat.png", "s3://photos/mask.png", prompt="a cat", output="s3://pictures/", feather=2.0, {extra}
    )
    async for moment in job.progress(timeout=3):
        print(moment.step + 1)
    return (await job.wait()).status
"""


@pytest.mark.parametrize(
    ("fields", "models"),
    [
        (OutputFields, [Output]),
        (JobFields, [Job, Output]),
        (PaintingFields, [Diffusion, Job, Output]),
        (Img2ImgFields, [Img2Img, Job, Output]),
        (InpaintFields, [Inpaint, Job, Output]),
    ],
)
def test_the_fields_are_those_of_the_models(fields: Any, models: list[type[BaseModel]]) -> None:
    theirs: dict[str, Any] = {}
    for model in models:
        theirs |= {name: field.annotation for name, field in model.model_fields.items()}
    ours = get_type_hints(fields)

    assert set(ours) == set(theirs) - GIVEN_BY_NAME
    for name, hint in ours.items():
        if _is_plain(theirs[name]):
            assert _bare(hint) == _bare(theirs[name]), name


def _bare(hint: Any) -> Any:
    """The types that a hint allows, without what pydantic checks besides."""
    if get_origin(hint) is Annotated:
        return _bare(get_args(hint)[0])
    if get_origin(hint) is Literal:
        return frozenset(get_args(hint))
    if get_args(hint):
        return frozenset(_bare(each) for each in get_args(hint))
    return hint


def _is_plain(hint: Any) -> bool:
    """Whether callers give the field as the model holds it: numbers, texts, choices."""
    bare = _bare(hint)
    kinds = bare if isinstance(bare, frozenset) else {bare}
    return all(kind in (int, float, str, bool, type(None)) or isinstance(kind, str | frozenset) for kind in kinds)


@pytest.mark.long
@pytest.mark.parametrize(
    ("extra", "complaint"),
    [
        ("", None),
        ("colour=1,", 'Unexpected keyword argument "colour"'),
        ('variants="two",', 'Argument "variants".* has incompatible type "str"; expected "int"'),
        ('priority="urgent",', 'Argument "priority".* has incompatible type'),
    ],
)
def test_a_type_checker_knows_the_keyword_arguments(tmp_path: Path, extra: str, complaint: str | None) -> None:
    """Given a caller's code, when mypy reads it, then right calls pass and wrong ones are named, in both producers."""
    snippet = tmp_path / "snippet.py"
    snippet.write_text(SNIPPET.format(extra=extra))

    said, _, status = api.run(["--config-file", str(ROOT / "pyproject.toml"), "--follow-imports=silent", str(snippet)])

    assert status == (0 if complaint is None else 1), said
    if complaint is not None:
        assert len(re.findall(complaint, said)) == 2
