"""A Spark application that lists and reads the fares of 2018 again and again, until it is killed.

It reads in two ways by turns: ``asset`` as a downstream asset does, in a Dagster run through the IO
manager, and ``plain`` as any Spark user does. Each line of its output that begins with ``{`` is the
way, and the rows that it saw or the error that it met.
"""

import json
import sys
import time
from typing import Any

import dagster as dg
from py4j.protocol import Py4JJavaError
from pyspark.errors import PySparkException
from pyspark.sql import SparkSession

from sparkpar_assets.assets.fares import fare_by_passenger_count
from sparkpar_assets.assets.trips import yellow_taxi_trips
from sparkpar_assets.io_managers.s3_parquet import PublishedYears, S3ParquetIOManager
from sparkpar_assets.resources.bigquery import BigQueryTables
from sparkpar_assets.resources.environment import RunEnvironment
from sparkpar_assets.settings import load_settings
from tests.integration.warm_spark import WarmSpark

BREATH_SECONDS = 0.5
FARES = "fare_by_passenger_count"
Rows = list[dict[str, Any]]


@dg.asset(ins={"fares": dg.AssetIn(FARES)})
def seen_fares(fares: PublishedYears) -> Rows:
    """What a downstream asset sees of the fares."""
    return [row.asDict() for row in fares.rows.where("year = 2018").drop("year").collect()]


def read_as_asset() -> Rows:
    """The rows by a Dagster run."""
    environment = RunEnvironment.configure_at_launch()
    spark = WarmSpark.configure_at_launch(environment=environment)
    result = dg.materialize(
        [yellow_taxi_trips, fare_by_passenger_count, seen_fares],
        selection=[seen_fares],
        resources={
            "environment": environment,
            "spark": spark,
            "s3_parquet": S3ParquetIOManager(environment=environment, spark=spark),
            "bigquery": BigQueryTables.configure_at_launch(environment=environment),
            "bigquery_years": dg.mem_io_manager,
            "io_manager": dg.mem_io_manager,
        },
        instance=dg.DagsterInstance.ephemeral(),
    )
    rows: Rows = result.asset_value("seen_fares")
    return rows


def read_plainly() -> Rows:
    """The rows by Spark alone, in the session of the other way."""
    settings = load_settings()
    folder = f"s3a://{settings.s3_bucket}/{settings.s3_root}{FARES}"
    session = SparkSession.getActiveSession()
    assert session is not None
    # The files that S3Proxy is still writing have other names: readers.OF_S3PROXY.
    table = session.read.option("pathGlobFilter", "*.parquet").parquet(folder)
    return [row.asDict() for row in table.where("year = 2018").drop("year").collect()]


def main() -> None:
    """Read until killed."""
    while True:
        _say("asset", rows=read_as_asset())
        try:
            _say("plain", rows=read_plainly())
        except (Py4JJavaError, PySparkException) as error:
            _say("plain", error=type(error).__name__)
        # Without a pause it would take the processor from the runs it watches.
        time.sleep(BREATH_SECONDS)


def _say(way: str, **seen: object) -> None:
    sys.stdout.write(json.dumps({"way": way, **seen}, default=str) + "\n")
    sys.stdout.flush()


if __name__ == "__main__":
    main()
