"""What a model's text encoders leave unread of a prompt."""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from typing import Any

from overpaint_common.result import WarningNote

TOKENIZERS = ("tokenizer", "tokenizer_2", "tokenizer_3")


def cut_prompts(pipeline: Any, texts: Mapping[str, str]) -> tuple[WarningNote, ...]:
    """One note for each text that some text encoder reads only the beginning of; tokens include start and end."""
    readers = [reader for name in TOKENIZERS if (reader := getattr(pipeline, name, None)) is not None]
    limits = [_limit(pipeline, reader) for reader in readers]
    notes = []
    for name, text in texts.items():
        tokens = [len(reader(text, truncation=False, verbose=False)["input_ids"]) for reader in readers]
        cuts = dict.fromkeys((n, limit) for n, limit in zip(tokens, limits, strict=True) if n > limit)
        if cuts:
            cut = "; ".join(f"{n} tokens, of which the model reads the first {limit}" for n, limit in cuts)
            whole = any(n <= limit for n, limit in zip(tokens, limits, strict=True))
            rest = "; another of its text encoders reads all of it" if whole else ""
            notes.append(WarningNote(code="prompt_cut", message=f"{name} has {cut}{rest}"))
    return tuple(notes)


def _limit(pipeline: Any, tokenizer: Any) -> int:
    limit = int(tokenizer.model_max_length)
    if type(tokenizer).__name__.startswith("CLIP"):
        return limit
    # T5 and its kin read what the pipeline pads to.
    padded_to = inspect.signature(type(pipeline).__call__).parameters.get("max_sequence_length")
    return min(limit, padded_to.default) if padded_to is not None and padded_to.default else limit
