"""Settings of producers, and of all programs that touch what jobs name; read when asked for and never at import."""

from __future__ import annotations

import re
from typing import Annotated, Any, Literal, Self
from urllib.parse import urlsplit

from pydantic import AfterValidator, Field, SecretStr, ValidationError, ValidationInfo, field_validator
from pydantic_settings import BaseSettings, NoDecode, PydanticBaseSettingsSource, SettingsConfigDict
from redis import Redis

from overpaint_common.configuration import (
    MASK,
    PREFIX,
    Reading,
    file_source,
    is_secret,
    masked_url,
    told,
    unknown_variables,
)
from overpaint_common.errors import SettingsError
from overpaint_common.receivers import receiver_pattern
from overpaint_common.references import PrefixUri, Reference
from overpaint_common.storage import Access, ObjectStore, S3Options, WeakStore, open_store
from overpaint_common.webhooks import MAKE_SECRET, decode_secret

PrefixList = Annotated[tuple[PrefixUri, ...], NoDecode]
ReceiverList = Annotated[tuple[Annotated[str, AfterValidator(receiver_pattern)], ...], NoDecode]


class Settings(BaseSettings):
    """What all programs share. Arguments count before the environment, and that before the file.

    The docstring of a field is its meaning on the settings page.
    """

    model_config = SettingsConfigDict(
        env_prefix=PREFIX,
        env_ignore_empty=True,
        frozen=True,
        extra="ignore",
        allow_inf_nan=False,
        hide_input_in_errors=True,
        use_attribute_docstrings=True,
    )

    redis_url: SecretStr = SecretStr("redis://127.0.0.1:6379/0")
    """Redis: `redis://`, or `rediss://` for TLS, with user and password where needed."""
    ledger: Annotated[PrefixUri, Field(examples=["s3://my-ledger/"])]
    """Root of the ledger, `s3://bucket/prefix/` or `file:///folder/`; the same for everybody, outside all that jobs
    may read or write."""
    s3_endpoint_url: str | None = None
    """For stores other than AWS."""
    s3_region: str | None = None
    """The buckets' region, where boto3 does not know it."""
    s3_addressing_style: Literal["auto", "path", "virtual"] = "auto"
    """Whether a bucket's name goes into the path or the host name; MinIO usually wants `path`."""
    s3_max_attempts: Annotated[int, Field(ge=1, le=20)] = 5
    """Tries for each request, the first included."""
    s3_connect_timeout: Annotated[float, Field(gt=0)] = 5
    """Seconds for each try."""
    s3_read_timeout: Annotated[float, Field(gt=0)] = 30
    """Seconds without a single byte; a slow but steady download may take longer."""
    s3_max_connections: Annotated[int, Field(ge=1)] = 32
    """Connections kept open; a worker wants at least one for each slot."""
    weak_commits: bool = False
    """Accept a store that does not decide conditional writes; set it wherever `OVERPAINT_LEDGER` is set. Two workers
    that end one job at the same moment may both record it, the later record replaces the first, and its pictures may
    be gone. Without it, workers and keepers refuse such a store at start."""

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,
        dotenv_settings: PydanticBaseSettingsSource,  # noqa: ARG003 - the base's signature
        file_secret_settings: PydanticBaseSettingsSource,  # noqa: ARG003
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        file, _ = file_source(settings_cls)
        return init_settings, env_settings, file

    @field_validator("redis_url")
    @classmethod
    def _redis_url(cls, value: SecretStr) -> SecretStr:
        url = value.get_secret_value()
        try:
            Redis.from_url(url)  # Parses; nothing is connected yet.
            # A password that holds one of /?# ends the host early, and its rest, with the @, would pass for a path.
            parts = urlsplit(url)
            understood = "@" not in "".join(parts[2:]) and re.fullmatch(r"/?\d*", parts.path) is not None
        except ValueError:
            understood = False
        if not understood:
            raise ValueError(
                "not a Redis URL, or its database is no number; write redis://[user:password@]host:port/database, or "
                "rediss:// for TLS, with special characters of the password percent-encoded"
            )
        return value

    @field_validator("s3_endpoint_url")
    @classmethod
    def _endpoint(cls, value: str | None) -> str | None:
        try:
            S3Options(endpoint_url=value)
        except SettingsError as error:
            raise ValueError(str(error).removeprefix("OVERPAINT_S3_ENDPOINT_URL ")) from None
        return value

    @classmethod
    def load(cls, **given: Any) -> Self:
        """Read the environment and the file that OVERPAINT_CONFIG names; `given` counts before both.

        Raises SettingsError with all that is wrong at once, each by the place where it is set.
        """
        reading = Reading.of(cls, given)
        loaded, wrong = None, None
        try:
            loaded = cls(**given)
        except ValidationError as error:
            wrong = error
        problems = reading.problems(wrong)
        if loaded is None or problems:
            # A value that seems to be missing may stand under a name that is spelled wrong.
            raise SettingsError(told([*problems, *(each for each in unknown_variables() if "did you mean" in each)]))
        return loaded

    def shown(self) -> dict[str, Any]:
        """Every value as JSON has it, secrets masked."""
        values = self.model_dump(mode="json")
        for name, field in type(self).model_fields.items():
            if is_secret(field) and values[name] is not None:
                values[name] = MASK
        return values | {"redis_url": masked_url(self.redis_url.get_secret_value())}

    def open_store(self) -> ObjectStore:
        store = open_store(S3Options.of(self))
        return WeakStore(store) if self.weak_commits else store

    @property
    def ledger_root(self) -> Reference:
        return Reference.parse(self.ledger)


