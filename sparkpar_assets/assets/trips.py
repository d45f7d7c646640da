"""The source: BigQuery's yellow-taxi tables, one a year."""

from sparkpar_assets.assets.tables import bigquery_tables
from sparkpar_assets.io_managers.source import TAXI_TABLES
from sparkpar_assets.partitions import TAXI_YEARS

yellow_taxi_trips = bigquery_tables(
    TAXI_TABLES,
    years=TAXI_YEARS,
    group_name="taxi_fares",
    description=(
        "Trips of New York's yellow taxis, as BigQuery's public tables hold them, one a year."
    ),
    shown_name="bigquery-public-data.new_york_taxi_trips.tlc_yellow_trips_*",
)
