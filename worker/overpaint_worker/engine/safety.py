"""The safety checker that comes with a model, asked about finished pictures."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import diffusers
import numpy as np
import torch
from diffusers.pipelines.stable_diffusion import StableDiffusionSafetyChecker
from numpy.typing import NDArray
from PIL import Image

# By name, because the default one needs torchvision.
from transformers import CLIPImageProcessorPil

from overpaint_worker.engine import vetting

_CHECKER, _EXTRACTOR = "safety_checker", "feature_extractor"


@dataclass(frozen=True, slots=True)
class SafetyChecker:
    """Stable Diffusion's checker: compares CLIP's embedding of a picture with those of unwanted concepts."""

    checker: Any
    extractor: Any

    def refuses(self, pixels: NDArray[np.float32]) -> bool:
        """Whether it finds fault with pixels of [height, width, 3], 0..1; they stay as they are."""
        picture = Image.fromarray((pixels * 255).round().astype(np.uint8))
        read = self.extractor(images=picture, return_tensors="pt")["pixel_values"]
        # It blackens what it is given as the picture, which it does not look at.
        nothing = [np.zeros((1, 1, 3), np.float32)]
        _, (refused,) = self.checker(clip_input=read.to(self.checker.device, self.checker.dtype), images=nothing)
        return bool(refused)


def load_checker(folder: Path, dtype: torch.dtype, device: str) -> SafetyChecker:
    """The checker of the model in `folder`, on a device.

    Raises ValueError where it has none, another one than Stable Diffusion's, or one kept as a pickle, and what
    transformers raises for broken files.
    """
    index = diffusers.DiffusionPipeline.load_config(folder)
    kind = (index.get(_CHECKER) or [None, None])[1]
    if kind != "StableDiffusionSafetyChecker" or not (folder / _CHECKER).is_dir():
        raise ValueError(
            f'safety = "fail" needs a StableDiffusionSafetyChecker in {folder / _CHECKER}, and model_index.json names '
            f'{kind or "none"}; use a folder that has one, or set safety = "off"'
        )
    vetting.check_part(folder / _CHECKER)
    checker = StableDiffusionSafetyChecker.from_pretrained(
        folder / _CHECKER, dtype=dtype, use_safetensors=True, local_files_only=True
    )
    extractor = CLIPImageProcessorPil.from_pretrained(folder / _EXTRACTOR, local_files_only=True)
    return SafetyChecker(checker.to(device), extractor)
