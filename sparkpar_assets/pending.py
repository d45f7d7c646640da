"""Which years have a table that is newer than what was published from it."""

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass

import dagster as dg

from sparkpar_assets.io_managers.read_plan import why_unreadable
from sparkpar_assets.io_managers.source import TAXI_TABLES, TableSource
from sparkpar_assets.partitions import TAXI_YEARS
from sparkpar_assets.resources.bigquery import BigQueryTables

FARES = dg.AssetKey("fare_by_passenger_count")
TABLES = TableSource(TAXI_TABLES, columns={})
"""No column is asked for: a run that fails for want of one says so, and is reported."""
PARTITION = "dagster/partition"
RANGE_START, RANGE_END = "dagster/asset_partition_range_start", "dagster/asset_partition_range_end"
FINISHED = (dg.DagsterRunStatus.SUCCESS, dg.DagsterRunStatus.FAILURE, dg.DagsterRunStatus.CANCELED)
UNFINISHED = [status for status in dg.DagsterRunStatus if status not in FINISHED]
LOOKED_AT = 20
"""Materializations of a year, from the last one back, among which the newest source version is
looked for. The last one alone is not enough: a rollback puts an older version in place, and must
not be undone."""


@dataclass(frozen=True)
class PendingYears:
    """What there is to do.

    Nothing is remembered for this from one look to the next: the tables say their versions, the
    materializations which of these were published, the runs' tags which were tried.

    Attributes:
        due: The version of the table, by year, of each year that a run should publish now.
        held: Of each other year whose table is newer than what is published, why not now.
        settled: Of each other year, why there is nothing to do.
    """

    due: Mapping[str, str]
    held: Mapping[str, str]
    settled: Mapping[str, str]

    @property
    def reasons(self) -> dict[str, str]:
        """Of each year that is not due, why."""
        return {**self.held, **self.settled}

    def run_requests(self) -> Iterator[dg.RunRequest]:
        """One run for each range of adjacent years that are due: a run carries one range only."""
        for years in _ranges(self.due):
            yield dg.RunRequest(
                run_key=", ".join(f"{year} {self.due[year]}" for year in years),
                asset_selection=[FARES],
                tags={
                    RANGE_START: years[0],
                    RANGE_END: years[-1],
                    **{_version_tag(year): self.due[year] for year in years},
                },
            )


def pending_years(
    instance: dg.DagsterInstance, bigquery: BigQueryTables, years: Iterable[str]
) -> PendingYears:
    """Compare the tables' versions with those that the years were published from.

    Args:
        instance: Knows the materializations and runs.
        bigquery: Where the tables are; asked for metadata alone.
        years: The years to look at.

    Raises:
        dg.Failure: BigQuery refuses the credentials or does not answer.
    """
    settings = bigquery.environment.settings
    names = {year: TABLES.name(year, settings) for year in years}
    due: dict[str, str] = {}
    held: dict[str, str] = {}
    settled: dict[str, str] = {}
    running = _unfinished_runs(instance)
    for year, state in bigquery.states(names).items():
        unreadable = why_unreadable(names[year], state, TABLES, settings)
        if state is None or unreadable:
            settled[year] = str(unreadable)
        elif state.version <= _published_version(instance, year):
            settled[year] = f"published from the table {names[year]} as it is now."
        else:
            reason = running.get(year) or _why_tried(instance, year, state.version)
            (held if reason else due)[year] = reason or state.version
    return PendingYears(due, held, settled)


def years_of(run: dg.DagsterRun) -> list[str]:
    """The years that a run's tags name."""
    first = run.tags.get(RANGE_START, run.tags.get(PARTITION))
    last = run.tags.get(RANGE_END, first)
    keys = TAXI_YEARS.get_partition_keys()
    if first not in keys or last not in keys:
        return []
    return list(keys[keys.index(first) : keys.index(last) + 1])


def _published_version(instance: dg.DagsterInstance, year: str) -> str:
    """The newest source version that a year was published from, empty if it never was."""
    found = instance.fetch_materializations(
        dg.AssetRecordsFilter(asset_key=FARES, asset_partitions=[year]), limit=LOOKED_AT
    ).records
    versions = [
        str(record.asset_materialization.metadata["source_version"].value)
        for record in found
        if record.asset_materialization
        and "source_version" in record.asset_materialization.metadata
    ]
    return max(versions, default="")


def _unfinished_runs(instance: dg.DagsterInstance) -> dict[str, str]:
    """Of each year that a run is going to publish, whoever launched it: which run that is.

    It will read the table as it is then. If that is not the newest state, the next look shows it.
    """
    runs = instance.get_runs(dg.RunsFilter(statuses=UNFINISHED))
    return {
        year: f"run {run.run_id} is not finished."
        for run in runs
        if FARES in (run.asset_selection or {FARES})
        for year in years_of(run)
    }


def _why_tried(instance: dg.DagsterInstance, year: str, version: str) -> str | None:
    """Which run was launched for this state of the table, and did not publish it."""
    tried = instance.get_runs(dg.RunsFilter(tags={_version_tag(year): version}), limit=1)
    if not tried:
        return None
    return (
        f"run {tried[0].run_id} did not publish the table as it is now ({tried[0].status.value}). "
        "Re-execute it, or mend the table."
    )


def _version_tag(year: str) -> str:
    return f"source_version/{year}"


def _ranges(years: Iterable[str]) -> list[list[str]]:
    ranges: list[list[str]] = []
    for year in sorted(years):
        if ranges and int(year) == int(ranges[-1][-1]) + 1:
            ranges[-1].append(year)
        else:
            ranges.append([year])
    return ranges
