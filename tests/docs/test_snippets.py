"""Every block of code on every page is run, read or claimed: JSON and TOML are read here.

Shell and Python run in test_examples.py, beside one stack.
"""

from __future__ import annotations

import json
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from overpaint_common.job import Job
from overpaint_worker.engine.registry import Registry
from tests.docs.pages import ROOT
from tests.docs.snippets import BY_LANGUAGE, CLAIMED, snippets, to_run


def test_no_block_is_left_to_itself() -> None:
    """Given the blocks of all pages, when they are gone through, then each is of a language that is run, or claimed."""
    left = [snippet for snippet in snippets() if snippet.language not in BY_LANGUAGE and not snippet.claims]
    assert [(snippet.page, snippet.language, snippet.body[:60]) for snippet in left] == []


def test_every_claim_is_of_one_block_and_kept_by_a_test_that_exists() -> None:
    """Given the claims, when blocks and tests are looked for, then none is out of date."""
    claims = [claim for snippet in snippets() for claim in snippet.claims]
    assert set(claims) == CLAIMED.keys()
    assert [claim for claim in CLAIMED if claims.count(claim) > 1 and "```" not in claim[1]] == []
    for test in set(CLAIMED.values()):
        file, _, name = test.partition("::")
        assert f"def {name}" in (ROOT / file).read_text(), test


@pytest.mark.parametrize("block", [block for blocks in to_run("json").values() for block in blocks])
def test_the_json_of_a_page_is_a_job(block: str) -> None:
    """Given a JSON block, when it is completed by model and output, then it is a job."""
    assert isinstance(
        Job.model_validate({"model": "m", "output": {"prefix": "s3://pictures/"}, **json.loads(block)}), Job
    )


@pytest.mark.parametrize("block", [block for blocks in to_run("toml").values() for block in blocks])
def test_the_toml_of_a_page_is_a_registry(block: str, tmp_path: Path) -> None:
    """Given a TOML block and the files that it names, when a worker reads it, then it is a registry."""
    for place in _paths(tomllib.loads(block)):
        if place.endswith(".safetensors"):
            (tmp_path / place).parent.mkdir(parents=True, exist_ok=True)
            (tmp_path / place).touch()
        else:
            (tmp_path / place).mkdir(parents=True)
            for index in ("model_index.json", "config.json"):
                (tmp_path / place / index).touch()
    file = tmp_path / "models.toml"
    file.write_text(block)
    assert Registry.load(file).models


def _paths(document: Any) -> Iterator[str]:
    if isinstance(document, dict):
        for name, value in document.items():
            if name == "path":
                yield value
            else:
                yield from _paths(value)