def _keys(secrets: SecretStr) -> tuple[bytes, ...]:
    return tuple(decode_secret(text.strip()) for text in secrets.get_secret_value().split(","))


class AccessSettings(Settings):
    """Settings of whoever touches what jobs name: the operator's allowlists. Empty means none."""

    read: PrefixList = ()
    """Prefixes that sources may come from; workers and keepers want at least one."""
    write: PrefixList = ()
    """Prefixes that pictures may go to, at least one; the right to write is no right to read."""
    webhooks: ReceiverList = ()
    """Receivers that jobs may name for their webhooks: hosts such as `hooks.example.com` or `*.example.com`, with a
    port where it is not the usual one, with `http://` where there is no TLS; `*` allows all."""
    webhook_private: bool = False
    """Send webhooks to private, loopback and link-local addresses too."""
    webhook_secret: SecretStr | None = None
    """What webhooks are signed with, `whsec_` and 24 to 64 bytes in base64; required once `OVERPAINT_WEBHOOKS` names a
    receiver. Several, separated by commas, sign each request with all of them, so that a new one can be brought in
    before the old one goes."""

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

    @field_validator("read", "write")
    @classmethod
    def _apart(cls, value: tuple[str, ...], info: ValidationInfo) -> tuple[str, ...]:
        if "ledger" in info.data:  # Otherwise the ledger is wrong by itself.
            ledger = Reference.parse(info.data["ledger"])
            overlapping = [prefix for prefix in value if _overlap(Reference.parse(prefix), ledger)]
            if overlapping:
                raise ValueError(
                    f"{', '.join(overlapping)} and the ledger {ledger} overlap; move one of them, since no job may "
                    "touch the ledger"
                )
        return value

    @property
    def access(self) -> Access:
        return Access(
            read=tuple(Reference.parse(prefix) for prefix in self.read),
            write=tuple(Reference.parse(prefix) for prefix in self.write),
            ledger=self.ledger_root,
        )


def _overlap(prefix: Reference, ledger: Reference) -> bool:
    try:
        Access(read=(prefix,), write=(), ledger=ledger)
    except SettingsError:
        return True
    return False
