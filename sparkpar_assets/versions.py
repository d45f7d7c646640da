"""The published versions of a partition: lists them, puts one back, compares two.

``python -m sparkpar_assets.versions list|rollback|diff ASSET [PARTITION] [VERSION …]``

Neither Spark nor Java is needed: an object is read in one request.
"""

import argparse
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import dagster as dg
from dotenv import load_dotenv

from sparkpar_assets.comparison import (
    MISSING,
    NotComparableError,
    compare,
    difference,
    figure,
    text_table,
    total,
)
from sparkpar_assets.io_managers.history import (
    PublishedVersions,
    Version,
    VersionError,
    published_versions,
)
from sparkpar_assets.io_managers.published import published_dataset
from sparkpar_assets.materialize import SelectionError, partition_keys
from sparkpar_assets.metadata import GROUP_BY_KEY, TOTALS_KEY
from sparkpar_assets.resources.environment import settings_in_force
from sparkpar_assets.resources.s3 import explained_errors, s3_client
from sparkpar_assets.rollback import roll_back

if TYPE_CHECKING:
    import pyarrow as pa


def main() -> None:
    """Run one command; what a user can mend ends in two sentences and exit code 1."""
    arguments = _parser().parse_args()
    command: Callable[[str, Sequence[str]], str] = arguments.command
    try:
        sys.stdout.write(f"{command(arguments.asset, arguments.words)}\n")
    except (SelectionError, VersionError, NotComparableError) as error:
        sys.exit(f"Error: {error}")
    except dg.Failure as failure:
        sys.exit(f"Error: {failure.description}")


def list_versions(asset: str, words: Sequence[str]) -> str:
    """List what was published, newest first."""
    with _published(asset, words, 0) as (published, _, metadata):
        return versions_table(published, metadata.get(TOTALS_KEY, ()))


def rollback(asset: str, words: Sequence[str]) -> str:
    """Put a version back."""
    # The instance first, as Dagster's own commands do it: .env does not choose it.
    with _instance() as instance, _published(asset, words, 1) as (published, (chosen,), metadata):
        return roll_back(instance, published, chosen, metadata)


def diff(asset: str, words: Sequence[str]) -> str:
    """Show what changed from one version to another, by group."""
    with _published(asset, words, 2) as (published, (first, second), metadata):
        group_by = metadata.get(GROUP_BY_KEY)
        if not group_by:
            raise SelectionError(
                f"{asset} does not say by which columns it groups its rows. "
                f"Add {GROUP_BY_KEY} to the asset's metadata."
            )
        return changes_table(published, first, second, group_by)


def versions_table(published: PublishedVersions, totals: Sequence[str]) -> str:
    """The versions of a partition as text, each with its totals and their change."""
    heading = ["version", "published (UTC)", "run", "source version", "code", "rows"]
    heading += [title for name in totals for title in (name, "change")]
    lines = [
        [
            published.short(version.name),
            _readable_time(version.published_at),
            version.run_id[:8].rstrip("-"),  # "unknown" of what no run has put there
            version.noted.get("source-version") or MISSING,
            version.noted.get("code-version") or MISSING,
            figure(None if version.rows is None else version.rows.num_rows),
            *(cell for name in totals for cell in _total_and_change(version, older, name)),
            _remark(published, version),
        ]
        for version, older in zip(published.versions, [*published.versions[1:], None], strict=True)
    ]
    table = text_table([*heading, ""], lines, right=range(5, 6 + 2 * len(totals)))
    return f"{published.title}: {published.uri}\n\n{table}"


def changes_table(
    published: PublishedVersions, first: Version, second: Version, group_by: Sequence[str]
) -> str:
    """What changed between two versions as text, a line for each value.

    Raises:
        NotComparableError: Their groups cannot be told apart.
        VersionError: One is not a Parquet file.
    """
    names = [published.short(version.name) for version in (first, second)]
    compared = compare(_rows(published, first), _rows(published, second), group_by)
    title = f"{published.title}: from {names[0]} to {names[1]}"
    if not compared.changes:
        same = f"Nothing changed: all {compared.groups['same']} groups are the same in both."
        return "\n".join([title, "", same, *compared.columns])
    lines = [
        [
            change.kind,
            *map(str, change.group),
            change.column,
            figure(change.before),
            figure(change.after),
            figure(difference(change.before, change.after), "+"),
        ]
        for change in compared.changes
    ]
    keys = len(group_by)
    right = [*range(1, 1 + keys), *range(2 + keys, 5 + keys)]
    table = text_table(["", *group_by, "column", *names, "change"], lines, right)
    counts = ", ".join(f"{number} {kind}" for kind, number in compared.groups.items())
    return "\n".join([title, "", table, "", f"Groups: {counts}.", *compared.columns])


