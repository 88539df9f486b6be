"""Settings from the environment (`OVERPAINT_...`), read when asked for and never at import."""

from __future__ import annotations

from typing import Annotated, Any, Literal, Self

from pydantic import AfterValidator, Field, SecretStr, ValidationError, ValidationInfo, field_validator
from pydantic_settings import BaseSettings, NoDecode, SettingsConfigDict
from redis import Redis

from overpaint_common.errors import SettingsError
from overpaint_common.job import Location, explain
from overpaint_common.receivers import receiver_pattern
from overpaint_common.references import PrefixUri, Reference
from overpaint_common.storage import Access, ObjectStore, S3Options, WeakStore, open_store
from overpaint_common.webhooks import MAKE_SECRET, decode_secret

PrefixList = Annotated[tuple[PrefixUri, ...], NoDecode]
ReceiverList = Annotated[tuple[Annotated[str, AfterValidator(receiver_pattern)], ...], NoDecode]


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
    weak_commits: bool = False
    """Accept a store without conditional writes: two workers that finish one job at once may both record it."""

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
        store = open_store(
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
        return WeakStore(store) if self.weak_commits else store

    @property
    def ledger_root(self) -> Reference:
        return Reference.parse(self.ledger)


MISSING_LEDGER = (
    "OVERPAINT_LEDGER: required; set it to the ledger's root, such as s3://my-ledger/ (`overpaint up` prints the "
    "settings of a local stack)"
)


def _variable(where: Location) -> str:
    return f"OVERPAINT_{where[0]}".upper()


def _keys(secrets: SecretStr) -> tuple[bytes, ...]:
    return tuple(decode_secret(text.strip()) for text in secrets.get_secret_value().split(","))


class AccessSettings(Settings):
    """Settings of whoever touches what jobs name: the operator's allowlists. Empty means none."""

    read: PrefixList = ()
    """Prefixes that jobs may read, separated by commas."""
    write: PrefixList = ()
    """Prefixes that jobs may write, separated by commas."""
    webhooks: ReceiverList = ()
    """Receivers that jobs may name for their webhooks, separated by commas: hosts such as `hooks.example.com`."""
    webhook_private: bool = False
    """Send webhooks also to private, loopback and link-local addresses."""
    webhook_secret: SecretStr | None = Field(None, validate_default=True)
    """What webhooks are signed with: `whsec_...`. Several, separated by commas, sign each request with all of them."""

    @field_validator("webhook_secret")
    @classmethod
    def _signs(cls, value: SecretStr | None, info: ValidationInfo) -> SecretStr | None:
        if value is not None:
            _keys(value)
        elif info.data.get("webhooks"):
            raise ValueError(f"required once OVERPAINT_WEBHOOKS names a receiver; make one with: {MAKE_SECRET}")
        return value

    @property
    def webhook_keys(self) -> tuple[bytes, ...]:
        """What webhooks are signed with; nothing where none are sent."""
        return _keys(self.webhook_secret) if self.webhook_secret else ()

    @field_validator("read", "write", "webhooks", mode="before")
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
