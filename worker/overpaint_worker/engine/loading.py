"""Loading a registry entry into a diffusers pipeline."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any

import diffusers
import torch
import transformers
from huggingface_hub.errors import HfHubHTTPError, OfflineModeIsEnabled
from huggingface_hub.utils import httpx  # type: ignore[attr-defined]  # The client's package, whose name changes.

from overpaint_common.errors import ModelLoadFailed, ModelUnreachable
from overpaint_common.result import ModelInfo
from overpaint_worker.engine import vetting
from overpaint_worker.engine.registry import ModelSpec, Registry
from overpaint_worker.engine.whole import WholeModel


class PipelineLoader:
    """Loads the models of a registry onto one device ("cpu", "cuda")."""

    def __init__(self, registry: Registry, device: str) -> None:
        self._registry = registry
        self._device = device

    def __call__(self, name: str) -> WholeModel:
        """Load `name`, from safetensors only and without remote code.

        Raises ModelLoadFailed, or ModelUnreachable where only its repository is out of reach; UnknownModel.
        """
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
            outage = _outage(error)
            if outage is not None:
                raise ModelUnreachable(
                    f"model {name!r} cannot be fetched from {spec.repository}: {type(outage).__name__}: {outage}; "
                    "check the network, the proxy and HF_ENDPOINT, or keep it on disk and name its folder as path"
                ) from error
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
    """The dtype to run in; `auto` is half precision on CUDA and float32 elsewhere, where half precision is slow."""
    if spec.dtype != "auto":
        named: torch.dtype = getattr(torch, spec.dtype)
        return named
    if not device.startswith("cuda"):
        return torch.float32
    # Flux and T5 overflow in float16.
    return torch.bfloat16 if spec.family == "flow-matching" else torch.float16


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


def _outage(error: BaseException | None) -> BaseException | None:
    """The cause of `error` that says that the hub was down or out of reach; None where something else went wrong."""
    while error is not None:
        if isinstance(error, OfflineModeIsEnabled):  # Somebody wants it so, and it passes for a ConnectionError.
            return None
        if isinstance(error, HfHubHTTPError):
            status = error.response.status_code
            return error if status >= 500 or status in (408, 429) else None
        if isinstance(error, httpx.TransportError | ConnectionError | TimeoutError):
            return error
        error = error.__cause__
    return None


def _quiet() -> None:
    # A worker's log is no terminal. Their warnings tell at each start that there is no torchvision, and print prompts.
    for library in (diffusers, transformers):
        library.utils.logging.disable_progress_bar()
        library.utils.logging.set_verbosity_error()


def _load(spec: ModelSpec, folder: Path, dtype: torch.dtype) -> Any:
    vetting.check_folder(folder)
    factory = diffusers.AutoPipelineForImage2Image if spec.pipeline is None else vetting.named_class(spec.pipeline)
    index = diffusers.DiffusionPipeline.load_config(folder)
    # diffusers misses parts saved as absent, such as SD3's third text encoder, unless they are passed.
    absent: dict[str, Any] = {name: None for name, part in index.items() if isinstance(part, list) and part[0] is None}
    # A checker left in place would turn refused pictures black without a word.
    if "safety_checker" in index:
        absent |= {"safety_checker": None, "requires_safety_checker": False}
    pipeline = factory.from_pretrained(
        folder, dtype=dtype, use_safetensors=True, local_files_only=True, trust_remote_code=False, **absent
    )
    vetting.check_class(type(pipeline))
    vetting.check_steps_rule(type(pipeline), spec.steps_rule, spec.family)
    return pipeline
