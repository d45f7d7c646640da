"""Loading BigQuery tables as one lazy Spark DataFrame."""

import uuid
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import partial, reduce
from typing import TYPE_CHECKING, Any

import dagster as dg

from sparkpar_assets.cost import ReadEstimate, describe, rounded, total
from sparkpar_assets.io_managers.publication import WHOLE
from sparkpar_assets.io_managers.read_plan import ReadPlan, plan_reading
from sparkpar_assets.io_managers.source import TableSource
from sparkpar_assets.resources.bigquery import BigQueryTables, TableState
from sparkpar_assets.resources.spark import Spark
from sparkpar_assets.retries import retrying
from sparkpar_assets.settings import Settings
from sparkpar_assets.transforms.aggregation import filtered
from sparkpar_assets.transforms.sql import SqlError

if TYPE_CHECKING:
    from pyspark.sql import DataFrame, SparkSession

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
        estimates: What reading each year was expected to be billed for, by year.
    """

    rows: "DataFrame"
    states: Mapping[str, TableState]
    refused: Mapping[str, str]
    tables: BigQueryTables
    snapshots: bool
    is_filtered: bool = False
    estimates: Mapping[str, ReadEstimate] = field(default_factory=dict)

    def cost_metadata(self, year: str) -> dict[str, Any]:
        """What reading a year was expected to be billed for, as metadata of its materialization."""
        if (estimate := self.estimates.get(year)) is None:
            return {}
        return {
            "bytes_to_read": estimate.bytes,
            "estimated_cost_usd": float(rounded(estimate.usd)),
            "estimate_method": estimate.method,
        }

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
    one that lacks a column or has it in another type, and what reading the others is billed for.
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
            dg.Failure: No year can be read, or to read all of them is more than the limit allows.
        """
        settings = self.tables.environment.settings
        source = TableSource.of_input(context.definition_metadata)
        if source is None:
            raise RuntimeError(f"The input {context.name} has no TableSource in its metadata.")
        years = context.asset_partition_keys if source.is_yearly else []
        plan = retrying(
            lambda: plan_reading(self.tables, source, years, context.op_def.name),
            context.log,
            under_way=False,
        )
        for year, reason in plan.refused.items():
            context.log.error(f"{year}: {reason}" if source.is_yearly else reason)
        if not plan.states:
            raise unreadable_years(plan.refused)
        context.log.info(describe(plan.estimates))
        if plan.why_refused:
            raise _too_much(plan)
        rows = total(plan.estimates.values()).rows
        session = retrying(lambda: self.spark.session_for(rows), context.log, under_way=False)
        # Each table alone: the connector asks BigQuery for its metadata once, whatever the answer.
        frames = [
            retrying(
                partial(self._read, session, settings, source, plan, year),
                context.log,
                under_way=True,
            )
            for year in plan.states
        ]
        return SourceYears(
            rows=reduce(lambda one, other: one.unionByName(other), frames),
            states=plan.states,
            refused=plan.refused,
            tables=self.tables,
            snapshots=settings.bigquery_snapshot_reads,
            is_filtered=source.where is not None or source.year_column is not None,
            estimates=plan.estimates,
        )

    @staticmethod
    def _read(
        session: "SparkSession", settings: Settings, source: TableSource, plan: ReadPlan, year: str
    ) -> "DataFrame":
        from pyspark.sql import functions as F  # noqa: N812  # its name in PySpark's documentation

        state = plan.states[year]
        options: dict[str, Any] = {
            "table": state.name,
            "parentProject": settings.gcp_project,
            "credentialsFile": settings.google_credentials_file,
            "bigQueryHttpEndpoint": settings.bigquery_http_endpoint,
            "bigQueryStorageGrpcEndpoint": settings.bigquery_storage_endpoint,
            "readDataFormat": "ARROW",
            # Asked again, BigQuery shall begin a new session: the last one may have been the fault.
            "enableReadSessionCaching": "false",
            # A warm driver would give the next run what a view had in the last quarter of an hour.
            "cacheExpirationTimeInMinutes": "0",
            # Of comparisons in Spark's SQL the connector pushes down most: of this text, all.
            "filter": source.restriction(year, state.columns),
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
            if moment := plan.moments.get(year):
                options["snapshotTimeMillis"] = int(moment.timestamp() * 1000)
        reader = session.read.format("bigquery")
        for name, value in options.items():
            if value is not None:
                reader = reader.option(name, value)
        # Spark's cache tells what the connector reads by table, columns and filter, not by time: of
        # two runs at once on a warm driver, one would get the rows that the other has cached.
        this_read = F.lit(uuid.uuid4().hex)
        rows = reader.load().where(this_read == this_read)
        if source.where is not None:
            try:
                rows = filtered(rows, source.where)
            except SqlError as error:
                raise dg.Failure(
                    f"The condition where: {error} Correct it.", allow_retries=False
                ) from None
        partition = [F.lit(int(year)).alias("year")] if source.is_yearly else []
        return rows.select(*partition, *source.columns)


def _too_much(plan: ReadPlan) -> dg.Failure:
    return dg.Failure(
        plan.why_refused,
        metadata={
            "bytes_to_read": total(plan.estimates.values()).bytes,
            "max_bytes_read": plan.limit.bytes if plan.limit else None,
        },
        allow_retries=False,
    )


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
