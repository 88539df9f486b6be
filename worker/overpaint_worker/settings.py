"""What an operator sets for workers and keepers."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field, SecretStr, field_validator

from overpaint_common.settings import AccessSettings, PrefixList
from overpaint_worker.engine.registry import Registry


class KeeperSettings(AccessSettings):
    """Read from `OVERPAINT_...`, as the shared settings are."""

    read: PrefixList = Field((), validate_default=True)
    write: PrefixList = Field((), validate_default=True)
    lease: Annotated[float, Field(ge=1, le=600)] = 30
    """Seconds after which a silent worker's jobs go to another; renewed three times in that span."""
    log_level: Literal["DEBUG", "INFO", "WARNING", "ERROR"] = "INFO"
    """Logs go to standard error."""

    @field_validator("read", "write")
    @classmethod
    def _allows_something(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        if not value:
            raise ValueError("empty, so this worker would refuse every job; list the prefixes that jobs may use")
        return value


class WorkerSettings(KeeperSettings):
    """What only a worker needs besides."""

    registry: Path | None = None
    """TOML file of the models; None serves the small model that ships with the worker."""
    slots: Annotated[int, Field(ge=1, le=256)] = 16
    """Jobs in hand at once: those on the device share its forwards, while others are fetched, prepared and stored."""
    grace: Annotated[float, Field(ge=0)] = 120
    """Seconds that a stopping worker may take to finish what it has begun; what it cannot goes back to the queue."""
    max_source_bytes: Annotated[int, Field(ge=1)] = 100 * 1024 * 1024
    max_source_pixels: Annotated[int, Field(ge=1)] = 100_000_000
    cpu_threads: Annotated[int, Field(ge=0)] = 0
    """Threads that torch may use on the CPU; 0 leaves the choice to torch."""
    model_bytes: Annotated[int, Field(ge=0)] = 0
    """Of weights on the device at once; 0 takes 60 % of it. Those used last stay, and a larger model is offloaded."""
    cache_bytes: Annotated[int, Field(ge=0)] = 256 * 1024 * 1024
    """Of prompt embeddings and encoded sources that each model keeps."""
    compilation: Literal["off", "default", "graphs"] = "off"
    """Compile denoisers for their native size when they are loaded: torch.compile, and with CUDA graphs."""
    compile_cache: Path | None = None
    """Folder where compiled kernels are kept between starts."""
    channels_last: bool = False
    """Keep the weights of convolutions in that memory layout."""
    accept_submissions: bool = True
    """Serve `overpaint.submit`, whole jobs sent as plain Celery messages."""
    submit_secret: SecretStr | None = None
    """Once set, `overpaint.submit` takes only jobs that are signed with it."""
    step_limit: Annotated[float, Field(gt=0)] = 300
    """Seconds from one denoising step to the next after which the engine counts as hanging."""
    load_limit: Annotated[float, Field(gt=0)] = 1800
    """The same for loading a model."""
    keeper: bool = True
    """Whether the supervisor runs a keeper."""

    def open_registry(self) -> Registry:
        """The models; raises SettingsError."""
        return Registry.load(self.registry) if self.registry is not None else Registry.embedded()
