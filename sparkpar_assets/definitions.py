"""The whole graph on one screen."""

import dagster as dg

from sparkpar_assets.assets.fares import fare_by_passenger_count
from sparkpar_assets.assets.trends import fare_trends
from sparkpar_assets.assets.trips import yellow_taxi_trips
from sparkpar_assets.components.loading import load_analyses
from sparkpar_assets.garbage import leave_it_at_the_end
from sparkpar_assets.io_managers.bigquery import BigQueryYears
from sparkpar_assets.io_managers.s3_parquet import S3ParquetIOManager
from sparkpar_assets.key_check import key_is_young
from sparkpar_assets.resources.bigquery import BigQueryTables
from sparkpar_assets.resources.environment import RunEnvironment
from sparkpar_assets.resources.spark import Spark
from sparkpar_assets.schedules import observe_taxi_tables, yearly_fares
from sparkpar_assets.sensors import (
    automation_conditions,
    changed_taxi_years,
    dead_staging,
    run_failure_alert,
)

leave_it_at_the_end()

# Configured at launch, though there is nothing to configure: only such a resource is one and the
# same for all that it is nested in. Of others Dagster makes a copy for each: a session for each.
environment = RunEnvironment.configure_at_launch()
spark = Spark.configure_at_launch(environment=environment)
bigquery = BigQueryTables.configure_at_launch(environment=environment)

ASSETS = [yellow_taxi_trips, fare_by_passenger_count, fare_trends]

defs = dg.Definitions.merge(
    dg.Definitions(
        assets=ASSETS,
        asset_checks=[key_is_young],
        schedules=[observe_taxi_tables, yearly_fares],
        sensors=[changed_taxi_years, automation_conditions, run_failure_alert, dead_staging],
        resources={
            "environment": environment,
            "spark": spark,
            "bigquery": bigquery,
            "bigquery_years": BigQueryYears(tables=bigquery, spark=spark),
            "s3_parquet": S3ParquetIOManager(environment=environment, spark=spark),
        },
        # All steps of a run in one process: they share one Spark session.
        executor=dg.in_process_executor,
    ),
    load_analyses(ASSETS),
)
