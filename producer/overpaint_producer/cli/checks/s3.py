"""What only S3 itself can be asked: its clock, and how long it keeps things."""

from __future__ import annotations

from typing import TYPE_CHECKING

from botocore.exceptions import BotoCoreError, ClientError

from overpaint_common.references import Reference

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from typing import Any

    from mypy_boto3_s3 import S3Client

S3_ERRORS = (ClientError, BotoCoreError)


def headers_of(client: S3Client, place: Reference) -> Mapping[str, str]:
    """The headers of S3's answer to a look at a bucket, whatever the answer; raises BotoCoreError where none came."""
    answer: Any
    try:
        answer = client.head_bucket(Bucket=place.bucket)
    except ClientError as error:
        answer = error.response
    headers: Mapping[str, str] = answer.get("ResponseMetadata", {}).get("HTTPHeaders", {})
    return headers


def expirations(client: S3Client, place: Reference) -> Iterator[tuple[str, str]]:
    """The prefix and the span of each lifecycle rule that expires objects of the bucket; raises ClientError.

    Rules that look at tags or sizes are left out: nothing of ours is told apart by them.
    """
    for rule in client.get_bucket_lifecycle_configuration(Bucket=place.bucket)["Rules"]:
        kept = rule.get("Expiration", {})
        span = f"{kept['Days']} days" if "Days" in kept else f"{kept['Date']:%Y-%m-%d}" if "Date" in kept else ""
        if rule["Status"] == "Enabled" and span and not {"Tag", "And"} & set(rule.get("Filter", {})):
            yield rule.get("Filter", {}).get("Prefix", rule.get("Prefix", "")), span
