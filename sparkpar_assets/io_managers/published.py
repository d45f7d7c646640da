"""Published objects in S3: one under a fixed key a partition, replaced by one server-side copy."""

import io
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from sparkpar_assets.resources.s3 import head_object

if TYPE_CHECKING:
    import pyarrow as pa
    from mypy_boto3_s3 import S3Client
    from mypy_boto3_s3.type_defs import HeadObjectOutputTypeDef

FILE_NAME = "data.parquet"
HISTORY = "_history/"
FOOTER_BYTES = 256 * 1024
ONE_COPY_BYTES = 5 * 1024**3
"""The most that S3 copies in one request (S3 API reference, CopyObject); above, in parts."""


@dataclass(frozen=True)
class PublishedDataset:
    """The published objects of one asset.

    Attributes:
        client: Reaches the bucket.
        bucket: The bucket.
        root: Prefix of everything the platform writes: empty, or with a slash at its end.
        asset: The asset's name, which is its folder's as well.
    """

    client: "S3Client"
    bucket: str
    root: str
    asset: str

    def key(self, year: str | None) -> str:
        """Key of a year's object, or of the only one of an asset without years."""
        return f"{self.root}{self.asset}/{_folder(year)}{FILE_NAME}"

    def uri(self, year: str | None) -> str:
        """The object's s3:// URI."""
        return f"s3://{self.bucket}/{self.key(year)}"

    def years(self) -> list[str]:
        """The years that are published, ascending."""
        prefix = f"{self.root}{self.asset}/year="
        pages = self.client.get_paginator("list_objects_v2").paginate(
            Bucket=self.bucket, Prefix=prefix
        )
        keys = [item["Key"] for page in pages for item in page.get("Contents", [])]
        return sorted(
            key.removeprefix(prefix).removesuffix(f"/{FILE_NAME}")
            for key in keys
            if key.endswith(f"/{FILE_NAME}")
        )

    def published_metadata(self, year: str | None) -> dict[str, str] | None:
        """What was noted with the year's object when it was published; None if there is none."""
        current = self._current(year)
        return current["Metadata"] if current else None

    def readable_key(self, year: str | None, keep: int) -> str:
        """Key at which the year's present version can be read in several requests.

        At the fixed key such a reader can meet two versions. Spark does: since 3.5 it opens a file
        once for the footer and again for the rows (SPARK-42388), and takes the size from a listing
        before both. Objects of the history are never replaced.

        Args:
            year: The year, which is published; None for an asset without years.
            keep: How many versions the history keeps; with none, it is the fixed key.

        Raises:
            RuntimeError: The year is not published.
        """
        while keep:
            current = self._current(year)
            if current is None:
                raise RuntimeError(f"{self.uri(year)} is gone.")
            if archived := self._archive(year, current):
                return archived
        return self.key(year)

    def schema(self, key: str) -> "pa.Schema":
        """The Parquet schema of an object, from its footer."""
        import pyarrow as pa
        import pyarrow.parquet as pq

        location = {"Bucket": self.bucket, "Key": key}
        tail = self.client.get_object(**location, Range=f"bytes=-{FOOTER_BYTES}")["Body"].read()  # type: ignore[arg-type]
        try:
            return pq.read_schema(io.BytesIO(tail))
        except pa.ArrowInvalid:  # A footer longer than that.
            return pq.read_schema(io.BytesIO(self.client.get_object(**location)["Body"].read()))  # type: ignore[arg-type]

    def publish(
        self, year: str | None, staged_key: str, metadata: Mapping[str, str], keep: int
    ) -> None:
        """Put a staged object in the place of the year's.

        S3 shows either the old object or the new one, whole, to every GET.

        Args:
            year: The year, or None for an asset without years.
            staged_key: Key of the staged object.
            metadata: Noted with the object: ASCII, 2 KB in all; needs ``published-at``, ``run-id``.
            keep: How many published versions remain in the history.
        """
        replaced = self._current(year)
        if keep and replaced is not None:
            self._archive(year, replaced)
        self._copy(staged_key, self.key(year), metadata)
        if keep:
            self._copy(staged_key, self._history_key(year, metadata), metadata)
        self._trim_history(year, keep)

    def _current(self, year: str | None) -> "HeadObjectOutputTypeDef | None":
        return head_object(self.client, self.bucket, self.key(year))

    def _archive(self, year: str | None, current: "HeadObjectOutputTypeDef") -> str | None:
        """The present version's key in the history; None if another run has just replaced it.

        Normally it is there since it was published; not if that run was killed just then.
        """
        from botocore.exceptions import ClientError

        archived = self._history_key(year, current["Metadata"])
        try:
            if not self._has(archived):
                self._copy(
                    self.key(year), archived, current["Metadata"], CopySourceIfMatch=current["ETag"]
                )
        except ClientError as error:
            if error.response["ResponseMetadata"]["HTTPStatusCode"] == 412:
                return None
            raise
        return archived

    def _copy(
        self, source: str, target: str, metadata: Mapping[str, str], **conditions: str
    ) -> None:
        from boto3.s3.transfer import TransferConfig

        self.client.copy(
            {"Bucket": self.bucket, "Key": source},
            self.bucket,
            target,
            ExtraArgs={"Metadata": dict(metadata), "MetadataDirective": "REPLACE", **conditions},
            Config=TransferConfig(multipart_threshold=ONE_COPY_BYTES),
        )

    def _history_folder(self, year: str | None) -> str:
        return f"{self.root}{HISTORY}{self.asset}/{_folder(year)}"

    def _history_key(self, year: str | None, metadata: Mapping[str, str]) -> str:
        when, run = metadata.get("published-at", "unknown"), metadata.get("run-id", "unknown")
        return f"{self._history_folder(year)}{when}-{run}.parquet"

    def _has(self, key: str) -> bool:
        listed = self.client.list_objects_v2(Bucket=self.bucket, Prefix=key, MaxKeys=1)
        return any(item["Key"] == key for item in listed.get("Contents", []))

    def _trim_history(self, year: str | None, keep: int) -> None:
        pages = self.client.get_paginator("list_objects_v2").paginate(
            Bucket=self.bucket, Prefix=self._history_folder(year)
        )
        # Keys begin with the time: the last ones are the newest. The embedded S3 server lists as
        # well what another run is just writing, under the key with a suffix.
        keys = sorted(
            item["Key"]
            for page in pages
            for item in page.get("Contents", [])
            if item["Key"].endswith(".parquet")
        )
        for key in keys[: max(0, len(keys) - keep)]:
            self.client.delete_object(Bucket=self.bucket, Key=key)


def publication_time() -> str:
    """Now, in UTC, as it stands in keys and object metadata: 20261123T021800.123456Z."""
    return datetime.now(UTC).strftime("%Y%m%dT%H%M%S.%fZ")


def read_object(client: "S3Client", bucket: str, key: str) -> "pa.Table":
    """A Parquet object's rows, read in one GET: one whole version of it."""
    import pyarrow.parquet as pq

    body: Any = client.get_object(Bucket=bucket, Key=key)["Body"]
    return pq.ParquetFile(io.BytesIO(body.read())).read()


def _folder(year: str | None) -> str:
    return f"year={year}/" if year else ""
