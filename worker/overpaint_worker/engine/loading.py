"""Loading a registry entry into a diffusers pipeline."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any

import diffusers
import torch
import transformers

from overpaint_common.errors import ModelLoadFailed
from overpaint_common.result import ModelInfo
from overpaint_worker.engine.registry import ModelSpec, Registry
from overpaint_worker.engine.whole import WholeModel


class PipelineLoader:
    """Loads the models of a registry onto one device ("cpu", "cuda")."""

    def __init__(self, registry: Registry, device: str) -> None:
        self._registry = registry
        self._device = device

    def __call__(self, name: str) -> WholeModel:
        """Load `name`, from safetensors only and without remote code; raises ModelLoadFailed, UnknownModel."""
        spec = self._registry[name]
        dtype = dtype_of(spec, self._device)
        _quiet()
        try:
            folder = folder_of(spec)
            pipeline = _load(spec, folder, dtype)
            pipeline.set_progress_bar_config(disable=True)
            pipeline.to(self._device)
            digest = weight_digest(folder)
        except Exception as error:
            raise ModelLoadFailed(
                f"model {name!r} does not load from {spec.path or spec.repository}: {type(error).__name__}: {error}; "
                "check the registry entry and its files"
            ) from error
        info = ModelInfo(
            name=name,
            revision=spec.revision or "local",
            digest=digest,
            pipeline=type(pipeline).__name__,
            scheduler=type(pipeline.scheduler).__name__,
            dtype=str(dtype).removeprefix("torch."),
        )
        return WholeModel(pipeline, info)


def dtype_of(spec: ModelSpec, device: str) -> torch.dtype:
    """The dtype to run in; `auto` is float16 on CUDA and float32 elsewhere, where half precision is slow."""
    name = spec.dtype if spec.dtype != "auto" else ("float16" if device.startswith("cuda") else "float32")
    dtype: torch.dtype = getattr(torch, name)
    return dtype


def folder_of(spec: ModelSpec) -> Path:
    """The folder of the weights, downloaded first where the entry names a repository."""
    if spec.path is not None:
        return spec.path
    return Path(diffusers.DiffusionPipeline.download(spec.repository, revision=spec.revision, use_safetensors=True))


def weight_digest(folder: Path) -> str:
    """Hex sha256 over the relative names and contents of all safetensors files below `folder`."""
    total = hashlib.sha256()
    for file in sorted(folder.rglob("*.safetensors")):
        with file.open("rb") as stream:
            content = hashlib.file_digest(stream, "sha256").hexdigest()
        total.update(f"{file.relative_to(folder).as_posix()}\0{content}\n".encode())
    return total.hexdigest()


def _quiet() -> None:
    # A worker's log is no terminal; and each start would tell that there is no torchvision.
    for library in (diffusers, transformers):
        library.utils.logging.disable_progress_bar()
    transformers.utils.logging.set_verbosity_error()


def _load(spec: ModelSpec, folder: Path, dtype: torch.dtype) -> Any:
    if spec.pipeline is None:
        factory: Any = diffusers.AutoPipelineForImage2Image
    else:
        factory = getattr(diffusers, spec.pipeline, None)
        if factory is None:
            raise ValueError(f"diffusers {diffusers.__version__} has no pipeline {spec.pipeline!r}")
    index = diffusers.DiffusionPipeline.load_config(folder)
    # A checker left in place would turn refused pictures black without a word.
    off = {"safety_checker": None, "requires_safety_checker": False} if "safety_checker" in index else {}
    return factory.from_pretrained(
        folder, dtype=dtype, use_safetensors=True, local_files_only=True, trust_remote_code=False, **off
    )
