"""The versions of a published object: the present one, and those that the history keeps."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from sparkpar_assets.io_managers.published import (
    PublishedDataset,
    parquet_rows,
    publication_time,
    version_name,
)

if TYPE_CHECKING:
    import pyarrow as pa

SECONDS = len("20261123T021800")
"""A version is called by its time to the second, or as much more of its name as tells it apart."""

RESTORED_FROM = "restored-from"
"""Noted with a version that a rollback published: the time of the version whose rows it has."""


@dataclass(frozen=True)
class Version:
    """One published version of a year.

    Attributes:
        name: Its name in the history, ``<time>-<run id>``.
        noted: What was noted with its object.
        rows: Its rows; None where the object is no Parquet file.
        is_current: Whether it is what readers see.
    """

    name: str
    noted: Mapping[str, str]
    rows: "pa.Table | None"
    is_current: bool

    @property
    def published_at(self) -> str:
        """When it was published, as ``20261123T021800.123456Z``."""
        return self.name.partition("-")[0]

    @property
    def run_id(self) -> str:
        """The run that computed it, also where a rollback has published it anew."""
        return self.name.partition("-")[2]

    @property
    def restored_from(self) -> str | None:
        """Name of the version that a rollback put back by publishing this one."""
        time = self.noted.get(RESTORED_FROM)
        return f"{time}-{self.run_id}" if time else None

    @property
    def origin(self) -> str:
        """Name of the version that was computed: two of one origin have the same bytes."""
        return self.restored_from or self.name


class VersionError(ValueError):
    """A version that is not there, or cannot be read: one sentence of cause, one of remedy."""


@dataclass(frozen=True)
class PublishedVersions:
    """The versions of one year of one asset.

    Attributes:
        dataset: Where they are.
        year: The year; None for an asset without years.
        versions: The versions, newest first.
    """

    dataset: PublishedDataset
    year: str | None
    versions: Sequence[Version]

    @property
    def title(self) -> str:
        """Asset and year, as the commands take them."""
        return f"{self.dataset.asset} {self.year or ''}".strip()

    @property
    def uri(self) -> str:
        """URI of the object that readers see."""
        return self.dataset.uri(self.year)

    @property
    def current(self) -> Version | None:
        """The version that readers see; None where the object is gone."""
        return next((version for version in self.versions if version.is_current), None)

    def short(self, name: str) -> str:
        """The shortest beginning of a version's name, from the second on, that no other one has."""
        others = [version.name for version in self.versions if version.name != name]
        length = SECONDS
        while length < len(name) and any(other.startswith(name[:length]) for other in others):
            length += 1
        return name[:length]

    def find(self, asked: str) -> Version:
        """The version whose name begins so.

        Raises:
            VersionError: There is none, or there are several.
        """
        found = [version for version in self.versions if version.name.startswith(asked)]
        listed = ", ".join(self.short(version.name) for version in found or self.versions)
        if not found:
            raise VersionError(
                f"{self.title} has no version '{asked}'. The versions are: {listed}."
            )
        if len(found) > 1:
            raise VersionError(f"'{asked}' begins several versions. Write one of: {listed}.")
        return found[0]


def published_versions(dataset: PublishedDataset, year: str | None) -> PublishedVersions:
    """The versions of a year, each read in one GET."""
    return PublishedVersions(dataset, year, _read_versions(dataset, year))


def current_version(dataset: PublishedDataset, year: str | None) -> Version | None:
    """The version of a year that readers see, read in one GET; None where there is none."""
    return _read(dataset, dataset.key(year))


def put_back(published: PublishedVersions, version: Version) -> str:
    """Publish a version of the history anew; returns the name of what that makes.

    The run id, the code version and the source version stay those of the version, and so a later
    run, whose source cannot be older, publishes over it.

    Raises:
        VersionError: The history has it no more.
    """
    from botocore.exceptions import ClientError

    note = {
        **version.noted,
        "published-at": publication_time(),
        "run-id": version.run_id,
        RESTORED_FROM: version.origin.partition("-")[0],
    }
    try:
        published.dataset.put_back(published.year, version.name, note)
    except ClientError as error:
        if error.response["ResponseMetadata"]["HTTPStatusCode"] != 404:
            raise
        raise VersionError(
            f"The version {version.name} is gone: a run has just published, and the oldest went. "
            "List the versions again."
        ) from None
    return version_name(note)


def _read_versions(dataset: PublishedDataset, year: str | None) -> list[Version]:
    current = current_version(dataset, year)
    archived = [
        _read(dataset, dataset.history_key(year, name), name)
        for name in dataset.history(year)
        if current is None or name != current.name
    ]
    found = [version for version in (current, *archived) if version is not None]
    return sorted(found, key=lambda version: version.name, reverse=True)


def _read(dataset: PublishedDataset, key: str, name: str | None = None) -> Version | None:
    """An object as a version; without a name it is the current one. None if it is not there."""
    try:
        answer = dataset.client.get_object(Bucket=dataset.bucket, Key=key)
    except dataset.client.exceptions.NoSuchKey:
        return None
    noted = answer["Metadata"]
    return Version(
        name=name or version_name(noted, answer["LastModified"], answer["ETag"]),
        noted=noted,
        rows=_rows(answer["Body"].read()),
        is_current=name is None,
    )


def _rows(content: bytes) -> "pa.Table | None":
    import pyarrow as pa

    try:
        return parquet_rows(content)
    except (pa.ArrowException, OSError):  # Arrow says so of damaged pages.
        return None
