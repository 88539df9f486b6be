"""From what boto3 raises to Overpaint's errors. A message holds S3's error code and request id, never its headers."""

from __future__ import annotations

from botocore.exceptions import (
    BotoCoreError,
    ClientError,
    ConnectionError,
    ConnectTimeoutError,
    FlexibleChecksumError,
    IncompleteReadError,
    NoCredentialsError,
    ParamValidationError,
    PartialCredentialsError,
    ReadTimeoutError,
    ResponseStreamingError,
    SSOError,
)
from botocore.parsers import ResponseParserError
from urllib3.exceptions import HTTPError

from overpaint_common.errors import (
    ObjectExists,
    ObjectNotFound,
    StorageDenied,
    StorageError,
    StorageFull,
    StorageUnavailable,
)
from overpaint_common.references import Reference

S3_ERRORS = (ClientError, BotoCoreError, ResponseParserError, HTTPError)
"""All that a boto3 call or the reading of a body raises for reasons outside this program."""

_RETRY = "try again later and check the store's health"
_RIGHTS = "check the credentials and the bucket's policy"

# Codes whose HTTP status alone would mislead.
_BY_CODE: dict[str, tuple[type[StorageError], str]] = {
    "NoSuchBucket": (ObjectNotFound, "the bucket does not exist; check its name and the endpoint"),
    "InvalidObjectState": (StorageError, "the object is archived; restore it first"),
    "NotImplemented": (
        StorageError,
        "this S3 implementation lacks the operation; use one with conditional writes, or set OVERPAINT_WEAK_COMMITS",
    ),
    "RequestTimeTooSkewed": (StorageDenied, "this machine's clock is off; correct it"),
    "ExpiredToken": (StorageDenied, "the credentials have expired; renew them"),
    "InvalidToken": (StorageDenied, _RIGHTS),
    "TokenRefreshRequired": (StorageDenied, "the credentials have expired; renew them"),
    "QuotaExceeded": (StorageFull, "the store's quota is used up; free space or raise it"),
    "XMinioStorageFull": (StorageFull, "no space is left; free some"),
    "XMinioAdminBucketQuotaExceeded": (StorageFull, "the bucket's quota is used up; free space or raise it"),
    "RequestTimeout": (StorageUnavailable, _RETRY),
    "IncompleteBody": (StorageUnavailable, "the upload was cut off; try again"),
    "BadDigest": (StorageUnavailable, "the upload was damaged on its way; try again"),
    "XAmzContentChecksumMismatch": (StorageUnavailable, "the upload was damaged on its way; try again"),
    "AuthorizationHeaderMalformed": (StorageError, "the region is wrong; set the bucket's own region"),
    "PermanentRedirect": (StorageError, "the region is wrong; set the bucket's own region"),
}


def is_conflict(error: Exception) -> bool:
    """Whether S3 answered 409: another conditional write was under way, and the same request may succeed now."""
    return isinstance(error, ClientError) and _status(error) == 409


def translated(error: Exception, action: str, reference: Reference, where: str) -> StorageError:
    """The error to raise for `error`, one of S3_ERRORS, met while trying to `action` at the endpoint `where`."""
    if isinstance(error, ClientError):
        return _from_answer(error, action, reference)
    failed = f"cannot {action} {reference}: {type(error).__name__}"
    if isinstance(error, NoCredentialsError | PartialCredentialsError | SSOError):
        return StorageDenied(f"{failed}; give complete AWS credentials by environment, profile or instance role")
    if isinstance(error, ParamValidationError):
        return StorageError(f"{failed}; the bucket or key is not one S3 accepts")
    if isinstance(error, FlexibleChecksumError):
        return StorageUnavailable(f"{failed}: what arrived does not match the object's checksum; try again")
    if isinstance(error, IncompleteReadError | ResponseStreamingError):
        return StorageUnavailable(f"{failed}: the answer from {where} broke off; try again")
    if isinstance(error, ConnectTimeoutError | ReadTimeoutError):
        return StorageUnavailable(f"{failed}: {where} did not answer in time; {_RETRY}")
    if isinstance(error, ConnectionError):
        return StorageUnavailable(f"{failed}: {where} cannot be reached; check the endpoint and the network")
    return StorageUnavailable(f"{failed} at {where}; {_RETRY}")


def _status(error: ClientError) -> int:
    return error.response.get("ResponseMetadata", {}).get("HTTPStatusCode", 0)


def _from_answer(error: ClientError, action: str, reference: Reference) -> StorageError:
    code = error.response.get("Error", {}).get("Code", "")
    status = _status(error)
    request_id = error.response.get("ResponseMetadata", {}).get("RequestId", "unnamed")
    failed = f"cannot {action} {reference}: S3 answered {status} {code} (request {request_id})"
    known = "NotImplemented" if status == 501 else code
    if known in _BY_CODE:
        kind, remedy = _BY_CODE[known]
        return kind(f"{failed}; {remedy}")
    if status == 404:
        return ObjectNotFound(f"there is no object at {reference}; check the bucket and the key")
    if status == 412:
        return ObjectExists(f"an object is already at {reference}; read it to learn whose it is")
    if status in (401, 403):
        return StorageDenied(f"{failed}; {_RIGHTS}. Without s3:ListBucket, S3 says 403 of a missing object too")
    if status == 400 and action == "look at":
        return StorageDenied(f"{failed}, and a HEAD answer gives no reason; check that the credentials and region fit")
    if status == 507:
        return StorageFull(f"{failed}; no space is left; free some")
    if status in (408, 409, 429) or status >= 500:
        return StorageUnavailable(f"{failed}; {_RETRY}")
    return StorageError(f"{failed}; check the endpoint, the region and the bucket")
