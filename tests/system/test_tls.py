"""Redis and S3 over TLS, by nothing but their URLs: a certificate that is not trusted is not accepted."""

from __future__ import annotations

from pathlib import Path
from urllib.parse import urlsplit

import pytest

from overpaint_common.errors import StorageUnavailable
from overpaint_common.live import connect
from tests.support.stack import LIGHT_WORKER, Stack, job
from tests.support.tls import certificate, tls_front


@pytest.mark.long
def test_a_job_goes_through_redis_and_s3_over_tls(idle: Stack, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Given both servers behind TLS, when their authority is trusted a job succeeds, and otherwise nothing connects."""
    file, context = certificate(tmp_path, "localhost")
    store = urlsplit(idle.proxy.url).port
    assert store is not None
    assert idle.redis.port is not None
    with tls_front(idle.redis.port, context) as secure_redis, tls_front(store, context) as secure_store:
        redis_url, endpoint = f"rediss://localhost:{secure_redis}/0", f"https://localhost:{secure_store}"
        with idle.producer(redis_url=redis_url, s3_endpoint_url=endpoint) as stranger:
            with pytest.raises(StorageUnavailable, match="SSLError"):
                stranger.submit(job(idle), retry_for=0)
            with connect(redis_url) as redis, pytest.raises(Exception, match="certificate verify failed"):
                redis.ping()

        trust = {"SSL_CERT_FILE": str(file), "AWS_CA_BUNDLE": str(file)}
        for name, value in trust.items():
            monkeypatch.setenv(name, value)
        secure = {"OVERPAINT_REDIS_URL": redis_url, "OVERPAINT_S3_ENDPOINT_URL": endpoint}
        with (
            idle.producer(redis_url=redis_url, s3_endpoint_url=endpoint) as producer,
            idle.worker(LIGHT_WORKER, **trust, **secure),
        ):
            handle = producer.submit(job(idle))
            assert handle.not_queued is None
            assert handle.wait(timeout=60).status == "succeeded"
