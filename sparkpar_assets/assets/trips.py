"""The source: BigQuery's yellow-taxi tables, one a year."""

import dagster as dg
from dagster._core.definitions.external_asset import create_external_asset_from_source_asset

from sparkpar_assets.metadata import SCHEMA_KEY
from sparkpar_assets.partitions import TAXI_YEARS
from sparkpar_assets.resources.bigquery import BigQueryTables, TableState


@dg.observable_source_asset(
    key="yellow_taxi_trips",
    partitions_def=TAXI_YEARS,
    io_manager_key="bigquery_years",
    group_name="taxi_fares",
    metadata={"dagster/table_name": "bigquery-public-data.new_york_taxi_trips.tlc_yellow_trips_*"},
)
def _observe_yellow_taxi_trips(
    context: dg.OpExecutionContext, bigquery: BigQueryTables
) -> dg.DataVersionsByPartition:
    """Look at each year's table by its free metadata; a year without a table is left out."""
    years = (
        context.partition_keys
        if context.has_partition_key or context.has_partition_key_range
        else TAXI_YEARS.get_partition_keys()
    )
    prefix = bigquery.environment.settings.taxi_table_prefix
    states = bigquery.states({year: f"{prefix}{year}" for year in years})
    for year, state in states.items():
        if state is None:
            context.log.info(f"{year}: there is no table {prefix}{year}.")
        else:
            context.log_event(_observation(context.asset_key, year, state))
    # Empty, for the observations were logged above: what is returned here can carry no metadata.
    return dg.DataVersionsByPartition({})


# The decorator has no parameter for owners, kinds and code version, and the one that has them (for
# several assets) cannot observe partitions: the specification is completed afterwards.
yellow_taxi_trips = create_external_asset_from_source_asset(
    _observe_yellow_taxi_trips
).map_asset_specs(
    lambda spec: spec.replace_attributes(
        description=(
            "Trips of New York's yellow taxis, as BigQuery's public tables hold them, one a year. "
            "Observed by free metadata: the last change and the row count are the data version."
        ),
        owners=["team:data-engineering"],
        kinds={"bigquery"},
        code_version="1",
    )
)


def _observation(asset_key: dg.AssetKey, year: str, state: TableState) -> dg.AssetObservation:
    return dg.AssetObservation(
        asset_key=asset_key,
        partition=year,
        tags={"dagster/data_version": state.version},
        metadata={
            "dagster/table_name": state.name,
            "dagster/partition_row_count": state.rows,
            "bytes": state.bytes,
            "last_changed": dg.MetadataValue.timestamp(state.modified),
            SCHEMA_KEY: dg.TableSchema(
                [dg.TableColumn(name, kind) for name, kind in state.columns.items()]
            ),
        },
    )
