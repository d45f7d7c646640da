"""Loading BigQuery tables as one lazy Spark DataFrame."""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import reduce
from typing import TYPE_CHECKING, Any

import dagster as dg

from sparkpar_assets.io_managers.publication import WHOLE
from sparkpar_assets.io_managers.source import TableSource
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

    Where the source is one table, not read by the year, ``WHOLE`` stands for the year.

    Attributes:
        rows: The years' rows with a column ``year`` INT32; lazy, nothing is read yet.
        states: The tables as they were when the run looked at them, by year.
        refused: A sentence of cause for each year that can't be read.
        tables: Where to look again.
        snapshots: Whether the rows are read as they were at that time.
        is_filtered: Whether rows of the tables are left out.
    """

    rows: "DataFrame"
    states: Mapping[str, TableState]
    refused: Mapping[str, str]
    tables: BigQueryTables
    snapshots: bool
    is_filtered: bool = False

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
    """Reads BigQuery tables, all years of a run in parallel, through the Storage API.

    The input's metadata describe a ``TableSource``. Only its columns are read.
    Before Spark starts, the tables' free metadata tell which years have no table, an empty one, or
    one that lacks a column or has it in another type.
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
        source = TableSource.of_input(context.definition_metadata)
        if source is None:
            raise RuntimeError(f"The input {context.name} has no TableSource in its metadata.")
        asked = datetime.now(UTC)
        years = context.asset_partition_keys if source.is_yearly else [WHOLE]
        names = {year: source.name(year, settings) for year in years}
        found = self.tables.states(names)
        refused = {
            year: reason
            for year, state in found.items()
            if (reason := why_unreadable(names[year], state, source, settings))
        }
        states = {
            year: state
            for year, state in found.items()
            if state is not None and year not in refused
        }
        for year, reason in refused.items():
            context.log.error(f"{year}: {reason}" if source.is_yearly else reason)
        if not states:
            raise unreadable_years(refused)
        frames = [
            self._read(settings, source, state, asked, year) for year, state in states.items()
        ]
        return SourceYears(
            rows=reduce(lambda one, other: one.unionByName(other), frames),
            states=states,
            refused=refused,
            tables=self.tables,
            snapshots=settings.bigquery_snapshot_reads,
            is_filtered=source.where is not None or source.year_column is not None,
        )

    def _read(
        self, settings: Settings, source: TableSource, state: TableState, asked: datetime, year: str
    ) -> "DataFrame":
        from pyspark.sql import functions as F  # noqa: N812

        restriction = source.restriction(year, state.columns)
        options: dict[str, Any] = {
            "table": state.name,
            "parentProject": settings.gcp_project,
            "credentialsFile": settings.google_credentials_file,
            "bigQueryHttpEndpoint": settings.bigquery_http_endpoint,
            "bigQueryStorageGrpcEndpoint": settings.bigquery_storage_endpoint,
            "readDataFormat": "ARROW",
            # Of comparisons in Spark's SQL the connector pushes down most: of this text, all.
            "filter": restriction,
        }
        if state.is_view:
            project, _, dataset = (settings.bigquery_view_dataset or "").rpartition(".")
            options |= {
                "viewsEnabled": "true",
                "materializationProject": project or None,
                "materializationDataset": dataset,
            }
        else:
            options["maxParallelism"] = max(1, state.rows // ROWS_PER_STREAM)
            if settings.bigquery_snapshot_reads:
                # By our clock, which may be behind the server's: then the last change is later.
                moment = max(asked, state.modified)
                options["snapshotTimeMillis"] = int(moment.timestamp() * 1000)
        reader = self.spark.session.read.format("bigquery")
        for name, value in options.items():
            if value is not None:
                reader = reader.option(name, value)
        rows = reader.load()
        if source.where is not None:
            rows = rows.where(source.where)
        partition = [F.lit(int(year)).alias("year")] if source.is_yearly else []
        return rows.select(*partition, *source.columns)


def unreadable_years(refused: Mapping[str, str]) -> dg.Failure:
    """The failure of a run that published none or not all of its years."""
    metadata = {"not_published": dg.MetadataValue.json(dict(refused))}
    if WHOLE in refused:
        return dg.Failure(
            f"Not published: {refused[WHOLE]} Mend the table, or name another.",
            metadata=metadata,
            allow_retries=False,
        )
    reasons = " ".join(f"{year}: {reason}" for year, reason in sorted(refused.items()))
    return dg.Failure(
        f"Not published: {', '.join(sorted(refused))}. {reasons} "
        "Mend the tables, or leave these years out of the range.",
        metadata=metadata,
        allow_retries=False,
    )


def why_unreadable(
    name: str, state: TableState | None, source: TableSource, settings: Settings
) -> str | None:
    """A sentence that says why a table cannot be read; None if it can.

    Args:
        name: The table's name.
        state: What is known of it; None if there is no such table.
        source: What is to be read of it.
        settings: Say whether views are read.
    """
    if state is None:
        return f"the table {name} does not exist."
    if state.is_view and settings.bigquery_view_dataset is None:
        return (
            f"{name} is a view, whose rows BigQuery has to compute first: name a dataset for them "
            "in BIGQUERY_VIEW_DATASET."
        )
    if not state.is_view and not state.is_native:
        return f"{name} is of the kind {state.kind}, which the Storage API does not read."
    if problem := source.why_unreadable(state.columns):
        return f"the table {name} {problem}."
    if state.rows == 0 and state.settled and not state.is_view:
        return f"the table {name} is empty."
    return None
