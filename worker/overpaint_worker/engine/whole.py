"""The whole lane: a diffusers pipeline called as one, with progress and cancelling at every step."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from overpaint_common.errors import PipelineFailed
from overpaint_common.result import ModelInfo, WarningNote
from overpaint_worker.engine.calls import Call


class WholeModel:
    """Any image-to-image pipeline that diffusers can load."""

    def __init__(self, pipeline: Any, info: ModelInfo) -> None:
        self._pipeline = pipeline
        self._accepts = frozenset(inspect.signature(type(pipeline).__call__).parameters)
        self.info = info

    def run(
        self, call: Call, on_step: Callable[[int], None]
    ) -> tuple[NDArray[np.float32], int, tuple[WarningNote, ...]]:
        """Call the pipeline on one picture with a CPU generator of the call's seed.

        Returns pixels [height, width, 3] in 0..1, the rows a forward held (2 with guidance), and warnings. Whatever
        `on_step` raises ends the call at that step.
        """

        def after_step(_: Any, index: int, __: Any, tensors: dict[str, Any]) -> dict[str, Any]:
            on_step(index + 1)
            return tensors

        arguments, warnings = self._arguments(call)
        with torch.inference_mode():
            images = self._pipeline(
                **arguments,
                generator=torch.Generator("cpu").manual_seed(call.seed),
                output_type="np",
                callback_on_step_end=after_step,
            ).images
        if len(images) != 1:
            raise PipelineFailed(f"the pipeline returned {len(images)} pictures for one")
        rows = 2 if call.guidance_scale > 1 else 1
        return np.asarray(images[0], dtype=np.float32), rows, (*warnings, *self._cut_prompts(call))

    def _arguments(self, call: Call) -> tuple[dict[str, Any], tuple[WarningNote, ...]]:
        arguments: dict[str, Any] = {
            "prompt": call.prompt,
            "image": call.picture,
            "strength": call.strength,
            "num_inference_steps": call.steps,
            "guidance_scale": call.guidance_scale,
        }
        # Pipelines that take a size fall back to their native one instead of the picture's.
        sizes = {"width": call.picture.width, "height": call.picture.height}
        arguments |= {name: value for name, value in sizes.items() if name in self._accepts}
        if not call.negative_prompt:
            return arguments, ()
        if "negative_prompt" in self._accepts:
            return {**arguments, "negative_prompt": call.negative_prompt}, ()
        note = f"{self.info.pipeline} takes no negative prompt; it was left out"
        return arguments, (WarningNote(code="negative_prompt_ignored", message=note),)

    def _cut_prompts(self, call: Call) -> tuple[WarningNote, ...]:
        tokenizer = getattr(self._pipeline, "tokenizer", None)
        if tokenizer is None:
            return ()
        limit = tokenizer.model_max_length
        notes = []
        for name, text in (("prompt", call.prompt), ("negative_prompt", call.negative_prompt)):
            tokens = len(tokenizer(text, truncation=False, verbose=False)["input_ids"])
            if tokens > limit:
                note = f"{name} has {tokens} tokens; the model reads the first {limit}"
                notes.append(WarningNote(code="prompt_cut", message=note))
        return tuple(notes)
