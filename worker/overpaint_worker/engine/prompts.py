"""What a model's text encoders leave unread of a prompt."""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from typing import Any

from diffusers.loaders import TextualInversionLoaderMixin
from transformers import PreTrainedTokenizerBase, ProcessorMixin

from overpaint_common.result import WarningNote

TOKENIZERS = ("tokenizer", "tokenizer_2", "tokenizer_3")


def cut_prompts(pipeline: Any, texts: Mapping[str, str]) -> tuple[WarningNote, ...]:
    """One note for each text that some text encoder reads only the beginning of; tokens include start and end."""
    readers = [reader for name in TOKENIZERS if (reader := _reader(getattr(pipeline, name, None))) is not None]
    limits = [_limit(pipeline, reader) for reader in readers]
    notes = []
    for name, text in texts.items():
        tokens = [_tokens(pipeline, reader, text) for reader in readers]
        cuts = dict.fromkeys((n, limit) for n, limit in zip(tokens, limits, strict=True) if n > limit)
        if cuts:
            cut = "; ".join(f"{n} tokens, of which the model reads the first {limit}" for n, limit in cuts)
            whole = any(n <= limit for n, limit in zip(tokens, limits, strict=True))
            rest = "; another of its text encoders reads all of it" if whole else ""
            notes.append(WarningNote(code="prompt_cut", message=f"{name} has {cut}{rest}"))
    return tuple(notes)


def _reader(part: Any) -> Any:
    # Text encoders that see pictures too have a processor with a tokenizer in it.
    tokenizer = part.tokenizer if isinstance(part, ProcessorMixin) else part
    return tokenizer if isinstance(tokenizer, PreTrainedTokenizerBase) else None


def _tokens(pipeline: Any, tokenizer: Any, text: str) -> int:
    # A word learnt by textual inversion may stand for several tokens.
    if isinstance(pipeline, TextualInversionLoaderMixin):
        text = pipeline.maybe_convert_prompt(text, tokenizer)
    return len(tokenizer(text, truncation=False, verbose=False)["input_ids"])


def _limit(pipeline: Any, tokenizer: Any) -> int:
    limit = int(tokenizer.model_max_length)
    if type(tokenizer).__name__.startswith("CLIP"):
        return limit
    # T5 and its kin read what the pipeline pads to.
    padded_to = inspect.signature(type(pipeline).__call__).parameters.get("max_sequence_length")
    return min(limit, padded_to.default) if padded_to is not None and padded_to.default else limit
