"""Which receivers jobs may name, and what is said of those that they may not."""

from __future__ import annotations

import pytest

from overpaint_common.errors import ForbiddenWebhook, InvalidJob, SettingsError
from overpaint_common.fleet import ModelCard, settle
from overpaint_common.job import Job
from overpaint_common.settings import AccessSettings
from tests.support.cards import model_card
from tests.webhooks.conftest import SECRET, Place

CARD = model_card(
    "mini", default_steps=10, default_guidance_scale=3, max_steps=50, reads=("file:///",), writes=("file:///",)
)


def allowing(text: str) -> dict[str, ModelCard]:
    """The card as a worker with this OVERPAINT_WEBHOOKS announces it."""
    settings = AccessSettings.load(ledger="s3://ledger/", webhooks=text, webhook_secret=SECRET)
    return {CARD.name: CARD.model_copy(update={"webhooks": settings.webhooks})}


@pytest.mark.parametrize(
    ("allowed", "url"),
    [
        ("hooks.example.com", "https://hooks.example.com/x?token=t0ken"),
        ("hooks.example.com", "https://HOOKS.example.com.:443/"),
        ("other.org, *.example.com", "https://a.b.example.com/"),
        ("*", "https://203.0.113.7/"),
        ("hooks.example.com:8443", "https://hooks.example.com:8443/"),
        ("http://hooks.example.com", "http://hooks.example.com/"),
        ("http://*:8000", "http://127.0.0.1:8000/"),
        ("https://[::1]:8443", "https://[0:0::1]:8443/"),
        ("b\u00fccher.example", "https://xn--bcher-kva.example/"),
    ],
)
def test_receivers_that_are_allowed(place: Place, allowed: str, url: str) -> None:
    """Given a fleet that allows a receiver, when a job names it, then the job is settled with its webhook."""
    job = place.job("job-number-1", url)
    assert settle(job, allowing(allowed)).webhook == job.webhook


@pytest.mark.parametrize(
    ("allowed", "url", "shown"),
    [
        ("hooks.example.com", "https://example.com/t0ken", "example.com"),
        ("*.example.com", "https://example.com/t0ken", "example.com"),
        ("*.example.com", "https://evilexample.com/t0ken", "evilexample.com"),
        ("example.com", "https://example.com.evil.org/t0ken", "example.com.evil.org"),
        ("example.com", "https://evil.org/?x=example.com&t0ken", "evil.org"),
        ("hooks.example.com", "http://hooks.example.com/t0ken", "http://hooks.example.com"),
        ("*", "http://hooks.example.com/t0ken", "http://hooks.example.com"),
        ("hooks.example.com", "https://hooks.example.com:8443/t0ken", "hooks.example.com:8443"),
        ("hooks.example.com:8443", "https://hooks.example.com/t0ken", "hooks.example.com"),
        ("", "https://hooks.example.com/t0ken", "hooks.example.com"),
        ("*", "https://user:t0ken@hooks.example.com/", "hooks.example.com"),
    ],
)
def test_receivers_that_are_refused(place: Place, allowed: str, url: str, shown: str) -> None:
    """Given a receiver beyond the allowlist, when a job names it, then the error names it and repeats no more of it."""
    with pytest.raises(ForbiddenWebhook, match=rf"^webhook to {shown}: ") as raised:
        settle(place.job("job-number-1", url), allowing(allowed))
    assert "t0ken" not in str(raised.value)


def test_the_refusal_names_the_setting(place: Place) -> None:
    """Given a fleet without webhooks, when a job names one, then the error says what the operator has to set."""
    with pytest.raises(
        ForbiddenWebhook, match=r"jobs may name no receiver; .* add hooks\.a\.org to OVERPAINT_WEBHOOKS"
    ):
        settle(place.job("job-number-1", "https://hooks.a.org/"), {CARD.name: CARD})


def test_without_a_fleet_only_the_form_is_looked_at(place: Place) -> None:
    """Given no announced model, when a job names a receiver, then the worker will look, but no password is taken."""
    assert settle(place.job("job-number-1", "https://hooks.example.com/"), {}).webhook is not None
    with pytest.raises(ForbiddenWebhook, match="holds a user name or a password"):
        settle(place.job("job-number-1", "https://:t0ken@hooks.example.com/"), {})


@pytest.mark.parametrize("url", ["ftp://example.com/t0ken", "hooks.example.com/t0ken", "https://[t0ken"])
def test_what_is_no_url_is_not_repeated(place: Place, url: str) -> None:
    """Given a broken URL, when the job is read, then the field is named and its value is not."""
    body = place.job("job-number-1", None).model_dump_json(exclude_none=True)
    with pytest.raises(InvalidJob, match=r"^webhook: ") as raised:
        Job.parse(body[:-1] + f', "webhook": "{url}"}}')
    assert "t0ken" not in str(raised.value)


@pytest.mark.parametrize(
    "text",
    ["https://hooks.example.com/t0ken", "user:t0ken@example.com", "a.*.com", "*evil.com", "a b", "x:99999/t0ken"],
)
def test_patterns_that_are_none(text: str) -> None:
    """Given a wrong pattern, when the settings are read, then they are refused without repeating a token."""
    with pytest.raises(SettingsError, match=r"^OVERPAINT_WEBHOOKS: ") as raised:
        allowing(f"hooks.example.com, {text}")
    assert "t0ken" not in str(raised.value)


def test_receivers_need_a_secret() -> None:
    """Given allowed receivers and no secret, when the settings are read, then the secret is asked for."""
    with pytest.raises(SettingsError, match="OVERPAINT_WEBHOOK_SECRET: required once OVERPAINT_WEBHOOKS"):
        AccessSettings.load(ledger="s3://ledger/", webhooks="hooks.example.com")
    assert AccessSettings.load(ledger="s3://ledger/").webhook_keys == ()


def test_settings_never_show_the_secret() -> None:
    """Given settings with a secret, when they are printed, then it is not there."""
    settings = AccessSettings.load(ledger="s3://ledger/", webhooks="*", webhook_secret=SECRET)
    assert SECRET[6:] not in repr(settings) + str(settings) + settings.model_dump_json()
