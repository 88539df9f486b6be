"""An S3 server for tests: moto over real HTTP, or whatever OVERPAINT_TEST_S3_ENDPOINT names (MinIO, AWS)."""

from __future__ import annotations

import io
import os
import secrets
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from functools import cached_property
from threading import Lock, Thread
from typing import TYPE_CHECKING, Any, cast

import boto3.session
from botocore.config import Config

from overpaint_common.references import Reference
from overpaint_common.storage import S3Options

if TYPE_CHECKING:
    from mypy_boto3_s3 import S3Client

ENDPOINT_VARIABLE = "OVERPAINT_TEST_S3_ENDPOINT"

FAKE_CREDENTIALS: Mapping[str, str] = {
    "AWS_ACCESS_KEY_ID": "testing",
    "AWS_SECRET_ACCESS_KEY": "testing",
    "AWS_DEFAULT_REGION": "us-east-1",
    "AWS_EC2_METADATA_DISABLED": "true",
    "AWS_CONFIG_FILE": os.devnull,
    "AWS_SHARED_CREDENTIALS_FILE": os.devnull,
}


@dataclass(frozen=True)
class S3Server:
    """A running server. Other processes reach it with `environment` and `endpoint_url`."""

    endpoint_url: str
    environment: Mapping[str, str] = field(default_factory=dict)
    """What a process needs in its environment, on top of its own, to be let in."""

    def options(self, **changes: Any) -> S3Options:
        """Options for this server, path-style, with short limits that suit tests; `changes` are S3Options fields."""
        options = S3Options(
            endpoint_url=self.endpoint_url,
            addressing_style="path",
            max_attempts=3,
            connect_timeout=2,
            read_timeout=10,
        )
        return replace(options, **changes)

    @cached_property
    def client(self) -> S3Client:
        """A boto3 client apart from any store's, for looking behind its back."""
        return boto3.session.Session(
            aws_access_key_id=self.environment.get("AWS_ACCESS_KEY_ID"),
            aws_secret_access_key=self.environment.get("AWS_SECRET_ACCESS_KEY"),
            region_name=self.environment.get("AWS_DEFAULT_REGION"),
        ).client("s3", endpoint_url=self.endpoint_url, config=Config(s3={"addressing_style": "path"}))

    @contextmanager
    def bucket(self, prefix: str = "overpaint-test") -> Iterator[Reference]:
        """A fresh bucket, as a reference; emptied and removed afterwards."""
        name = f"{prefix}-{secrets.token_hex(6)}"
        client = self.client
        region = client.meta.region_name
        if region in ("us-east-1", "aws-global"):
            client.create_bucket(Bucket=name)
        else:
            client.create_bucket(Bucket=name, CreateBucketConfiguration={"LocationConstraint": cast(Any, region)})
        try:
            yield Reference("s3", name, "")
        finally:
            for page in client.get_paginator("list_objects_v2").paginate(Bucket=name):
                keys = [entry["Key"] for entry in page.get("Contents", [])]
                if keys:
                    client.delete_objects(Bucket=name, Delete={"Objects": [{"Key": key} for key in keys]})
            client.delete_bucket(Bucket=name)


@contextmanager
def s3_server() -> Iterator[S3Server]:
    """The server that OVERPAINT_TEST_S3_ENDPOINT names, entered with the caller's own credentials, or else moto."""
    endpoint = os.environ.get(ENDPOINT_VARIABLE)
    if endpoint:
        yield S3Server(endpoint)
        return
    with moto_server() as server:
        yield server


@contextmanager
def moto_server() -> Iterator[S3Server]:
    """moto on a free loopback port, in a thread of this process; other processes reach it too.

    Servers in one process share their buckets, so tests take a fresh bucket rather than a fresh server.
    """
    from moto.moto_server.werkzeug_app import DomainDispatcherApplication, MotoRequestHandler, create_backend_app
    from werkzeug.serving import make_server

    application = _OneAtATime(DomainDispatcherApplication(create_backend_app))
    server = make_server("127.0.0.1", 0, application, threaded=True, request_handler=_quiet(MotoRequestHandler))
    thread = Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05}, name="moto", daemon=True)
    thread.start()
    try:
        yield S3Server(f"http://127.0.0.1:{server.server_port}", FAKE_CREDENTIALS)
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


def _quiet(handler: type[Any]) -> type[Any]:
    return type("QuietHandler", (handler,), {"log_request": lambda *_: None})


class _OneAtATime:
    """Lets one request at a time into moto, which looks for the object and stores the new one in two steps.

    Without this two `If-None-Match: *` puts can both succeed, which S3 rules out. A request's body is read before it
    waits, so a slow client holds nobody up.
    """

    def __init__(self, application: Callable[..., Iterable[bytes]]) -> None:
        self._application = application
        self._lock = Lock()

    def __call__(self, environ: dict[str, Any], start_response: Callable[..., Any]) -> Iterable[bytes]:
        if "CONTENT_LENGTH" in environ:
            environ["wsgi.input"] = io.BytesIO(environ["wsgi.input"].read(int(environ["CONTENT_LENGTH"] or 0)))
        with self._lock:
            answer = self._application(environ, start_response)
            try:
                return [b"".join(answer)]
            finally:
                if hasattr(answer, "close"):
                    answer.close()
