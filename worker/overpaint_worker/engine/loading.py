"""Loading a registry entry into a diffusers pipeline."""

from __future__ import annotations

import hashlib
import logging
import math
import re
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import diffusers
import torch
import transformers
from huggingface_hub import hf_hub_download, snapshot_download
from huggingface_hub.errors import HfHubHTTPError, OfflineModeIsEnabled
from huggingface_hub.utils import httpx  # type: ignore[attr-defined]  # The client's package, whose name changes.
from PIL import Image
from safetensors import safe_open

from overpaint_common.errors import ModelLoadFailed, ModelUnreachable
from overpaint_common.result import ModelInfo
from overpaint_worker.engine import schedulers, vetting
from overpaint_worker.engine.acceleration import Acceleration
from overpaint_worker.engine.adapters import Adapters, learn_word
from overpaint_worker.engine.calls import Call, ControlInput
from overpaint_worker.engine.controls import ControlNetwork, load_depth, load_network
from overpaint_worker.engine.memory import Memory
from overpaint_worker.engine.model import CACHE_BYTES, PipelineModel
from overpaint_worker.engine.registry import ControlSpec, FileSpec, ModelSpec, Registry, Task, Weights
from overpaint_worker.engine.residents import Budget
from overpaint_worker.engine.safety import load_checker

log = logging.getLogger(__name__)

VARIANT = re.compile(r"\.(fp16|bf16|fp32|ema|non_ema)\.|\.non_ema|_ema")
"""In the names of files that hold the same weights another way."""
SHARE_OF_WEIGHTS = 0.6
"""Of the device's memory, where nobody says otherwise."""


@dataclass(frozen=True, slots=True)
class Tuning:
    """How models are held and run, beside what the registry says of each."""

    acceleration: Acceleration = field(default_factory=Acceleration)
    model_bytes: int = 0
    """Of weights on the device at once; 0 takes SHARE_OF_WEIGHTS of it. A larger model is offloaded."""
    cache_bytes: int = CACHE_BYTES
    """Of prompt embeddings and VAE posteriors, for each model."""
    warm_up: bool = False
    """Run each model once as part of loading it."""


class PipelineLoader:
    """Loads the models of a registry onto one device ("cpu", "cuda")."""

    def __init__(self, registry: Registry, device: str, tuning: Tuning | None = None) -> None:
        self._registry = registry
        self._device = device
        self._tuning = tuning or Tuning()
        self._memory = Memory(device)

    @property
    def budget(self) -> Budget:
        """Of the weights that may be loaded at once."""
        total = self._tuning.model_bytes or int(self._memory.total * SHARE_OF_WEIGHTS)
        return Budget(total, self._foretold, lambda model: model.bytes if isinstance(model, PipelineModel) else 0)

    def _foretold(self, name: str) -> int | None:
        """Bytes that a model's weights will take; None where they have not been downloaded yet."""
        spec = self._registry[name]
        if spec.path is None:
            return None
        return _bytes_of(spec.path, dtype_of(spec, self._device))

    def __call__(self, name: str) -> PipelineModel:
        """Load `name`, from safetensors only and without remote code, and warm it up if it is to be.

        Raises ModelLoadFailed, or ModelUnreachable where only its repository is out of reach; UnknownModel.
        """
        spec = self._registry[name]
        dtype = dtype_of(spec, self._device)
        _quiet()
        began = time.monotonic()
        log.info("loading model=%s from=%s", name, spec.path or spec.repository)
        try:
            model = self._loaded(name, spec, dtype)
            log.info("model loaded model=%s bytes=%d seconds=%.1f", name, model.bytes, time.monotonic() - began)
            return model
        except Exception as error:
            part = error if isinstance(error, PartFailed) else None
            outage = _outage(error)
            if outage is not None:
                place = spec.repository if part is None else part.place
                raise ModelUnreachable(
                    f"model {name!r} cannot be fetched from {place}: {type(outage).__name__}: {outage}; "
                    "check the network, the proxy and HF_ENDPOINT, or keep it on disk and name its folder as path"
                ) from error
            raise ModelLoadFailed(
                f"model {name!r} does not load from {spec.path or spec.repository}: {type(error).__name__}: {error}; "
                "check the registry entry and its files"
            ) from (error if part is None else part.__cause__)

    def _loaded(self, name: str, spec: ModelSpec, dtype: torch.dtype) -> PipelineModel:
        folder = folder_of(spec)
        pipeline = _load(spec, folder, dtype)
        pipeline.set_progress_bar_config(disable=True)
        beside = _Beside(pipeline, dtype, self._device)
        beside.load(spec)
        if _bytes_of(folder, dtype) > self.budget.total:
            log.warning("model %s is larger than the %d bytes for weights: it is offloaded", name, self.budget.total)
            pipeline.enable_model_cpu_offload(device=self._device)
        else:
            pipeline.to(self._device)
        safety = None if spec.safety == "off" else load_checker(folder, dtype, self._device)
        info = ModelInfo(
            name=name,
            revision=spec.revision or "local",
            digest=digest_of(folder, beside.places),
            pipeline=type(pipeline).__name__,
            scheduler=type(pipeline.scheduler).__name__,
            dtype=str(dtype).removeprefix("torch."),
        )
        acceleration = self._tuning.acceleration
        if beside.adapters.names and acceleration.compilation != "off":
            # Each exchange of LoRAs would compile anew.
            log.warning("model %s has LoRAs: it is not compiled", name)
            acceleration = replace(acceleration, compilation="off")
        model = PipelineModel(
            pipeline,
            info,
            controls=beside.controls,
            adapters=beside.adapters,
            safety=safety,
            cache_bytes=self._tuning.cache_bytes,
            acceleration=acceleration,
            memory=self._memory,
        )
        if self._tuning.warm_up:
            first = _first_call(name, spec)
            model.warm_up(first)
            # Not compiled for them now, they would be in the middle of a job.
            for control in spec.controls if acceleration.compilation != "off" else ():
                model.warm_up(replace(first, controls=(ControlInput(control, first.picture),)))
        return model


