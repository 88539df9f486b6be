"""Writes the standard Stable Diffusion folder: what `from_pretrained` of diffusers reads."""

from __future__ import annotations

import copy
import shutil
from pathlib import Path
from typing import Any

import torch

from training.sheets import assemble


def export(average: torch.nn.ModuleDict, parts: dict[str, Any], folder: Path) -> None:
    """Write UNet, text encoder and the other parts to `folder` as float16 safetensors; the modules stay as they are.

    Written beside the folder first and moved into its place at the end.
    """
    pipeline = assemble(copy.deepcopy(average), {**parts, "vae": copy.deepcopy(parts["vae"])})
    part = folder.with_name(folder.name + ".part")
    shutil.rmtree(part, ignore_errors=True)
    pipeline.to(torch.float16).save_pretrained(part, safe_serialization=True)
    shutil.rmtree(folder, ignore_errors=True)
    part.rename(folder)


def bytes_of(folder: Path) -> int:
    """What a folder takes on disk, its files' sizes added."""
    return sum(file.stat().st_size for file in folder.rglob("*") if file.is_file())