@contextmanager
def _published(
    asset: str, words: Sequence[str], asked: int
) -> Iterator[tuple[PublishedVersions, list[Version], Mapping[str, Any]]]:
    """What a command line names: a partition's versions, those asked for, and the metadata."""
    from sparkpar_assets.definitions import defs

    partition, names = _split(asset, words, partition_keys(defs, asset), asked)
    node = defs.resolve_asset_graph().get(dg.AssetKey.from_user_string(asset))
    load_dotenv(Path.cwd() / ".env", override=True)  # as Dagster's commands do
    with settings_in_force() as settings, explained_errors(settings):
        dataset = published_dataset(settings, s3_client(settings), node.key, node.metadata)
        if not settings.history_versions:
            raise SelectionError(
                "HISTORY_VERSIONS is 0, so no version is kept but the published one. "
                f"Set it to 2 or more: what {asset} publishes from then on can be put back."
            )
        published = published_versions(dataset, partition)
        if not published.versions:
            raise SelectionError(
                f"{published.title} was never published at {published.uri}. "
                "Materialize it, or correct S3_PREFIX."
            )
        yield published, [published.find(name) for name in names], node.metadata


def _split(
    asset: str, words: Sequence[str], partitions: Sequence[str] | None, asked: int
) -> tuple[str | None, Sequence[str]]:
    """The partition and the versions among the words of a command line."""
    partition, names = None, list(words)
    if partitions is None:
        if len(names) > asked:
            raise SelectionError(f"{asset} has no partitions. Leave {names[0]} out.")
    else:
        span = f"{partitions[0]} to {partitions[-1]}"
        if not names:
            raise SelectionError(f"{asset} has the partitions {span}. Name one of them.")
        partition = names.pop(0)
        if partition not in partitions:
            raise SelectionError(
                f"{asset} has no partition '{partition}'. The partitions are {span}."
            )
    if len(names) > asked:
        raise SelectionError(f"There is a word too many, {names[asked]}. Leave it out.")
    if len(names) < asked:
        shown = f"{asset} {partition or ''}".strip()
        raise SelectionError(
            f"Of the versions of {shown}, {len(names)} are named, and it takes {asked}. "
            f"./run.sh versions {shown} lists them."
        )
    return partition, names


def _instance() -> dg.DagsterInstance:
    from dagster._core.errors import DagsterHomeNotSetError

    try:
        return dg.DagsterInstance.get()
    except DagsterHomeNotSetError:
        raise SelectionError(
            "DAGSTER_HOME is not set, so Dagster would not hear of the rollback. "
            "Set it to the folder of your dagster.yaml."
        ) from None


def _rows(published: PublishedVersions, version: Version) -> "pa.Table":
    if version.rows is None:
        raise VersionError(
            f"The version {published.short(version.name)} of {published.title} is not a Parquet "
            "file. Compare others."
        )
    return version.rows


def _total_and_change(version: Version, older: Version | None, column: str) -> list[str]:
    now, before = (
        total(one.rows, column) if one is not None and one.rows is not None else None
        for one in (version, older)
    )
    return [figure(now), figure(difference(before, now), "+")]


def _remark(published: PublishedVersions, version: Version) -> str:
    remarks = ["current"] if version.is_current else []
    if version.restored_from:
        remarks.append(f"rollback to {published.short(version.restored_from)}")
    if version.rows is None:
        remarks.append("not a Parquet file")
    return ", ".join(remarks)


def _readable_time(time: str) -> str:
    """2026-11-23 02:18:00, of 20261123T021800.123456Z."""
    return f"{time[:4]}-{time[4:6]}-{time[6:8]} {time[9:11]}:{time[11:13]}:{time[13:15]}"


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="run.sh", description=(__doc__ or "").split("\n\n")[0])
    commands = parser.add_subparsers(required=True, metavar="COMMAND")
    for name, command, words in (
        ("list", list_versions, "[PARTITION]"),
        ("rollback", rollback, "[PARTITION] VERSION"),
        ("diff", diff, "[PARTITION] VERSION VERSION"),
    ):
        added = commands.add_parser(name, help=(command.__doc__ or "").splitlines()[0])
        added.add_argument("asset", metavar="ASSET")
        added.add_argument("words", metavar=words, nargs="*")
        added.set_defaults(command=command)
    return parser


if __name__ == "__main__":
    main()
