"""Which receivers jobs may name for their webhooks."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from pydantic import HttpUrl, TypeAdapter, ValidationError

from overpaint_common.errors import ForbiddenWebhook
from overpaint_common.job import Job

_URL: TypeAdapter[HttpUrl] = TypeAdapter(HttpUrl)
_USUAL_PORTS: Mapping[str, int] = {"https": 443, "http": 80}


def origin(url: HttpUrl) -> str:
    """The part of a URL that may be shown: its host, with `http://` and the port where they are not the usual ones.

    Path, query, user name and password may hold tokens.
    """
    port = "" if url.port == _USUAL_PORTS[url.scheme] else f":{url.port}"
    return f"{'' if url.scheme == 'https' else 'http://'}{host_of(url)}{port}"


def host_of(url: HttpUrl) -> str:
    """The host in plain spelling; an IPv6 address in brackets."""
    return (url.host or "").rstrip(".")


def receiver_pattern(text: str) -> str:
    """The plain spelling of receivers to allow: `[http://]host[:port]`; host may start with `*.`, or be `*` alone.

    Raises ValueError naming what is wrong.
    """
    how = "write hosts such as hooks.example.com or *.example.com, with http:// before those without TLS"
    try:
        url = _parse(text)
    except ValidationError:
        raise ValueError(f"one of its entries is no host; {how}") from None
    if url.username or url.password or url.path not in (None, "/") or url.query or url.fragment:
        raise ValueError(f"{origin(url)} comes with more than a host and a port; {how}")
    if "*" in host_of(url).removeprefix("*.") and host_of(url) != "*":
        raise ValueError(f"{text!r}: a star stands for a whole host, or for its first labels as in *.example.com")
    return origin(url)


def check_webhook(url: HttpUrl, allowed: Sequence[str] | None) -> None:
    """Raises ForbiddenWebhook unless jobs may name `url`; with `allowed` None only its form is looked at.

    A pattern without `http://` means https, and one without a port the scheme's usual one.
    """
    named = origin(url)
    if url.username or url.password:
        raise ForbiddenWebhook(
            f"webhook to {named}: its URL holds a user name or a password; leave them out: the signature tells the "
            "receiver who sends"
        )
    if allowed is not None and not any(_fits(url, _parse(pattern)) for pattern in allowed):
        raise ForbiddenWebhook(
            f"webhook to {named}: jobs may name {', '.join(allowed) or 'no receiver'}; name another one, or have the "
            f"operator add {named} to OVERPAINT_WEBHOOKS"
        )


def redacted(job: Job) -> Job:
    """The job as a record may show it: of its webhook only the origin is left."""
    return job if job.webhook is None else job.model_copy(update={"webhook": _parse(origin(job.webhook))})


def _parse(pattern: str) -> HttpUrl:
    return _URL.validate_python(pattern if "://" in pattern else f"https://{pattern}")


def _fits(url: HttpUrl, pattern: HttpUrl) -> bool:
    if (url.scheme, url.port) != (pattern.scheme, pattern.port):
        return False
    host, wanted = host_of(url), host_of(pattern)
    return wanted in ("*", host) or (wanted.startswith("*.") and host.endswith(wanted[1:]))
