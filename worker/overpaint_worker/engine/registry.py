"""The model registry: which models a worker serves, from a TOML file that the operator writes."""

from __future__ import annotations

import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field, ValidationError, model_validator

from overpaint_common.errors import SettingsError, UnknownModel
from overpaint_common.frozen import Frozen
from overpaint_common.job import ModelName, explain
from overpaint_common.steps import StepsRule

Family = Literal["stable-diffusion", "stable-diffusion-xl", "flow-matching"]

_STEPS_RULES: Mapping[Family, StepsRule] = {
    "stable-diffusion": "floor",
    "stable-diffusion-xl": "floor",
    "flow-matching": "ceil",
}

EMBEDDED = Path(__file__).parent.parent / "models" / "overpaint-mini"


class ModelSpec(Frozen):
    """One entry: `[models.<name>]` in the TOML file."""

    path: Path | None = None
    """Folder in the diffusers layout. Exactly one of `path` and `repository` is given."""
    repository: Annotated[str, Field(pattern=r"^[\w.-]+/[\w.-]+$")] | None = None
    """On a model hub, together with `revision`."""
    revision: Annotated[str, Field(pattern=r"^[0-9a-f]{40}$")] | None = None
    """The full commit: a branch could change under a running fleet."""
    family: Family = "stable-diffusion"
    pipeline: Annotated[str, Field(pattern=r"^[A-Z]\w+Pipeline$")] | None = None
    """A pipeline class of diffusers; None lets diffusers choose by the model's own index."""
    dtype: Literal["auto", "float32", "float16", "bfloat16"] = "auto"
    """auto: float32 on the CPU; on CUDA float16, or bfloat16 for flow-matching."""
    native_size: Annotated[int, Field(ge=8, le=4096, multiple_of=8)] = 512
    """Pixels a side that the model was trained on."""
    steps: Annotated[int, Field(ge=1, le=1000)] = 50
    """Default for jobs that name none."""
    guidance_scale: Annotated[float, Field(ge=0, le=100)] = 7.5
    """Default for jobs that name none."""
    max_steps: Annotated[int, Field(ge=1, le=1000)] = 200
    max_size: Annotated[int, Field(ge=8, le=8192)] = 2048
    """Largest side in pixels that a job may ask for."""

    @model_validator(mode="after")
    def _one_place(self) -> ModelSpec:
        if (self.path is None) == (self.repository is None):
            raise ValueError("give exactly one of path and repository")
        if self.repository is not None and self.revision is None:
            raise ValueError(f"repository {self.repository!r} needs a revision: the full 40-digit commit")
        return self

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
                f"model registry {file}: {error.strerror}; set OVERPAINT_REGISTRY to a TOML file"
            ) from None
        except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
            raise SettingsError(f"model registry {file} is not TOML: {error}") from None
        try:
            registry = cls.model_validate(document)
        except ValidationError as error:
            raise SettingsError(f"model registry {file}: {explain(error)}") from None
        return cls(models={name: _rooted(spec, file.parent.absolute()) for name, spec in registry.models.items()})

    @classmethod
    def embedded(cls) -> Registry:
        """The one small model that ships with the worker."""
        return cls(
            models={
                "overpaint-mini": ModelSpec(path=EMBEDDED, native_size=64, steps=40, guidance_scale=4.0, max_size=512)
            }
        )

    def __getitem__(self, name: str) -> ModelSpec:
        try:
            return self.models[name]
        except KeyError:
            known = ", ".join(sorted(self.models))
            raise UnknownModel(f"model {name!r} is not in this worker's registry, which has {known}") from None


def _rooted(spec: ModelSpec, folder: Path) -> ModelSpec:
    if spec.path is None:
        return spec
    path = folder / spec.path
    if not (path / "model_index.json").is_file():
        raise SettingsError(f"model registry: {path} holds no model_index.json; name a folder in the diffusers layout")
    return spec.model_copy(update={"path": path})
