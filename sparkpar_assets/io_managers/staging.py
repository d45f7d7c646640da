"""Staged data in S3: kept alive by a lease while its run lives, removed by others once it is dead.

A staging area is ``<root>_staging/<run id>/<attempt>-<uuid>/`` with the object ``lease`` in it,
which the run writes anew ten times in a lifetime. An area whose lease is older than its lifetime by
S3's own clock, or that has none, belongs to nobody; nor does one whose run has ended, as Dagster
knows it.
"""

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from email.utils import parsedate_to_datetime
from typing import TYPE_CHECKING
from uuid import uuid4

import dagster as dg

from sparkpar_assets.resources.s3 import head_object

if TYPE_CHECKING:
    from logging import Logger

    from dagster import DagsterLogManager
    from mypy_boto3_s3 import S3Client

STAGING = "_staging/"


@dataclass(frozen=True)
class StagingArea:
    """A run's own folder for rows that are not published yet.

    Attributes:
        client: Reaches the bucket.
        bucket: The bucket.
        prefix: The area's folder, with a slash at its end.
    """

    client: "S3Client"
    bucket: str
    prefix: str
    _ended: threading.Event = field(default_factory=threading.Event)

    @property
    def lease_key(self) -> str:
        """Key of the lease object."""
        return f"{self.prefix}lease"

    def assert_held(self) -> None:
        """Make sure that nobody has taken this run for dead.

        A run that was paused (a suspended machine, say) may find its area removed on waking.

        Raises:
            dg.Failure: The lease is gone.
        """
        if head_object(self.client, self.bucket, self.lease_key) is None:
            raise dg.Failure(
                "This run was silent for so long that its staged data was removed. "
                "Materialize the partitions again.",
                allow_retries=False,
            )

    def renew(self) -> None:
        """Write the lease anew, unless it is gone."""
        if head_object(self.client, self.bucket, self.lease_key) is not None:
            self.client.put_object(Bucket=self.bucket, Key=self.lease_key, Body=b"")

    def keep_alive(self, seconds: float, log: "DagsterLogManager") -> None:
        """Renew the lease every ``seconds`` until the area is given up."""
        while not self._ended.wait(seconds):
            try:
                self.renew()
            except Exception as error:  # noqa: BLE001 — whatever it is, the next renewal may succeed
                log.warning(f"The staging lease could not be renewed: {error}")


@contextmanager
def staging_area(
    client: "S3Client",
    bucket: str,
    root: str,
    owner: str,
    lifetime: float,
    log: "DagsterLogManager",
) -> Iterator[StagingArea]:
    """A staging area that lives as long as the block.

    Args:
        client: Reaches the bucket.
        bucket: The bucket.
        root: Prefix of everything the platform writes.
        owner: Run id and attempt, ``<run id>/<attempt>``.
        lifetime: Seconds after which an unrenewed lease counts as dead.
        log: The run's log.
    """
    area = StagingArea(client, bucket, f"{root}{STAGING}{owner}-{uuid4().hex[:12]}/")
    client.put_object(Bucket=bucket, Key=area.lease_key, Body=b"")
    keeper = threading.Thread(
        target=area.keep_alive, args=(lifetime / 10, log), name="staging-lease", daemon=True
    )
    keeper.start()
    try:
        yield area
    finally:
        area._ended.set()
        keeper.join()
        try:
            _remove(client, bucket, area.prefix)
        except Exception as error:  # noqa: BLE001 — the run's end is told by what it did before
            log.warning(f"What was staged is left to a later run to remove: {error}")


def remove_dead_staging(
    client: "S3Client",
    bucket: str,
    root: str,
    lifetime: float,
    log: "Logger",
    has_ended: Callable[[str], bool],
) -> list[str]:
    """Remove the staging areas of runs that were killed, with their unfinished uploads.

    Args:
        client: Reaches the bucket.
        bucket: The bucket.
        root: Prefix of everything the platform writes.
        lifetime: Seconds after which an unrenewed lease counts as dead.
        log: Is told of each.
        has_ended: Whether the run of this id is known to have ended: its lease counts no more.

    Returns:
        The prefixes of these areas.
    """
    staging = f"{root}{STAGING}"
    dead = [
        prefix
        for prefix in sorted(_areas(client, bucket, staging))
        if has_ended(prefix.removeprefix(staging).split("/")[0])
        or not _is_alive(client, bucket, f"{prefix}lease", lifetime)
    ]
    for prefix in dead:
        log.info(f"Removing what a dead run left staged: s3://{bucket}/{prefix}")
        _remove(client, bucket, prefix)
    return dead


def ended_runs(instance: dg.DagsterInstance) -> Callable[[str], bool]:
    """Tells whether a run has ended; of one that the instance does not know, it says no."""

    def has_ended(run_id: str) -> bool:
        run = instance.get_run_by_id(run_id)
        return run is not None and run.is_finished

    return has_ended


def _areas(client: "S3Client", bucket: str, staging: str) -> set[str]:
    """The areas that hold objects or unfinished uploads."""
    keys = [item["Key"] for item in _objects(client, bucket, staging)]
    keys += [item["Key"] for item in _uploads(client, bucket, staging)]
    return {
        staging + "/".join(parts[:2]) + "/"
        for key in keys
        if len(parts := key.removeprefix(staging).split("/")) > 2
    }


def _is_alive(client: "S3Client", bucket: str, lease_key: str, lifetime: float) -> bool:
    lease = head_object(client, bucket, lease_key)
    if lease is None:
        return False
    now = parsedate_to_datetime(lease["ResponseMetadata"]["HTTPHeaders"]["date"])
    return (now - lease["LastModified"]).total_seconds() < lifetime


def _remove(client: "S3Client", bucket: str, prefix: str) -> None:
    """Delete an area: the lease first, so that a run which wakes up now sees that it is lost."""
    client.delete_object(Bucket=bucket, Key=f"{prefix}lease")
    for upload in _uploads(client, bucket, prefix):
        # Two runs that find the same dead one remove it both.
        with suppress(client.exceptions.NoSuchUpload):
            client.abort_multipart_upload(
                Bucket=bucket, Key=upload["Key"], UploadId=upload["UploadId"]
            )
    keys = [item["Key"] for item in _objects(client, bucket, prefix)]
    for start in range(0, len(keys), 1000):
        client.delete_objects(
            Bucket=bucket, Delete={"Objects": [{"Key": key} for key in keys[start : start + 1000]]}
        )


def _objects(client: "S3Client", bucket: str, prefix: str) -> Iterator[dict[str, str]]:
    for page in client.get_paginator("list_objects_v2").paginate(Bucket=bucket, Prefix=prefix):
        yield from page.get("Contents", [])  # type: ignore[misc]


def _uploads(client: "S3Client", bucket: str, prefix: str) -> Iterator[dict[str, str]]:
    pages = client.get_paginator("list_multipart_uploads").paginate(Bucket=bucket, Prefix=prefix)
    for page in pages:
        yield from page.get("Uploads", [])  # type: ignore[misc]
