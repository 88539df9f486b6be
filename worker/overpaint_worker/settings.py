"""What an operator sets for workers and keepers."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field, SecretStr, field_validator

from overpaint_common.errors import SettingsError
from overpaint_common.settings import AccessSettings
from overpaint_worker.devices import find_devices
from overpaint_worker.engine.registry import Registry


class KeeperSettings(AccessSettings):
    """What workers and keepers read besides; where the shared settings come from, these do too."""

    lease: Annotated[float, Field(ge=1, le=600)] = 30
    """Seconds that a worker's claim on a job lasts unless it is renewed, three times in that span; 1 to 600. Shorter,
    and the jobs of a dead worker come back sooner; but one that is silent for so long, paused or cut off, loses its
    jobs to others, which paint them again. The same everywhere."""
    log_level: Literal["DEBUG", "INFO", "WARNING", "ERROR"] = "INFO"
    """Logs go to stderr."""

    @field_validator("read", "write")
    @classmethod
    def _allows_something(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        if not value:
            raise ValueError("empty, so this worker would refuse every job; list the prefixes that jobs may use")
        return value


class WorkerSettings(KeeperSettings):
    """What only a worker needs besides."""

    registry: Path | None = None
    """TOML file of the models; without one the small model that ships with Overpaint is served."""
    slots: Annotated[int, Field(ge=1, le=256)] = 16
    """Jobs in hand at once: those on the device share its forwards, while others are fetched, prepared and stored."""
    grace: Annotated[float, Field(ge=0)] = 120
    """Seconds that a worker told to stop may take to finish what it has begun; shortly before, what is unfinished goes
    back to the queue."""
    max_source_bytes: Annotated[int, Field(ge=1)] = 100 * 1024 * 1024
    """A larger source fails with `source_too_large`."""
    max_source_pixels: Annotated[int, Field(ge=1)] = 100_000_000
    """A source of more pixels fails with `source_too_large`, before it is decoded."""
    cpu_threads: Annotated[int, Field(ge=0)] = 0
    """Threads that torch may use on the CPU; 0 leaves the choice to torch."""
    model_bytes: Annotated[int, Field(ge=0)] = 0
    """Bytes of weights on the device at once; 0 takes 60 % of its memory. The least recently used model leaves when
    another needs the room; one that is larger than all of it is offloaded to the host's memory part by part."""
    cache_bytes: Annotated[int, Field(ge=0)] = 256 * 1024 * 1024
    """Bytes of prompt embeddings and encoded sources that each model keeps."""
    compilation: Literal["off", "default", "graphs"] = "off"
    """`off` runs denoisers as they are; `default` compiles denoisers (torch.compile) for pictures of their native size
    while they are loaded, which takes minutes; `graphs` runs them as CUDA graphs besides. Pictures of other sizes, and
    models with LoRAs, run uncompiled."""
    compile_cache: Path | None = None
    """Folder where compiled kernels are kept, so that the next start takes less."""
    channels_last: bool = False
    """Keep the weights of convolutions in that memory layout, which CUDA devices compute faster in half precision."""
    accept_submissions: bool = True
    """Serve `overpaint.submit`, whole jobs sent by clients in other languages."""
    submit_secret: SecretStr | None = None
    """Once set, `overpaint.submit` takes only jobs that are signed with it; the same for all workers."""
    step_limit: Annotated[float, Field(gt=0)] = 300
    """Seconds from one denoising step to the next, encoding and decoding included, after which the engine counts as
    hanging."""
    load_limit: Annotated[float, Field(gt=0)] = 1800
    """The same for loading a model."""
    keeper: bool = True
    """Run a keeper in the supervisor; `false` only where `overpaint keeper` runs, for at least one has to."""
    devices: str = "auto"
    """The same as `--devices`, which counts before it: `auto` (every CUDA device, else the CPU), `cpu`, or CUDA
    indices such as `0,1`."""

    @field_validator("registry")
    @classmethod
    def _is_a_registry(cls, value: Path | None) -> Path | None:
        if value is not None:
            try:
                Registry.load(value)
            except SettingsError as error:
                raise ValueError(str(error)) from None
        return value

    @field_validator("devices", mode="before")
    @classmethod
    def _listed(cls, value: object) -> object:
        items = value if isinstance(value, list) else [value]
        return ",".join(map(str, items)) if items and {type(item) for item in items} <= {int, str} else value

    @field_validator("devices")
    @classmethod
    def _are_devices(cls, value: str) -> str:
        if value != "auto":
            try:
                find_devices(value)
            except SettingsError as error:
                raise ValueError(str(error)) from None
        return value

    def open_registry(self) -> Registry:
        """The models; raises SettingsError."""
        return Registry.load(self.registry) if self.registry is not None else Registry.embedded()
