"""BigQuery tables as assets: observed by their free metadata, never written."""

from typing import Any

import dagster as dg
from dagster._core.definitions.external_asset import create_external_asset_from_source_asset

from sparkpar_assets.io_managers.publication import WHOLE
from sparkpar_assets.io_managers.source import YEAR, TableSource, table_key
from sparkpar_assets.metadata import SCHEMA_KEY
from sparkpar_assets.resources.bigquery import BigQueryTables, TableState
from sparkpar_assets.retries import retrying

OWNERS = ["team:data-engineering"]


def bigquery_tables(
    table: str,
    *,
    years: dg.TimeWindowPartitionsDefinition | None,
    group_name: str,
    description: str,
    shown_name: str | None = None,
) -> dg.AssetsDefinition:
    """The asset that stands for a table, or for the tables of several years.

    Observing it records each year's data version: the time of the table's last change, and its row
    count.

    Args:
        table: Name, project.dataset.table, as in ``TableSource.table``.
        years: The years, where the table is read by the year.
        group_name: The assets' group.
        description: What the rows are.
        shown_name: The tables' name in the UI, if that is another one.
    """
    source = TableSource(table, columns={})

    @dg.observable_source_asset(
        key=table_key(table),
        partitions_def=years,
        io_manager_key="bigquery_years",
        group_name=group_name,
        metadata={"dagster/table_name": shown_name or table.replace(YEAR, "*")},
    )
    def observe(
        context: dg.OpExecutionContext, bigquery: BigQueryTables
    ) -> dg.DataVersionsByPartition | dg.ObserveResult:
        """Look at each year's table by its free metadata; a year without a table is left out."""
        settings = bigquery.environment.settings
        asked = _asked_years(context, years) if years else [WHOLE]
        names = {year: source.name(year, settings) for year in asked}
        states = retrying(lambda: bigquery.states(names), context.log, under_way=False)
        if years is None:
            return _observed(names[WHOLE], states[WHOLE])
        for year, state in states.items():
            if state is None:
                context.log.info(f"{year}: there is no table {names[year]}.")
            else:
                context.log_event(_observation(context.asset_key, year, state))
        # Empty, for the observations were logged above: what is returned here has no metadata.
        return dg.DataVersionsByPartition({})

    # The decorator has no parameter for owners, kinds and code version, and the one that has them
    # (for several assets) cannot observe partitions: the specification is completed afterwards.
    return create_external_asset_from_source_asset(observe).map_asset_specs(
        lambda spec: spec.replace_attributes(
            description=f"{description} Observed by free metadata: the last change and the row "
            "count are the data version.",
            owners=OWNERS,
            kinds={"bigquery"},
            code_version="1",
        )
    )


def _asked_years(
    context: dg.OpExecutionContext, years: dg.TimeWindowPartitionsDefinition
) -> list[str]:
    if context.has_partition_key or context.has_partition_key_range:
        return list(context.partition_keys)
    return list(years.get_partition_keys())


def _observation(asset_key: dg.AssetKey, year: str, state: TableState) -> dg.AssetObservation:
    return dg.AssetObservation(
        asset_key=asset_key,
        partition=year,
        tags={"dagster/data_version": state.version},
        metadata={"dagster/partition_row_count": state.rows, **_described(state)},
    )


def _observed(name: str, state: TableState | None) -> dg.ObserveResult:
    if state is None:
        raise dg.Failure(
            f"The table {name} does not exist. Create it, or correct the analysis that names it.",
            allow_retries=False,
        )
    return dg.ObserveResult(
        data_version=dg.DataVersion(state.version),
        metadata={"dagster/row_count": state.rows, **_described(state)},
    )


def _described(state: TableState) -> dict[str, Any]:
    return {
        "dagster/table_name": state.name,
        "bytes": state.bytes,
        "last_changed": dg.MetadataValue.timestamp(state.modified),
        SCHEMA_KEY: dg.TableSchema(
            [dg.TableColumn(name, kind) for name, kind in state.columns.items()]
        ),
    }
