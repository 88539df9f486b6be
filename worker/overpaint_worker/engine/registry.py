"""The model registry: which models a worker serves, from a TOML file that the operator writes."""

from __future__ import annotations

import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal, Self, TypeVar

from pydantic import ConfigDict, Field, ValidationError, model_validator

from overpaint_common.errors import SettingsError, UnknownModel
from overpaint_common.fleet import EmbeddingWord, Reads
from overpaint_common.frozen import Frozen
from overpaint_common.job import ModelName, explain
from overpaint_common.passes import RegistryName
from overpaint_common.schedulers import FLOW_SCHEDULERS, SCHEDULERS, SchedulerName
from overpaint_common.steps import StepsRule

Family = Literal["stable-diffusion", "stable-diffusion-xl", "flow-matching"]

_STEPS_RULES: Mapping[Family, StepsRule] = {
    "stable-diffusion": "floor",
    "stable-diffusion-xl": "floor",
    "flow-matching": "ceil",
}

Task = Literal["repaint", "inpaint", "upscale", "edit"]

_OPERATIONS: Mapping[Task, tuple[str, ...]] = {
    "repaint": ("img2img", "inpaint", "match_color"),
    "inpaint": ("inpaint", "match_color"),
    "upscale": ("upscale", "match_color"),
    "edit": ("edit", "match_color"),
}

MODELS = Path(__file__).parent.parent / "models"
EMBEDDED = MODELS / "overpaint-mini"


class Weights(Frozen):
    """Where a set of weights is. The docstring of a field is its meaning on the settings page."""

    model_config = ConfigDict(use_attribute_docstrings=True)

    path: Path | None = None
    """Folder in the diffusers layout; a relative one counts from the registry's folder. Either this or `repository`."""
    repository: Annotated[str, Field(pattern=r"^[\w.-]+/[\w.-]+$")] | None = None
    """`owner/name` on the model hub; needs `revision`."""
    revision: Annotated[str, Field(pattern=r"^[0-9a-f]{40}$")] | None = None
    """The full commit, 40 hexadecimal digits: a branch could change under a running fleet."""

    @model_validator(mode="after")
    def _one_place(self) -> Self:
        if (self.path is None) == (self.repository is None):
            raise ValueError("give exactly one of path and repository")
        if self.repository is not None and self.revision is None:
            raise ValueError(f"repository {self.repository!r} needs a revision: the full 40-digit commit")
        return self


class ControlSpec(Weights):
    """A control network of a model: a folder in the diffusers layout, `[models.<name>.controls.<control>]`."""

    reads: Reads = "picture"
    depth: Weights | None = None
    """For depth: a folder of a depth estimation model in the transformers layout."""

    @model_validator(mode="after")
    def _has_depth(self) -> Self:
        if (self.reads == "depth") != (self.depth is not None):
            raise ValueError("depth names the model that estimates it, and goes with reads = 'depth' alone")
        return self


class FileSpec(Weights):
    """A LoRA or a textual inversion: a safetensors file, or a folder or repository that holds it."""

    file: Annotated[str, Field(pattern=r"^[\w./-]+\.safetensors$")] | None = None
    """Its name within the folder or repository; None where `path` is the file itself."""


class ModelSpec(Weights):
    """One entry: `[models.<name>]` in the TOML file; weights are a folder in the diffusers layout."""

    task: Task = "repaint"
    """What the model was made for: `repaint` serves `img2img` and `inpaint`; `inpaint` is a model that takes masks as
    input (9 channels); `upscale` enlarges four times; `edit` follows instructions. All serve `match_color`."""
    family: Family = "stable-diffusion"
    """Decides how many steps a strength leaves."""
    pipeline: Annotated[str, Field(pattern=r"^[A-Z]\w+Pipeline$")] | None = None
    """Pipeline class of diffusers that fits the task; without it diffusers chooses by the model's own index."""
    dtype: Literal["auto", "float32", "float16", "bfloat16"] = "auto"
    """`auto` is `float32` on the CPU, on CUDA `float16`, or `bfloat16` for `flow-matching`."""
    native_size: Annotated[int, Field(ge=8, le=4096, multiple_of=8)] = 512
    """Pixels a side that the model was trained on; sources are fitted to it."""
    steps: Annotated[int, Field(ge=1, le=1000)] = 50
    """For jobs that name none."""
    guidance_scale: Annotated[float, Field(ge=0, le=100)] = 7.5
    """For jobs that name none."""
    max_steps: Annotated[int, Field(ge=1, le=1000)] = 200
    """The most that a job may ask for."""
    max_size: Annotated[int, Field(ge=8, le=8192)] = 2048
    """The largest side in pixels that a pass may paint; an upscaler's tiles have no such limit."""
    scheduler: SchedulerName | None = None
    """For jobs that name none; for `flow-matching` only `euler` and `heun`. Without it the model's own."""
    safety: Literal["off", "fail"] = "off"
    """`fail` loads the model's own safety checker: a job whose picture it refuses fails with `unsafe_picture`; `off`
    loads none."""
    controls: dict[RegistryName, ControlSpec] = Field(default_factory=dict)
    """Control networks, see below."""
    loras: dict[RegistryName, FileSpec] = Field(default_factory=dict)
    """Low-rank adaptations that passes choose by name, see below."""
    embeddings: dict[EmbeddingWord, FileSpec] = Field(default_factory=dict)
    """Textual inversions that prompts use by their word, see below."""

    @model_validator(mode="after")
    def _fits_task(self) -> Self:
        if self.controls and self.task != "repaint":
            raise ValueError(f"controls go with task 'repaint', not with {self.task!r}")
        return self

    @property
    def operations(self) -> tuple[str, ...]:
        return _OPERATIONS[self.task]

    @property
    def schedulers(self) -> tuple[SchedulerName, ...]:
        return FLOW_SCHEDULERS if self.family == "flow-matching" else SCHEDULERS

    @property
    def steps_rule(self) -> StepsRule:
        return _STEPS_RULES[self.family]


