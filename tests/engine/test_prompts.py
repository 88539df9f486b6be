"""Whoever writes more than the model reads is told so, with the tokenizer's own count."""

from __future__ import annotations

import re

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from overpaint_worker.engine.engine import Engine
from overpaint_worker.engine.prompts import cut_prompts
from tests.engine.conftest import Models
from tests.engine.direct import call
from tests.support.tiny_models import PROMPT_TOKENS, T5_TOKENS


@pytest.mark.parametrize("name", ["sd", "sdxl"])
def test_a_warning_exactly_where_the_tokenizer_cuts(models: Models, name: str) -> None:
    pipeline = models.direct(name).pipeline
    tokenizer = pipeline.tokenizer

    @settings(deadline=None, max_examples=60)
    @given(
        st.one_of(
            st.text(max_size=120), st.lists(st.sampled_from(["red", "cat", "zebra", "é"]), max_size=90).map(" ".join)
        )
    )
    def check(prompt: str) -> None:
        read = tokenizer(prompt, truncation=True, max_length=PROMPT_TOKENS)["input_ids"]
        all_of_it = tokenizer(prompt, truncation=False, verbose=False)["input_ids"]

        notes = cut_prompts(pipeline, {"prompt": prompt})

        assert bool(notes) == (len(all_of_it) > len(read))
        counts = [int(number) for note in notes for number in re.findall(r"\d+", note.message)]
        assert counts == ([len(all_of_it), PROMPT_TOKENS] if notes else [])

    check()


@pytest.mark.parametrize("prompt", ["", " ", "a " * 5000, "🎨" * 2500, "猫が好き", "\x00\u202e", "<|endoftext|>" * 700])
def test_any_prompt_can_be_painted(engine: Engine, prompt: str) -> None:
    painted = engine.submit(call("sd", prompt=prompt[:10_000], negative_prompt=prompt[:10_000])).result(60)

    long = len(prompt) > 100
    assert [note.message.split()[0] for note in painted.warnings] == (["prompt", "negative_prompt"] if long else [])


def test_the_boundary_includes_start_and_end(models: Models) -> None:
    pipeline = models.direct("sd").pipeline
    fits, over = "red " * (PROMPT_TOKENS - 2), "red " * (PROMPT_TOKENS - 1)

    assert cut_prompts(pipeline, {"prompt": fits}) == ()
    (note,) = cut_prompts(pipeline, {"prompt": over})
    assert note.code == "prompt_cut"
    assert note.message == "prompt has 78 tokens, of which the model reads the first 77"


def test_text_encoders_that_read_differently_are_told_apart(models: Models) -> None:
    pipeline = models.direct("flux").pipeline
    # CLIP knows "red" as one word; this T5 reads letters.
    for_clip, for_t5 = "red " * 80, "zzzzz" * 30
    t5 = len(pipeline.tokenizer_2(for_t5, verbose=False)["input_ids"])
    assert t5 > T5_TOKENS

    (note,) = cut_prompts(pipeline, {"prompt": for_clip.replace("red", "x")})
    assert "82 tokens, of which the model reads the first 77" in note.message
    (note,) = cut_prompts(pipeline, {"prompt": for_t5})
    assert f"{t5} tokens, of which the model reads the first {T5_TOKENS}" in note.message
