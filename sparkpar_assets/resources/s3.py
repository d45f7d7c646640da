"""Reaching S3: dagster-aws's resource, from the settings."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

import dagster as dg

from sparkpar_assets.resources.endpoints import check_url
from sparkpar_assets.retries import Cause, cause_of
from sparkpar_assets.settings import Settings

if TYPE_CHECKING:
    from botocore.exceptions import ClientError
    from mypy_boto3_s3 import S3Client
    from mypy_boto3_s3.type_defs import HeadObjectOutputTypeDef


def s3_client(settings: Settings) -> "S3Client":
    """A client for the bucket of the settings, made by ``dagster_aws.s3.S3Resource``.

    Raises:
        dg.Failure: ``AWS_PROFILE`` names no profile, or there an endpoint without TLS.
    """
    from botocore.exceptions import ProfileNotFound
    from dagster_aws.s3 import S3Resource

    key, secret, token = (
        value.get_secret_value() if value else None
        for value in (
            settings.aws_access_key_id,
            settings.aws_secret_access_key,
            settings.aws_session_token,
        )
    )
    try:
        client: S3Client = S3Resource(
            endpoint_url=settings.s3_endpoint,
            region_name=settings.aws_region,
            profile_name=settings.aws_profile,
            aws_access_key_id=key,
            aws_secret_access_key=secret,
            aws_session_token=token,
        ).get_client()
    except ProfileNotFound as error:
        raise dg.Failure(
            f"{error}. Correct AWS_PROFILE, or unset it.", allow_retries=False
        ) from None
    # AWS's own configuration may name an endpoint as well.
    check_url(client.meta.endpoint_url, "The S3 endpoint of AWS's configuration", settings)
    return client


def head_object(client: "S3Client", bucket: str, key: str) -> "HeadObjectOutputTypeDef | None":
    """What S3 says of an object without its content; None where there is none."""
    from botocore.exceptions import ClientError

    try:
        return client.head_object(Bucket=bucket, Key=key)
    except ClientError as error:
        if error.response["ResponseMetadata"]["HTTPStatusCode"] == 404:
            return None
        raise


def bucket_of(settings: Settings) -> str:
    """The bucket to publish in.

    Raises:
        dg.Failure: ``S3_BUCKET`` is not set.
    """
    if not settings.s3_bucket:
        raise dg.Failure(
            "S3_BUCKET is not set, so there is nowhere to publish. "
            "Set it to your bucket's name in .env.",
            allow_retries=False,
        )
    return settings.s3_bucket


def check_bucket(settings: Settings, client: "S3Client") -> None:
    """Make sure, with one cheap request, that the bucket is there and lets us in.

    Asked before Spark starts: S3A takes minutes of retries to say the same.

    Raises:
        dg.Failure: No such bucket, wrong keys, no permission, no credentials, or no answer.
    """
    with explained_errors(settings):
        # A listing, not a HEAD: its answer has a body, which names the reason.
        client.list_objects_v2(Bucket=bucket_of(settings), Prefix=settings.s3_root, MaxKeys=1)


@contextmanager
def explained_errors(settings: Settings) -> Iterator[None]:
    """Say in two sentences what S3 refuses within the block.

    Raises:
        dg.Failure: No such bucket, wrong keys, no permission, no credentials, or no answer.
    """
    from botocore.exceptions import BotoCoreError, ClientError

    bucket, where = bucket_of(settings), settings.s3_endpoint or "AWS"
    try:
        yield
    except ClientError as error:
        raise dg.Failure(
            _explain(error, bucket, where), allow_retries=cause_of(error) is not Cause.PERMANENT
        ) from None
    except BotoCoreError as error:
        raise dg.Failure(
            f"S3 at {where} cannot be used: {error}. "
            "Check AWS_ENDPOINT_URL_S3, the network and the AWS credentials.",
            allow_retries=cause_of(error) is not Cause.PERMANENT,
        ) from None


def _explain(error: "ClientError", bucket: str, where: str) -> str:
    code = error.response["Error"].get("Code", "")
    if cause_of(error) is Cause.TRANSIENT:
        return (
            f"S3 at {where} answered {code} to {error.operation_name}, and again when it was asked "
            "again. Run it again when S3 is well."
        )
    if code in {"NoSuchBucket", "404"}:
        return f"The bucket {bucket} does not exist at {where}. Create it, or correct S3_BUCKET."
    if code in {"InvalidAccessKeyId", "SignatureDoesNotMatch", "InvalidToken", "ExpiredToken"}:
        return (
            f"S3 at {where} refused the AWS credentials ({code}). Correct AWS_ACCESS_KEY_ID, "
            "AWS_SECRET_ACCESS_KEY and AWS_SESSION_TOKEN."
        )
    if code in {"AccessDenied", "403"}:
        return (
            f"S3 at {where} denied access to the bucket {bucket} ({code}). "
            "Let the credentials list, read, write and delete under the prefix S3_PREFIX."
        )
    return f"S3 at {where} answered {code} for the bucket {bucket}. Check S3_BUCKET and its region."
