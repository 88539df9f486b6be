"""Options and credentials of the S3 store."""

from __future__ import annotations

import pytest

from overpaint_common.errors import ObjectNotFound, SettingsError, StorageDenied
from overpaint_common.references import Reference
from overpaint_common.storage import S3Options, S3Store

from .conftest import Place


def test_missing_credentials_are_denied_and_looked_for_again(
    behind_proxy: Place, options_behind_proxy: S3Options, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = S3Store(options_behind_proxy)
    with monkeypatch.context() as without:
        without.delenv("AWS_ACCESS_KEY_ID")
        with pytest.raises(StorageDenied, match="give complete AWS credentials"):
            store.head(behind_proxy.at("x"))

    with pytest.raises(ObjectNotFound):
        store.head(behind_proxy.at("x"))


def test_an_unknown_profile_is_a_settings_error(
    options_behind_proxy: S3Options, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AWS_PROFILE", "nobody")

    with pytest.raises(SettingsError, match="AWS_PROFILE"):
        S3Store(options_behind_proxy).head(Reference.parse("s3://bucket/x"))


@pytest.mark.parametrize(
    "wrong",
    [
        {"max_attempts": 0},
        {"read_timeout": 0.0},
        {"connect_timeout": float("nan")},
        {"max_connections": -1},
        {"addressing_style": "sideways"},
        {"endpoint_url": "localhost:9000"},
        {"endpoint_url": "https://key:hidden@host"},
    ],
)
def test_options_out_of_range_are_refused_without_showing_secrets(wrong: dict[str, object]) -> None:
    with pytest.raises(SettingsError) as raised:
        S3Options(**wrong)  # type: ignore[arg-type]

    assert "hidden" not in str(raised.value)
