"""What an operator sets for a worker."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field, field_validator

from overpaint_common.settings import AccessSettings, PrefixList
from overpaint_worker.engine.registry import Registry


class WorkerSettings(AccessSettings):
    """Read from `OVERPAINT_...`, as the shared settings are."""

    read: PrefixList = Field((), validate_default=True)
    write: PrefixList = Field((), validate_default=True)
    registry: Path | None = None
    """TOML file of the models; None serves the small model that ships with the worker."""
    slots: Annotated[int, Field(ge=1, le=256)] = 8
    """Jobs in hand at once: while one is on the device, the others are fetched, prepared and stored."""
    grace: Annotated[float, Field(ge=0)] = 120
    """Seconds that a stopping worker may take to finish what it has begun; what it cannot goes back to the queue."""
    max_source_bytes: Annotated[int, Field(ge=1)] = 100 * 1024 * 1024
    max_source_pixels: Annotated[int, Field(ge=1)] = 100_000_000
    cpu_threads: Annotated[int, Field(ge=0)] = 0
    """Threads that torch may use on the CPU; 0 leaves the choice to torch."""
    log_level: Literal["DEBUG", "INFO", "WARNING", "ERROR"] = "INFO"
    """Logs go to standard error."""
    accept_submissions: bool = True
    """Serve `overpaint.submit`, whole jobs sent as plain Celery messages."""

    @field_validator("read", "write")
    @classmethod
    def _allows_something(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        if not value:
            raise ValueError("empty, so this worker would refuse every job; list the prefixes that jobs may use")
        return value

    def open_registry(self) -> Registry:
        """The models; raises SettingsError."""
        return Registry.load(self.registry) if self.registry is not None else Registry.embedded()
