"""Objects in S3, or in anything that speaks S3 and honours `If-None-Match: *` on PUT, through boto3."""

from __future__ import annotations

import io
import logging
import random
import time
from collections.abc import Iterator, Sequence
from contextlib import closing, contextmanager, suppress
from dataclasses import dataclass, fields, replace
from threading import Lock
from typing import TYPE_CHECKING, BinaryIO, Literal, Self
from urllib.parse import urlsplit

from botocore.exceptions import NoCredentialsError, ProfileNotFound

from overpaint_common.errors import InvalidReference, OverpaintError, SettingsError
from overpaint_common.references import Reference
from overpaint_common.storage.checks import check_expires, check_size, require_object, require_two, rewound
from overpaint_common.storage.interface import NewObject, ObjectInfo
from overpaint_common.storage.many import put_each
from overpaint_common.storage.s3_errors import S3_ERRORS, is_conflict, translated

if TYPE_CHECKING:
    from botocore.response import StreamingBody
    from mypy_boto3_s3 import S3Client
    from mypy_boto3_s3.type_defs import PutObjectRequestTypeDef

logger = logging.getLogger(__name__)

AddressingStyle = Literal["auto", "path", "virtual"]

_CHUNK = 1024 * 1024
_CONFLICT_ATTEMPTS = 5
_CONFLICT_BASE_DELAY = 0.05


@dataclass(frozen=True, slots=True)
class S3Options:
    """How to reach S3. Credentials are not here: boto3's own chain finds them (environment, profile, role).

    Raises SettingsError for a value out of range.
    """

    endpoint_url: str | None = None
    """None means AWS itself, or what boto3 reads from AWS_ENDPOINT_URL. Holds no user name and no password."""
    region: str | None = None
    """None means what boto3's own configuration says."""
    addressing_style: AddressingStyle = "auto"
    """Whether the bucket goes into the path or the host name; MinIO usually wants `path`."""
    max_attempts: int = 5
    """Tries per request, the first included; at least 1."""
    connect_timeout: float = 5.0
    """Seconds, per attempt."""
    read_timeout: float = 30.0
    """Seconds without a single byte, per attempt; a slow but steady download may take longer."""
    max_connections: int = 32
    """Connections kept in the pool; threads beyond it open short-lived ones. At least 1."""

    @classmethod
    def of(cls, settings: object) -> Self:
        """Those that `settings` has under the same names behind `s3_`."""
        return cls(**{field.name: getattr(settings, f"s3_{field.name}") for field in fields(cls)})

    def __post_init__(self) -> None:
        if self.addressing_style not in ("auto", "path", "virtual"):
            raise SettingsError(f"S3 addressing style {self.addressing_style!r}: choose auto, path or virtual")
        for name in ("max_attempts", "connect_timeout", "read_timeout", "max_connections"):
            value = getattr(self, name)
            smallest = "1 or more" if isinstance(value, int) else "more than 0"
            if not 0 < value < float("inf"):
                raise SettingsError(f"S3 option {name} is {value}; give {smallest}")
        if self.endpoint_url is not None:
            address = urlsplit(self.endpoint_url)
            if address.scheme not in ("http", "https") or not address.hostname:
                raise SettingsError("OVERPAINT_S3_ENDPOINT_URL is no address; write https://host or http://host:port")
            if "@" in address.netloc:
                raise SettingsError(
                    "OVERPAINT_S3_ENDPOINT_URL holds a user name or password; give credentials boto3's way"
                )


def connect(options: S3Options, *, signature_version: str | None = None) -> S3Client:
    """A client of boto3's for S3; safe to share between threads, and nothing is sent yet.

    `signature_version` is None for the one that botocore chooses. Raises SettingsError for a profile, an endpoint or a
    region that is none, botocore's NoCredentialsError where no credentials are found.
    """
    # boto3 takes half a second to import; a command that never reaches S3 need not wait for it.
    import boto3.session
    from botocore.config import Config

    try:
        session = boto3.session.Session(region_name=options.region)
        # A client made without credentials would stay without them after the instance's role answers again.
        if session.get_credentials() is None:
            raise NoCredentialsError
        return session.client(
            "s3",
            endpoint_url=options.endpoint_url,
            config=Config(
                signature_version=signature_version,
                connect_timeout=options.connect_timeout,
                read_timeout=options.read_timeout,
                max_pool_connections=options.max_connections,
                retries={"mode": "standard", "total_max_attempts": options.max_attempts},
                s3={"addressing_style": options.addressing_style},
                tcp_keepalive=True,
            ),
        )
    except (ProfileNotFound, ValueError) as error:
        raise SettingsError(
            f"the S3 client cannot be made: {type(error).__name__}; check AWS_PROFILE, the endpoint and the region"
        ) from error


