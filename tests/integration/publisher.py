"""A driver that publishes one version after the other: a process, so that it can be killed.

Each line of its input is a year and a version. Each becomes a Dagster run of the real asset with
its checks and its IO manager. Two things differ from ``dagster asset materialize``: the trips are
made up instead of read, and the Spark session stays for the next run. That makes a run of two
seconds out of one of twenty: a test can have many of them, and kill them where it matters.
"""

import sys

import dagster as dg

from sparkpar_assets.assets.fares import fare_by_passenger_count
from sparkpar_assets.assets.trips import yellow_taxi_trips
from sparkpar_assets.io_managers.bigquery import SourceYears
from sparkpar_assets.io_managers.s3_parquet import S3ParquetIOManager
from sparkpar_assets.resources.bigquery import BigQueryTables
from sparkpar_assets.resources.environment import RunEnvironment
from tests.integration.versions import trips_frame
from tests.integration.warm_spark import WarmSpark


class MadeTrips(dg.ConfigurableIOManager):
    """Trips of a version in the place of BigQuery's."""

    tables: BigQueryTables
    spark: WarmSpark
    version: int

    def handle_output(self, context: dg.OutputContext, obj: object) -> None:
        """Refuse, as the reader of BigQuery does."""
        raise NotImplementedError

    def load_input(self, context: dg.InputContext) -> SourceYears:
        """Make the trips of the run's year."""
        (year,) = context.asset_partition_keys
        rows = trips_frame(self.spark.session, year, self.version)
        return SourceYears(rows=rows, states={}, refused={}, tables=self.tables, snapshots=True)


def publish(year: str, version: int) -> bool:
    """Publish a version of a year; returns whether the run succeeded."""
    environment = RunEnvironment.configure_at_launch()
    spark = WarmSpark.configure_at_launch(environment=environment)
    tables = BigQueryTables.configure_at_launch(environment=environment)
    result = dg.materialize(
        [yellow_taxi_trips, fare_by_passenger_count],
        selection=[fare_by_passenger_count],
        partition_key=year,
        resources={
            "environment": environment,
            "spark": spark,
            "bigquery": tables,
            "bigquery_years": MadeTrips(tables=tables, spark=spark, version=version),
            "s3_parquet": S3ParquetIOManager(environment=environment, spark=spark),
        },
        instance=dg.DagsterInstance.ephemeral(),
        raise_on_error=False,
    )
    return result.success


def main() -> None:
    """Publish what the lines of the input say."""
    for line in sys.stdin:
        year, version = line.split()
        _say(f"begins {year} {version}")
        _say(f"{'published' if publish(year, int(version)) else 'failed'} {year} {version}")


def _say(line: str) -> None:
    sys.stdout.write(f"{line}\n")
    sys.stdout.flush()


if __name__ == "__main__":
    main()
