"""LoRAs, in use for one call or another, and words learnt by textual inversion."""

from __future__ import annotations

import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import safetensors.torch
from diffusers.loaders import TextualInversionLoaderMixin

Scales = Mapping[str, float]

_KEYS: Mapping[str, str] = {"text_encoder": "clip_l", "text_encoder_2": "clip_g"}
"""Where a file for SDXL keeps the vectors of each text encoder."""


class Adapters:
    """The LoRAs of a pipeline's parts, loaded once. All pipelines on the same parts share them.

    Who computes says first what it is to `use`: exchanging them takes a while, so those used last stay.
    """

    def __init__(self, pipeline: Any) -> None:
        self._pipeline = pipeline
        self._names: dict[str, str] = {}
        self._in_use: Scales = {}

    @property
    def names(self) -> Sequence[str]:
        """Of those that are loaded."""
        return list(self._names)

    def load(self, name: str, file: Path) -> None:
        """Add the LoRA in a safetensors file; raises ValueError where it is none for this model."""
        if not hasattr(self._pipeline, "load_lora_weights"):
            raise ValueError(f"{type(self._pipeline).__name__} takes no LoRA")
        # torch takes no dots in names, and peft confuses names that are part of "lora_" or of one another.
        inner = f"adapter{len(self._names):06}"
        with warnings.catch_warnings():
            # Several are meant.
            warnings.filterwarnings("ignore", "Already found a `peft_config` attribute", UserWarning)
            self._pipeline.load_lora_weights(
                file.parent, weight_name=file.name, adapter_name=inner, use_safetensors=True, local_files_only=True
            )
        if not any(inner in held for held in self._pipeline.get_list_adapters().values()):
            raise ValueError(f"{file.name} holds no LoRA for the parts of {type(self._pipeline).__name__}")
        self._names[name] = inner
        self._pipeline.disable_lora()

    def use(self, loras: Sequence[tuple[str, float]]) -> None:
        """From now on the model has these LoRAs alone, until the next `use`.

        One that is named twice counts with the sum of its scales.
        """
        wanted: dict[str, float] = {}
        for name, scale in loras:
            wanted[name] = wanted.get(name, 0.0) + scale
        self._put(wanted)

    @contextmanager
    def using(self, loras: Sequence[tuple[str, float]]) -> Iterator[None]:
        """`use` at the beginning of the block; nothing is undone at its end."""
        self.use(loras)
        yield

    def _put(self, scales: Scales) -> None:
        if scales == self._in_use:
            return
        if scales:
            self._pipeline.set_adapters([self._names[name] for name in scales], list(scales.values()))
            self._pipeline.enable_lora()
        else:
            self._pipeline.disable_lora()
        self._in_use = dict(scales)


def learn_word(pipeline: Any, word: str, file: Path) -> None:
    """Have all text encoders of a pipeline read `word` as the vectors in a safetensors file.

    A file for one text encoder holds one tensor, [vectors, width] or [width]; one for the two of SDXL holds clip_l and
    clip_g. Raises ValueError for others, and for a word that a tokenizer has already.
    """
    if not isinstance(pipeline, TextualInversionLoaderMixin):
        raise ValueError(f"{type(pipeline).__name__} takes no textual inversion")
    tensors = safetensors.torch.load_file(file)
    keys = {encoder: key for encoder, key in _KEYS.items() if getattr(pipeline, encoder, None) is not None}
    if len(keys) == len(tensors) == 1:
        keys = dict(zip(keys, tensors, strict=True))
    missing = keys.values() - tensors.keys()
    if missing:
        raise ValueError(f"{file.name} holds {', '.join(sorted(tensors))}, and no {', '.join(sorted(missing))}")
    for encoder, key in keys.items():
        tokenizer = getattr(pipeline, encoder.replace("text_encoder", "tokenizer"))
        pipeline.load_textual_inversion(
            tensors[key], token=word, tokenizer=tokenizer, text_encoder=getattr(pipeline, encoder)
        )