class S3Store:
    """The S3 implementation of `ObjectStore`; safe to share between threads, and one per process is enough.

    Nothing connects before the first call. boto3's standard mode retries lost connections, timeouts, throttling and
    5xx answers `max_attempts` times with jittered back-off. Uploads carry a CRC and downloads are checked against one
    (boto3's `when_supported`). A body that breaks off is not retried here: part of it may already be in the target.
    """

    def __init__(self, options: S3Options) -> None:
        self.options = options
        self._client: S3Client | None = None
        self._signer: S3Client | None = None
        self._lock = Lock()

    def head(self, reference: Reference) -> ObjectInfo:
        require_object(reference)
        with self._raising("look at", reference):
            answer = self._connected().head_object(Bucket=reference.bucket, Key=reference.key)
        return ObjectInfo(reference, answer["ContentLength"], answer["ETag"].strip('"'))

    def read(self, reference: Reference, *, limit: int) -> bytes:
        target = io.BytesIO()
        self.download(reference, target, limit=limit)
        return target.getvalue()

    def download(self, reference: Reference, target: BinaryIO, *, limit: int) -> ObjectInfo:
        """See `ObjectStore.download`. What `target.write` raises passes through unchanged."""
        require_object(reference)
        with self._raising("read", reference):
            answer = self._connected().get_object(Bucket=reference.bucket, Key=reference.key)
        # Closing a body that is not read to its end drops the connection, so the rest is never transferred.
        with closing(answer["Body"]) as body:
            check_size(reference, answer["ContentLength"], limit)
            received = 0
            for chunk in self._chunks(body, reference):
                received += len(chunk)
                check_size(reference, received, limit)
                target.write(chunk)
        return ObjectInfo(reference, received, answer["ETag"].strip('"'))

    def put(
        self, reference: Reference, body: bytes | BinaryIO, *, content_type: str, if_absent: bool = False
    ) -> ObjectInfo:
        """See `ObjectStore.put`. One request, so at most 5 GiB on AWS."""
        require_object(reference)
        request: PutObjectRequestTypeDef = {
            "Bucket": reference.bucket,
            "Key": reference.key,
            "Body": body,
            "ContentType": content_type,
        }
        if if_absent:
            request["IfNoneMatch"] = "*"
        with self._raising("write", reference):
            for attempt in range(1, _CONFLICT_ATTEMPTS + 1):
                size = rewound(body)
                try:
                    answer = self._connected().put_object(**request)
                    break
                except S3_ERRORS as error:
                    if attempt == _CONFLICT_ATTEMPTS or not is_conflict(error):
                        raise
                time.sleep(_CONFLICT_BASE_DELAY * 2**attempt * random.uniform(0.5, 1))
        return ObjectInfo(reference, size, answer["ETag"].strip('"'))

    def put_many(self, objects: Sequence[NewObject]) -> list[ObjectInfo | OverpaintError]:
        """See `ObjectStore.put_many`. As many requests run at once as connections are kept."""
        return put_each(self, objects, threads=self.options.max_connections)

    def copy(self, source: Reference, target: Reference) -> ObjectInfo:
        """See `ObjectStore.copy`. The store copies by itself, at most 5 GiB on AWS, and then says what is there.

        Metadata and content type are kept. Needs `s3:GetObject` on both.
        """
        require_two(source, target)
        with self._raising(f"copy to {target} from", source):
            self._connected().copy_object(
                Bucket=target.bucket, Key=target.key, CopySource={"Bucket": source.bucket, "Key": source.key}
            )
        return self.head(target)

    def presign(self, reference: Reference, *, expires: int) -> str:
        """See `ObjectStore.presign`. Signed with version 4, for the endpoint as the options name it.

        A URL never outlives the credentials that signed it: those of an instance's or a pod's role are replaced every
        few hours. The bucket's region must be known, since the signature holds it.
        """
        require_object(reference)
        check_expires(expires)
        with self._raising("sign a URL for", reference):
            return self._signing().generate_presigned_url(
                "get_object", Params={"Bucket": reference.bucket, "Key": reference.key}, ExpiresIn=expires
            )

    def delete(self, reference: Reference) -> None:
        require_object(reference)
        with self._raising("delete", reference):
            client = self._connected()
            # AWS says nothing of a missing key; some other implementations answer 404.
            with suppress(client.exceptions.NoSuchKey):
                client.delete_object(Bucket=reference.bucket, Key=reference.key)

    def list(self, prefix: Reference) -> Iterator[ObjectInfo]:
        """See `ObjectStore.list`. Pages are fetched, and errors raised, as the iterator advances.

        Folder markers (keys that end in `/`) are left out. So is a key that no reference can spell; it is logged.
        """
        below = prefix.as_prefix()
        with self._raising("list", below):
            pages = self._connected().get_paginator("list_objects_v2").paginate(Bucket=below.bucket, Prefix=below.key)
            for page in pages:
                for entry in page.get("Contents", []):
                    reference = _listed(below.bucket, entry["Key"])
                    if reference is not None:
                        yield ObjectInfo(reference, entry["Size"], entry["ETag"].strip('"'))

    def _chunks(self, body: StreamingBody, reference: Reference) -> Iterator[bytes]:
        while True:
            with self._raising("read", reference):
                chunk = body.read(_CHUNK)
            # boto3 compares length and checksum in the read that finds the end, so that read must happen.
            if not chunk:
                return
            yield chunk

    @contextmanager
    def _raising(self, action: str, reference: Reference) -> Iterator[None]:
        try:
            yield
        except S3_ERRORS as error:
            raise translated(error, action, reference, self.options.endpoint_url or "S3") from error

    def _connected(self) -> S3Client:
        """The one client, made at the first call that finds credentials; raises SettingsError if none can be."""
        if self._client is None:
            with self._lock:
                if self._client is None:
                    self._client = connect(self.options)
        return self._client

    def _signing(self) -> S3Client:
        """A client for URLs alone, which botocore would sign with version 2, as most regions refuse, unless told.

        On AWS it would also name the global host unless told `virtual`, and the redirect from there to another region
        leaves a signature that no longer fits.
        """
        if self._signer is None:
            host = urlsplit(self._connected().meta.endpoint_url).hostname or ""
            on_aws = host.endswith((".amazonaws.com", ".amazonaws.com.cn"))
            style = "virtual" if on_aws and self.options.addressing_style == "auto" else self.options.addressing_style
            with self._lock:
                self._signer = connect(replace(self.options, addressing_style=style), signature_version="s3v4")
        return self._signer


def _listed(bucket: str, key: str) -> Reference | None:
    if key.endswith("/"):
        return None
    try:
        return Reference.parse(f"s3://{bucket}/{key}")
    except InvalidReference as error:
        logger.warning("left out of a listing: %s", error)
        return None
