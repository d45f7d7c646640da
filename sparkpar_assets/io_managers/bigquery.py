"""Loading yearly BigQuery tables as one lazy Spark DataFrame."""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import reduce
from typing import TYPE_CHECKING, Any

import dagster as dg

from sparkpar_assets.resources.bigquery import BigQueryTables, TableState
from sparkpar_assets.resources.spark import Spark
from sparkpar_assets.settings import Settings

if TYPE_CHECKING:
    from pyspark.sql import DataFrame

ROWS_PER_STREAM = 50_000
"""A stream is a Spark task, whose start costs more than reading so many rows."""


@dataclass(frozen=True)
class SourceYears:
    """Years of a source: the rows of those that can be read, and why the others can't.

    Attributes:
        rows: The years' rows with a column ``year`` INT32; lazy, nothing is read yet.
        states: The tables as they were when the run looked at them, by year.
        refused: A sentence of cause for each year that can't be read.
        tables: Where to look again.
    """

    rows: "DataFrame"
    states: Mapping[str, TableState]
    refused: Mapping[str, str]
    tables: BigQueryTables
    snapshots: bool

    def changed_years(self) -> list[str]:
        """Years whose table has changed since, where the rows were not read from a snapshot."""
        if self.snapshots:
            return []
        now = self.tables.states({year: state.name for year, state in self.states.items()})
        return [
            year
            for year, state in self.states.items()
            if (later := now[year]) is None or later.version != state.version
        ]


class BigQueryYears(dg.ConfigurableIOManager):
    """Reads one BigQuery table a year, all years of a run in parallel, through the Storage API.

    The input's metadata says which columns are read: ``{"columns": {name: GoogleSQL type}}``.
    Only those are read. Before Spark starts, the tables' free metadata tell which years have no
    table, an empty one, or one that lacks a column or has it in another type.
    """

    tables: BigQueryTables
    spark: Spark

    def handle_output(self, context: dg.OutputContext, obj: object) -> None:  # noqa: ARG002
        """Refuse: the tables are read only.

        Raises:
            dg.Failure: Always.
        """
        raise dg.Failure("BigQuery's tables are only read here. Publish with another IO manager.")

    def load_input(self, context: dg.InputContext) -> SourceYears:
        """Look at the tables of the run's years and prepare the reading of those in order.

        Raises:
            dg.Failure: No year can be read.
        """
        settings = self.tables.environment.settings
        columns = (context.definition_metadata or {})["columns"]
        asked = datetime.now(UTC)
        names = {key: f"{settings.taxi_table_prefix}{key}" for key in context.asset_partition_keys}
        found = self.tables.states(names)
        refused = {
            year: reason
            for year, state in found.items()
            if (reason := why_unreadable(names[year], state, columns))
        }
        states = {
            year: state
            for year, state in found.items()
            if state is not None and year not in refused
        }
        for year, reason in refused.items():
            context.log.error(f"{year}: {reason}")
        if not states:
            raise unreadable_years(refused)
        frames = [
            self._read(settings, state, asked, year, list(columns))
            for year, state in states.items()
        ]
        return SourceYears(
            rows=reduce(lambda one, other: one.unionByName(other), frames),
            states=states,
            refused=refused,
            tables=self.tables,
            snapshots=settings.bigquery_snapshot_reads,
        )

    def _read(
        self, settings: Settings, state: TableState, asked: datetime, year: str, columns: list[str]
    ) -> "DataFrame":
        from pyspark.sql import functions as F  # noqa: N812

        options: dict[str, Any] = {
            "table": state.name,
            "parentProject": settings.gcp_project,
            "credentialsFile": settings.google_credentials_file,
            "bigQueryHttpEndpoint": settings.bigquery_http_endpoint,
            "bigQueryStorageGrpcEndpoint": settings.bigquery_storage_endpoint,
            "readDataFormat": "ARROW",
            "maxParallelism": max(1, state.rows // ROWS_PER_STREAM),
        }
        if settings.bigquery_snapshot_reads:
            # By our clock, which may be behind the server's: then the last change is the later one.
            options["snapshotTimeMillis"] = int(max(asked, state.modified).timestamp() * 1000)
        reader = self.spark.session.read.format("bigquery")
        for name, value in options.items():
            if value is not None:
                reader = reader.option(name, value)
        return reader.load().select(F.lit(int(year)).alias("year"), *columns)


def unreadable_years(refused: Mapping[str, str]) -> dg.Failure:
    """The failure of a run that published none or not all of its years."""
    reasons = " ".join(f"{year}: {reason}" for year, reason in sorted(refused.items()))
    return dg.Failure(
        f"Not published: {', '.join(sorted(refused))}. {reasons} "
        "Mend the tables, or leave these years out of the range.",
        metadata={"not_published": dg.MetadataValue.json(dict(refused))},
        allow_retries=False,
    )


def why_unreadable(name: str, state: TableState | None, columns: Mapping[str, str]) -> str | None:
    """A sentence that says why a year's table cannot be read; None if it can.

    Args:
        name: The table's name.
        state: What is known of it; None if there is no such table.
        columns: GoogleSQL types of the columns to read, by name.
    """
    if state is None:
        return f"the table {name} does not exist."
    problems = [
        f"has no column {column}"
        if column not in state.columns
        else f"has {column} as {state.columns[column]} where {kind} is expected"
        for column, kind in columns.items()
        if state.columns.get(column) != kind
    ]
    if problems:
        return f"the table {name} {' and '.join(problems)}."
    if state.rows == 0 and state.settled:
        return f"the table {name} is empty."
    return None
