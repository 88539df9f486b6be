"""A CLIP tokenizer for the closed list of words: each is one token, any other text falls apart into bytes."""

from __future__ import annotations

import json
import re
from collections import Counter
from itertools import pairwise
from pathlib import Path
from typing import Final

from transformers import CLIPTokenizer

from training.words import COLOUR_WORDS, PLACE_WORDS, SHAPE_WORDS, STYLE_WORDS

MAX_TOKENS: Final = 32
"""Of a prompt, with its start and its end."""

START, END = "<|startoftext|>", "<|endoftext|>"

_JOINING: Final = "a an the one of in on at with and to into no not style picture image drawing painting art photo"
_COMMON: Final = (
    "make turn change colour color colored light dark bright big small simple beautiful detailed highly quality best "
    "worst low high blurry sharp ugly bad sunny day evening scene background animal vehicle building plant toy gray "
    "grey gold silver dog bird boat sun moon sky cloud mountain landscape portrait sketchy realistic anime comic "
    "render masterpiece illustration cute happy"
)
"""Words that people type and no caption has: one token each, though the model learns nothing about them."""


def word_list() -> tuple[str, ...]:
    """All words of the captions, sorted, and some that people type all the same."""
    phrases = [_JOINING, _COMMON]
    for table in (COLOUR_WORDS, SHAPE_WORDS, PLACE_WORDS, STYLE_WORDS):
        for choices in table.values():
            phrases.extend(choices)
    return tuple(sorted(set(re.findall(r"[a-z]+", " ".join(phrases).replace("{ground}", "")))))


def byte_characters() -> tuple[str, ...]:
    """The 256 characters by which byte-level BPE writes bytes (GPT-2's `bytes_to_unicode`), by byte value."""
    printable = {*range(ord("!"), ord("~") + 1), *range(ord("¡"), ord("¬") + 1), *range(ord("®"), ord("ÿ") + 1)}
    others = iter(range(256, 512))
    return tuple(chr(byte) if byte in printable else chr(next(others)) for byte in range(256))


def merges_for(words: tuple[str, ...]) -> list[tuple[str, str]]:
    """Byte-pair merges, most frequent pair first, learnt until every word is one token (Sennrich et al. 2016)."""
    parts = {word: [*word[:-1], word[-1] + "</w>"] for word in words}
    merges: list[tuple[str, str]] = []
    while True:
        pairs = Counter(pair for pieces in parts.values() for pair in pairwise(pieces))
        if not pairs:
            return merges
        best = min(pairs, key=lambda pair: (-pairs[pair], pair))
        merges.append(best)
        parts = {word: _merged(pieces, best) for word, pieces in parts.items()}


def _merged(pieces: list[str], pair: tuple[str, str]) -> list[str]:
    result: list[str] = []
    index = 0
    while index < len(pieces):
        if tuple(pieces[index : index + 2]) == pair:
            result.append("".join(pair))
            index += 2
        else:
            result.append(pieces[index])
            index += 1
    return result


def vocabulary_size() -> int:
    """Of the tokenizer that `write_tokenizer` writes; the text encoder's `vocab_size`."""
    return 512 + len(merges_for(word_list())) + 2


def write_tokenizer(folder: Path) -> CLIPTokenizer:
    """Write vocab.json, merges.txt, tokenizer_config.json and what the library adds; return the tokenizer as loaded."""
    folder.mkdir(parents=True, exist_ok=True)
    merges = merges_for(word_list())
    characters = byte_characters()
    names = [
        *characters,
        *(character + "</w>" for character in characters),
        *("".join(pair) for pair in merges),
        START,
        END,
    ]
    (folder / "vocab.json").write_text(
        json.dumps({name: index for index, name in enumerate(names)}, ensure_ascii=False)
    )
    (folder / "merges.txt").write_text("#version: 0.2\n" + "".join(f"{a} {b}\n" for a, b in merges))
    settings = {
        "tokenizer_class": "CLIPTokenizer",
        "model_max_length": MAX_TOKENS,
        "bos_token": START,
        "eos_token": END,
        "unk_token": END,
        "pad_token": END,
    }
    (folder / "tokenizer_config.json").write_text(json.dumps(settings, indent=2))
    tokenizer = CLIPTokenizer.from_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return tokenizer


def token_ids(tokenizer: CLIPTokenizer, prompts: list[str]) -> list[list[int]]:
    """Each prompt as `MAX_TOKENS` ids, padded, as the pipelines of diffusers ask for them."""
    batch = tokenizer(prompts, padding="max_length", max_length=MAX_TOKENS, truncation=True)
    return [list(ids) for ids in batch["input_ids"]]
