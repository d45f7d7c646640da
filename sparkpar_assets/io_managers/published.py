"""Published objects in S3: one under a fixed key a partition, replaced by one server-side copy."""

import io
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

import dagster as dg

from sparkpar_assets.metadata import PATH_KEY
from sparkpar_assets.resources.s3 import bucket_of, head_object
from sparkpar_assets.settings import Settings

if TYPE_CHECKING:
    import pyarrow as pa
    from mypy_boto3_s3 import S3Client
    from mypy_boto3_s3.type_defs import HeadObjectOutputTypeDef

FILE_NAME = "data.parquet"
HISTORY = "_history/"
VERSION_SUFFIX = ".parquet"
TIME_FORMAT = "%Y%m%dT%H%M%S.%fZ"
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
        asset: The asset's name.
        folder: The asset's folder, under the root.
    """

    client: "S3Client"
    bucket: str
    root: str
    asset: str
    folder: str

    def key(self, year: str | None) -> str:
        """Key of a year's object, or of the only one of an asset without years."""
        return f"{self.root}{self.folder}/{_folder(year)}{FILE_NAME}"

    def uri(self, year: str | None) -> str:
        """The object's s3:// URI."""
        return f"s3://{self.bucket}/{self.key(year)}"

    def years(self) -> list[str]:
        """The years that are published, ascending."""
        prefix = f"{self.root}{self.folder}/year="
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
            keep: How many published versions the history keeps.
        """
        self._replace(year, staged_key, metadata, archived=keep > 0)

    def update_history(
        self, year: str | None, staged_key: str, metadata: Mapping[str, str], keep: int
    ) -> None:
        """Keep the version just published and those before it; what is older goes.

        Apart from ``publish``, for it can be done again: the year is published by then.

        Args:
            year: The year, or None for an asset without years.
            staged_key: What was published. Another run or a rollback may have replaced the year's
                object already; if the staged one is gone, that object has to do.
            metadata: What was noted with it.
            keep: How many published versions remain.
        """
        archived = self.history_key(year, version_name(metadata))
        if keep and not self._has(archived):
            if self._has(staged_key):
                self._copy(staged_key, archived, metadata)
            elif (current := self._current(year)) is not None:
                self._archive(year, current)
        self._trim_history(year, keep)

    def put_back(self, year: str | None, name: str, metadata: Mapping[str, str]) -> None:
        """Put a version of the history in the place of the year's object: a publication as others.

        Nothing is removed from the history: not the version that is replaced, nor an older one.

        Args:
            year: The year, or None for an asset without years.
            name: The version's name.
            metadata: Noted with the object, under whose ``published-at`` it is a version anew.

        Raises:
            botocore.exceptions.ClientError: 404: the version is not there (any more).
        """
        self._replace(year, self.history_key(year, name), metadata, archived=True)
        self._copy(
            self.history_key(year, name), self.history_key(year, version_name(metadata)), metadata
        )

    def history(self, year: str | None) -> list[str]:
        """Names of the versions in the history, ``<time>-<run id>``, oldest first."""
        folder = self.history_key(year, "").removesuffix(VERSION_SUFFIX)
        pages = self.client.get_paginator("list_objects_v2").paginate(
            Bucket=self.bucket, Prefix=folder
        )
        # Names begin with the time. The embedded S3 server lists as well what another run is just
        # writing, under the key with a suffix.
        return sorted(
            item["Key"].removeprefix(folder).removesuffix(VERSION_SUFFIX)
            for page in pages
            for item in page.get("Contents", [])
            if item["Key"].endswith(VERSION_SUFFIX)
        )

    def history_key(self, year: str | None, name: str) -> str:
        """Key of a version in the history."""
        return f"{self.root}{HISTORY}{self.folder}/{_folder(year)}{name}{VERSION_SUFFIX}"

    def _replace(
        self, year: str | None, source: str, metadata: Mapping[str, str], *, archived: bool
    ) -> None:
        replaced = self._current(year)
        if archived and replaced is not None:
            self._archive(year, replaced)
        self._copy(source, self.key(year), metadata)

    def _current(self, year: str | None) -> "HeadObjectOutputTypeDef | None":
        return head_object(self.client, self.bucket, self.key(year))

    def _archive(self, year: str | None, current: "HeadObjectOutputTypeDef") -> str | None:
        """The present version's key in the history; None if another run has just replaced it.

        Normally it is there since it was published; not if that run was killed just then.
        """
        from botocore.exceptions import ClientError

        archived = self.history_key(
            year, version_name(current["Metadata"], current["LastModified"], current["ETag"])
        )
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

    def _has(self, key: str) -> bool:
        listed = self.client.list_objects_v2(Bucket=self.bucket, Prefix=key, MaxKeys=1)
        return any(item["Key"] == key for item in listed.get("Contents", []))

    def _trim_history(self, year: str | None, keep: int) -> None:
        names = self.history(year)
        for name in names[: max(0, len(names) - keep)]:
            self.client.delete_object(Bucket=self.bucket, Key=self.history_key(year, name))


def published_dataset(
    settings: Settings, client: "S3Client", asset_key: dg.AssetKey, definition: Mapping[str, Any]
) -> PublishedDataset:
    """Where an asset is published.

    Args:
        settings: Name the bucket and the prefix.
        client: A client of their S3.
        asset_key: The asset's key.
        definition: The metadata that the asset declares.
    """
    asset = "/".join(asset_key.path)
    return PublishedDataset(
        client=client,
        bucket=bucket_of(settings),
        root=settings.s3_root,
        asset=asset,
        folder=definition.get(PATH_KEY, asset),
    )


def publication_time() -> str:
    """Now, in UTC, as it stands in keys and object metadata: 20261123T021800.123456Z."""
    return datetime.now(UTC).strftime(TIME_FORMAT)


def version_name(
    metadata: Mapping[str, str], modified: datetime | None = None, etag: str = ""
) -> str:
    """Name of a version, ``<time>-<run id>``, from what was noted with its object.

    Args:
        metadata: What was noted.
        modified: The time of an object with which none was noted: somebody else has put it there.
        etag: That object's ETag. S3 tells times by the second: it tells two of one second apart.
    """
    written = modified.astimezone(UTC).strftime(TIME_FORMAT) if modified else "unknown"
    tag = etag.strip('"')[:8]
    run = f"unknown-{tag}" if tag else "unknown"
    return f"{metadata.get('published-at', written)}-{metadata.get('run-id', run)}"


def read_object(client: "S3Client", bucket: str, key: str) -> "pa.Table":
    """A Parquet object's rows, read in one GET: one whole version of it."""
    body: Any = client.get_object(Bucket=bucket, Key=key)["Body"]
    return parquet_rows(body.read())


def parquet_rows(content: bytes) -> "pa.Table":
    """The rows of a Parquet file that is in memory.

    In this thread alone. One of Arrow's own may be the last to hold the file, which is a Python
    object; if Python ends at that moment, it aborts (one process in twenty, with exit code 134).
    """
    import pyarrow.parquet as pq

    return pq.ParquetFile(io.BytesIO(content)).read(use_threads=False)


def _folder(year: str | None) -> str:
    return f"year={year}/" if year else ""