def _first_call(name: str, spec: ModelSpec) -> Call:
    """A short one of the model's native size."""
    side = spec.native_size
    picture = Image.new("RGB", (side, side), "grey")
    mask = Image.new("L", (side, side), 255) if spec.task == "inpaint" else None
    return Call(
        model=name,
        op=spec.operations[0],
        picture=picture,
        prompt="",
        negative_prompt="",
        steps=2,
        guidance_scale=2.0,
        seed=0,
        mask=mask,
    )


class PartFailed(ValueError):
    """Something that the registry names beside a model's own weights does not load."""

    def __init__(self, what: str, spec: Weights, error: Exception) -> None:
        self.place = spec.path or spec.repository
        super().__init__(f"its {what} from {self.place}: {type(error).__name__}: {error}")


class _Beside:
    """What the registry names beside a model's own weights: words and LoRAs become part of its pipeline."""

    def __init__(self, pipeline: Any, dtype: torch.dtype, device: str) -> None:
        self._pipeline, self._dtype, self._device = pipeline, dtype, device
        self.controls: dict[str, ControlNetwork] = {}
        self.adapters = Adapters(pipeline)
        self.places: dict[str, Path] = {}
        """Of all weights, by kind and name."""

    def load(self, spec: ModelSpec) -> None:
        """Raises PartFailed."""
        for word, file in spec.embeddings.items():
            with self._part(f"embedding {word!r}", file):
                learn_word(self._pipeline, word, self._placed(f"embeddings/{word}", file_of(file)))
        for name, file in spec.loras.items():
            with self._part(f"LoRA {name!r}", file):
                self.adapters.load(name, self._placed(f"loras/{name}", file_of(file)))
        for name, control in spec.controls.items():
            self.controls[name] = self._control(name, control)

    def _control(self, name: str, spec: ControlSpec) -> ControlNetwork:
        with self._part(f"control {name!r}", spec):
            folder = self._placed(f"controls/{name}", part_folder_of(spec))
            network = load_network(folder, self._dtype, self._pipeline).to(self._device)
        if spec.depth is None:
            return ControlNetwork(network)
        with self._part(f"depth model of control {name!r}", spec.depth):
            folder = self._placed(f"depth/{name}", part_folder_of(spec.depth))
            return ControlNetwork(network, load_depth(folder, self._dtype, self._device))

    def _placed(self, name: str, place: Path) -> Path:
        self.places[name] = place
        return place

    @contextmanager
    def _part(self, what: str, spec: Weights) -> Iterator[None]:
        try:
            yield
        except Exception as error:
            raise PartFailed(what, spec, error) from error


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


