"""The signature on a webhook: what we sign others accept, what others sign we accept, and nothing else."""

from __future__ import annotations

import base64
import subprocess
import sys
import time
from datetime import UTC, datetime, timedelta

import pytest
from standardwebhooks import Webhook, WebhookVerificationError

from overpaint_common.errors import InvalidMessage, SettingsError
from overpaint_common.settings import AccessSettings
from overpaint_common.webhooks import MAKE_SECRET, WebhookEvent, decode_secret, signed_headers
from overpaint_producer import InvalidSignature, verify_webhook
from tests.webhooks.conftest import KEY, SECRET

EVENT = WebhookEvent(
    id="job-number-1_0123456789ab",
    type="job.succeeded",
    job_id="job-number-1",
    status="succeeded",
    labels={"order": "12-34 \u732b"},
    result="s3://pictures/job-number-1/result.json",
    finished_at=datetime(2026, 3, 1, 9, tzinfo=UTC),
)
OTHER_KEY = bytes(24)
OTHER_SECRET = "whsec_" + base64.b64encode(OTHER_KEY).decode()


def headers(event: WebhookEvent = EVENT, *, age: float = 0, keys: tuple[bytes, ...] = (KEY,)) -> dict[str, str]:
    return signed_headers(event.id, int(time.time() - age), event.body(), keys)


def test_the_signature_is_that_of_the_standard() -> None:
    """Given the published example of the standard, when it is signed, then the signature is the published one."""
    secret = base64.b64decode("MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw")
    signed = signed_headers("msg_p5jXN8AQM9LWM0D4loKWxJek", 1614265330, b'{"test": 2432232314}', [secret])
    assert signed["webhook-signature"] == "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE="


def test_another_library_accepts_what_we_sign() -> None:
    """Given a signed webhook, when the standard's own library verifies it, then it is accepted, unless changed."""
    assert Webhook(SECRET).verify(EVENT.body(), headers())["job_id"] == EVENT.job_id
    with pytest.raises(WebhookVerificationError):
        Webhook(SECRET).verify(EVENT.body() + b" ", headers())


@pytest.mark.parametrize("as_text", [False, True], ids=["bytes", "text"])
def test_we_accept_what_another_library_signs(as_text: bool) -> None:
    """Given a webhook signed by the standard's own library, when our helper verifies it, then it gives the event."""
    now = datetime.now(UTC)
    signature = Webhook(SECRET).sign(EVENT.id, now, EVENT.body().decode())
    given = {"Webhook-Id": EVENT.id, "Webhook-Timestamp": str(int(now.timestamp())), "WEBHOOK-SIGNATURE": signature}
    assert verify_webhook(given, EVENT.body().decode() if as_text else EVENT.body(), SECRET) == EVENT


@pytest.mark.parametrize(
    ("changes", "body", "says"),
    [
        ({}, EVENT.body().replace(b"12-34", b"12-35"), "no signature .* fits"),
        ({"webhook-id": "job-number-2_0123456789ab"}, None, "no signature .* fits"),
        ({"webhook-timestamp": "soon"}, None, "is no number"),
        ({"webhook-signature": "v1,AAAA"}, None, "no signature .* fits"),
        ({"webhook-signature": headers()["webhook-signature"].replace("v1,", "v2,")}, None, "no signature .* fits"),
        ({"webhook-signature": "\u00ff\udcff"}, None, "no signature .* fits"),
        ({"webhook-signature": ""}, None, "has no webhook-signature"),
    ],
)
def test_what_was_changed_is_refused(changes: dict[str, str], body: bytes | None, says: str) -> None:
    """Given a signed webhook, when its body or a header is changed, then it is refused, saying why."""
    with pytest.raises(InvalidSignature, match=says):
        verify_webhook(headers() | changes, EVENT.body() if body is None else body, SECRET)