class Registry(Frozen):
    """All models that a worker may load, by name."""

    models: Annotated[dict[ModelName, ModelSpec], Field(min_length=1)]

    @classmethod
    def load(cls, file: Path) -> Registry:
        """Read a TOML file; relative model paths count from its folder. Raises SettingsError with all that is wrong."""
        try:
            document = tomllib.loads(file.read_text(encoding="utf-8"))
        except OSError as error:
            raise SettingsError(
                f"model registry {file.absolute()}: {error.strerror}; set OVERPAINT_REGISTRY to a TOML file"
            ) from None
        except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
            raise SettingsError(f"model registry {file} is not TOML: {error}") from None
        try:
            registry = cls.model_validate(document)
        except ValidationError as error:
            raise SettingsError(f"model registry {file}: {explain(error)}") from None
        return cls(models=_all_rooted(registry.models, file.parent.absolute()))

    @classmethod
    def embedded(cls) -> Registry:
        """The small models that ship with the worker."""
        canny = ControlSpec(path=MODELS / "overpaint-mini-canny", reads="edges")
        mini = ModelSpec(
            path=EMBEDDED, native_size=64, steps=40, guidance_scale=4.0, max_size=512, controls={"canny": canny}
        )
        upscaler = ModelSpec(
            path=MODELS / "overpaint-mini-upscaler",
            task="upscale",
            native_size=64,
            steps=20,
            guidance_scale=1.0,
            max_size=512,
        )
        return cls(models={"overpaint-mini": mini, "overpaint-mini-upscaler": upscaler})

    def __getitem__(self, name: str) -> ModelSpec:
        try:
            return self.models[name]
        except KeyError:
            known = ", ".join(sorted(self.models))
            raise UnknownModel(f"model {name!r} is not in this worker's registry, which has {known}") from None


def _all_rooted(models: Mapping[str, ModelSpec], folder: Path) -> dict[str, ModelSpec]:
    rooted, wrong = {}, []
    for name, spec in models.items():
        try:
            rooted[name] = _rooted(spec, folder)
        except SettingsError as error:
            wrong.append(str(error))
    if wrong:
        raise SettingsError("; ".join(wrong))
    return rooted


def _rooted(spec: ModelSpec, folder: Path) -> ModelSpec:
    parts: dict[str, Any] = {
        "controls": {name: _rooted_control(control, folder) for name, control in spec.controls.items()},
        "loras": {name: _rooted_file(lora, folder) for name, lora in spec.loras.items()},
        "embeddings": {word: _rooted_file(learnt, folder) for word, learnt in spec.embeddings.items()},
    }
    return _placed(spec, folder, "model_index.json").model_copy(update=parts)


def _rooted_control(control: ControlSpec, folder: Path) -> ControlSpec:
    depth = None if control.depth is None else _placed(control.depth, folder, "config.json")
    return _placed(control, folder, "config.json").model_copy(update={"depth": depth})


def _rooted_file(spec: FileSpec, folder: Path) -> FileSpec:
    placed = _placed(spec, folder)
    if placed.path is not None:
        file = placed.path / (spec.file or "")
        if not (file.is_file() and file.suffix == ".safetensors"):
            raise SettingsError(f"model registry: {file} is no safetensors file; name one, by path and file")
    return placed


_Placed = TypeVar("_Placed", bound=Weights)


def _placed(spec: _Placed, folder: Path, holds: str = "") -> _Placed:
    """With its path counted from `folder`; raises SettingsError where that holds no file called `holds`."""
    if spec.path is None:
        return spec
    path = folder / spec.path
    if not (path / holds).exists():
        what = f"holds no {holds}; name a folder in the diffusers layout" if holds else "does not exist"
        raise SettingsError(f"model registry: {path} {what}")
    return spec.model_copy(update={"path": path})
