"""Make the buckets that the settings name (ledger, sources, pictures) where they are missing. May be run again."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Any

from botocore.exceptions import BotoCoreError, ClientError

from overpaint_common.errors import OverpaintError
from overpaint_common.references import Reference
from overpaint_common.settings import AccessSettings
from overpaint_common.storage.s3 import S3Options, connect

if TYPE_CHECKING:
    from mypy_boto3_s3 import S3Client


def main() -> int:
    try:
        settings = AccessSettings.load()
        client = connect(S3Options.of(settings))
    except OverpaintError as error:
        print(f"error[{error.code}]: {error}", file=sys.stderr)
        return 1
    except BotoCoreError as error:
        print(error, file=sys.stderr)
        return 1
    places = [Reference.parse(place) for place in (settings.ledger, *settings.read, *settings.write)]
    for bucket in dict.fromkeys(place.bucket for place in places if place.scheme == "s3"):
        try:
            print(f"{bucket}: {'there already' if _exists(client, bucket) else _made(client, bucket)}")
        except (ClientError, BotoCoreError) as error:
            print(f"{bucket}: {error}", file=sys.stderr)
            return 1
    return 0


def _exists(client: S3Client, bucket: str) -> bool:
    try:
        client.head_bucket(Bucket=bucket)
    except ClientError as error:
        if error.response["ResponseMetadata"]["HTTPStatusCode"] == 404:
            return False
        raise
    return True


def _made(client: S3Client, bucket: str) -> str:
    region: Any = client.meta.region_name
    if region in ("us-east-1", "aws-global"):
        client.create_bucket(Bucket=bucket)
    else:
        client.create_bucket(Bucket=bucket, CreateBucketConfiguration={"LocationConstraint": region})
    return "made"


if __name__ == "__main__":
    sys.exit(main())