def part_folder_of(spec: Weights) -> Path:
    """The folder of one network, downloaded first where the entry names a repository."""
    if spec.path is not None:
        return spec.path
    wanted = ["*.json", "*.safetensors"]
    return Path(snapshot_download(str(spec.repository), revision=spec.revision, allow_patterns=wanted))


def file_of(spec: FileSpec) -> Path:
    """The safetensors file, downloaded first where the entry names a repository; raises ValueError for another."""
    if spec.path is not None:
        file = spec.path if spec.file is None else spec.path / spec.file
        if file.suffix != ".safetensors" or not file.is_file():
            raise ValueError(f"{file} is no safetensors file; name one, by path and file")
        return file
    if spec.file is None:
        raise ValueError(f"repository {spec.repository!r} may hold many files; name the one as file")
    return Path(hf_hub_download(str(spec.repository), spec.file, revision=spec.revision))


def digest_of(folder: Path, places: Mapping[str, Path]) -> str:
    """The `weight_digest` of a model's folder, or where other weights are loaded beside it, one over theirs as well.

    `places`: their folders and files, by name.
    """
    own = weight_digest(folder)
    if not places:
        return own
    others = {name: weight_digest(places[name]) if places[name].is_dir() else _content(places[name]) for name in places}
    return _total({"": own, **dict(sorted(others.items()))})


def _bytes_of(folder: Path, dtype: torch.dtype) -> int:
    """Of the weights of all parts in a model's folder, in that dtype; variants of them beside do not count."""
    files = [file for file in sorted(folder.glob("*/*.safetensors")) if not VARIANT.search(file.name)]
    return sum(map(_elements, files)) * int(dtype.itemsize)


def _elements(file: Path) -> int:
    with safe_open(file, framework="pt") as tensors:
        shapes = [tensors.get_slice(name).get_shape() for name in tensors.keys()]  # noqa: SIM118
        elements: int = sum(map(math.prod, shapes))
        return elements


def weight_digest(folder: Path) -> str:
    """Hex sha256 over the relative names and contents of all safetensors files below `folder`."""
    files = sorted(folder.rglob("*.safetensors"))
    return _total({file.relative_to(folder).as_posix(): _content(file) for file in files})


def _content(file: Path) -> str:
    with file.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def _total(digests: Mapping[str, str]) -> str:
    return hashlib.sha256("".join(f"{name}\0{digest}\n" for name, digest in digests.items()).encode()).hexdigest()


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


_FACTORIES: Mapping[Task, Any] = {
    "repaint": diffusers.AutoPipelineForImage2Image,
    "inpaint": diffusers.AutoPipelineForInpainting,
    # These have no automatic class: the model's own index says which pipeline it is for.
    "upscale": diffusers.DiffusionPipeline,
    "edit": diffusers.DiffusionPipeline,
}


def _load(spec: ModelSpec, folder: Path, dtype: torch.dtype) -> Any:
    vetting.check_folder(folder)
    factory = _FACTORIES[spec.task] if spec.pipeline is None else vetting.named_class(spec.pipeline, spec.task)
    index = diffusers.DiffusionPipeline.load_config(folder)
    # diffusers misses parts saved as absent, such as SD3's third text encoder, unless they are passed.
    absent: dict[str, Any] = {name: None for name, part in index.items() if isinstance(part, list) and part[0] is None}
    # A checker left in place would turn refused pictures black without a word.
    if "safety_checker" in index:
        absent |= {"safety_checker": None, "requires_safety_checker": False}
    pipeline = factory.from_pretrained(
        folder, dtype=dtype, use_safetensors=True, local_files_only=True, trust_remote_code=False, **absent
    )
    vetting.check_class(type(pipeline), spec.task)
    vetting.check_steps_rule(type(pipeline), spec.steps_rule, spec.family)
    if spec.scheduler is not None:
        pipeline.scheduler = schedulers.make(spec.scheduler, pipeline.scheduler)
    return pipeline
