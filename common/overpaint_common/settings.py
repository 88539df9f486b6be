"""Settings from the environment (`OVERPAINT_...`), read when asked for and never at import."""

from __future__ import annotations

from typing import Annotated, Any, Literal, Self

from pydantic import Field, SecretStr, ValidationError, field_validator
from pydantic_settings import BaseSettings, NoDecode, SettingsConfigDict
from redis import Redis

from overpaint_common.errors import SettingsError
from overpaint_common.job import Location, explain
from overpaint_common.references import PrefixUri, Reference
from overpaint_common.storage import Access, ObjectStore, S3Options, open_store

PrefixList = Annotated[tuple[PrefixUri, ...], NoDecode]


class Settings(BaseSettings):
    """What producers and workers share."""

    model_config = SettingsConfigDict(env_prefix="OVERPAINT_", frozen=True, extra="ignore", env_ignore_empty=True)

    redis_url: SecretStr = SecretStr("redis://127.0.0.1:6379/0")
    """`redis://`, `rediss://` for TLS, with user and password where needed."""
    ledger: PrefixUri
    """Root of the ledger, outside every prefix that jobs may read or write: `s3://bucket/prefix/` or `file:///...`."""
    s3_endpoint_url: str | None = None
    """For stores other than AWS."""
    s3_region: str | None = None
    s3_addressing_style: Literal["auto", "path", "virtual"] = "auto"
    s3_max_attempts: Annotated[int, Field(ge=1, le=20)] = 5
    s3_connect_timeout: Annotated[float, Field(gt=0)] = 5
    """Seconds."""
    s3_read_timeout: Annotated[float, Field(gt=0)] = 30
    """Seconds."""
    s3_max_connections: Annotated[int, Field(ge=1)] = 32

    @field_validator("redis_url")
    @classmethod
    def _redis_url(cls, value: SecretStr) -> SecretStr:
        try:
            Redis.from_url(value.get_secret_value())  # Parses; nothing is connected yet.
        except ValueError:
            raise ValueError(
                "not a Redis URL; write redis://[user:password@]host:port/database, or rediss:// for TLS, with special "
                "characters of the password percent-encoded"
            ) from None
        return value

    @classmethod
    def load(cls, **given: Any) -> Self:
        """Read the environment; raises SettingsError listing everything that is wrong at once."""
        try:
            return cls(**given)
        except ValidationError as error:
            raise SettingsError(
                explain(error, _variable).replace("OVERPAINT_LEDGER: required", MISSING_LEDGER)
            ) from None

    def open_store(self) -> ObjectStore:
        return open_store(
            S3Options(
                endpoint_url=self.s3_endpoint_url,
                region=self.s3_region,
                addressing_style=self.s3_addressing_style,
                max_attempts=self.s3_max_attempts,
                connect_timeout=self.s3_connect_timeout,
                read_timeout=self.s3_read_timeout,
                max_connections=self.s3_max_connections,
            )
        )

    @property
    def ledger_root(self) -> Reference:
        return Reference.parse(self.ledger)


MISSING_LEDGER = (
    "OVERPAINT_LEDGER: required; set it to the ledger's root, such as s3://my-ledger/ (`overpaint up` prints the "
    "settings of a local stack)"
)


def _variable(where: Location) -> str:
    return f"OVERPAINT_{where[0]}".upper()


class AccessSettings(Settings):
    """Settings of whoever touches what jobs name: the operator's allowlists. Empty means none."""

    read: PrefixList = ()
    """Prefixes that jobs may read, separated by commas."""
    write: PrefixList = ()
    """Prefixes that jobs may write, separated by commas."""

    @field_validator("read", "write", mode="before")
    @classmethod
    def _split(cls, value: object) -> object:
        return [part.strip() for part in value.split(",") if part.strip()] if isinstance(value, str) else value

    @property
    def access(self) -> Access:
        return Access(
            read=tuple(Reference.parse(prefix) for prefix in self.read),
            write=tuple(Reference.parse(prefix) for prefix in self.write),
            ledger=self.ledger_root,
        )