def test_another_time_than_was_signed_is_refused() -> None:
    """Given a signed webhook, when its time is changed, be it by a second, then no signature fits."""
    given = headers()
    changed = given | {"webhook-timestamp": str(int(given["webhook-timestamp"]) - 1)}
    with pytest.raises(InvalidSignature, match=r"no signature .* fits"):
        verify_webhook(changed, EVENT.body(), SECRET)


def test_headers_that_are_missing_are_named() -> None:
    """Given a request without the headers, when it is verified, then all three are named."""
    with pytest.raises(InvalidSignature, match="webhook-id, webhook-timestamp, webhook-signature"):
        verify_webhook({"content-type": "application/json"}, EVENT.body(), SECRET)


@pytest.mark.parametrize("age", [320, -320], ids=["old", "from the future"])
def test_a_replay_is_refused(age: int) -> None:
    """Given a webhook sent too long ago, or later than now, when verified, then only a larger tolerance accepts it."""
    with pytest.raises(InvalidSignature, match=r"sent 3\d\d s .*a replay, or one of the two clocks"):
        verify_webhook(headers(age=age), EVENT.body(), SECRET)
    assert verify_webhook(headers(age=age), EVENT.body(), SECRET, tolerance=600) == EVENT


def test_a_secret_can_be_changed_without_a_gap() -> None:
    """Given a sender with two secrets, when either is used to verify, then it fits, and a third does not."""
    both = headers(keys=(OTHER_KEY, KEY))
    assert verify_webhook(both, EVENT.body(), SECRET) == verify_webhook(both, EVENT.body(), OTHER_SECRET) == EVENT
    assert Webhook(SECRET).verify(EVENT.body(), both)
    with pytest.raises(InvalidSignature):
        verify_webhook(both, EVENT.body(), "whsec_" + base64.b64encode(KEY[::-1]).decode())


def test_a_genuine_webhook_of_a_newer_version() -> None:
    """Given bodies of a newer version, when verified, then new fields are left out, and an unknown type is refused."""
    added = EVENT.body().replace(b"{", b'{"colour": "blue", ', 1)
    unknown = EVENT.body().replace(b"job.succeeded", b"run.finished")
    sign = [signed_headers(EVENT.id, int(time.time()), body, [KEY]) for body in (added, unknown)]
    assert verify_webhook(sign[0], added, SECRET) == EVENT
    with pytest.raises(InvalidMessage, match="genuine but not understood: type"):
        verify_webhook(sign[1], unknown, SECRET)


@pytest.mark.parametrize("secret", ["", "hunter2", "whsec_", "whsec_c2hvcnQ=", "whsec_!" + "A" * 40, SECRET[6:]])
def test_a_secret_that_is_none_is_refused_and_not_repeated(secret: str) -> None:
    """Given a weak or broken secret, when it is used or set, then the error shows how to make one, not the secret."""
    with pytest.raises(SettingsError, match="token_bytes") as raised:
        verify_webhook(headers(), EVENT.body(), secret)
    with pytest.raises(SettingsError, match=r"OVERPAINT_WEBHOOK_SECRET: .*token_bytes") as when_set:
        AccessSettings.load(ledger="s3://ledger/", webhooks="hooks.example.com", webhook_secret=secret or None)
    assert len(secret) < 7 or not any(secret in str(error.value) for error in (raised, when_set))


def test_the_remedy_makes_a_secret() -> None:
    """Given the command that the error names, when it is run, then what it prints is taken as a secret."""
    made = subprocess.run(
        MAKE_SECRET.replace("python3", sys.executable), shell=True, capture_output=True, text=True, check=True
    )
    assert len(decode_secret(made.stdout.strip())) == 32


def test_the_age_counts_from_the_time_of_the_try() -> None:
    """Given a job that ended long ago, when its webhook is sent now, then it is no replay."""
    late = EVENT.model_copy(update={"finished_at": datetime.now(UTC) - timedelta(days=2)})
    assert verify_webhook(headers(late), late.body(), SECRET) == late
