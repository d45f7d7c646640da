"""A Spark session that several Dagster runs of one process share: most of a run is its start."""

import shutil
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import dagster as dg

from sparkpar_assets.assets.fares import fare_by_passenger_count
from sparkpar_assets.assets.trends import fare_trends
from sparkpar_assets.assets.trips import yellow_taxi_trips
from sparkpar_assets.io_managers.bigquery import BigQueryYears
from sparkpar_assets.io_managers.s3_parquet import S3ParquetIOManager
from sparkpar_assets.resources.bigquery import BigQueryTables
from sparkpar_assets.resources.environment import RunEnvironment
from sparkpar_assets.resources.spark import Spark
from sparkpar_assets.resources.spark_configuration import SCRATCH_PROPERTY
from sparkpar_assets.resources.spark_driver import Driver, stop_jvm
from sparkpar_assets.settings import Settings
from tests.integration.workbench import Workbench

if TYPE_CHECKING:
    from pyspark.sql import SparkSession


@dataclass
class KeptDriver:
    """The driver of an earlier run of this process, which is left to those after it."""

    session: "SparkSession"
    is_warm = True
    is_lost = False

    def end(self, *, in_order: bool) -> None:
        """Leave it."""


class WarmSpark(Spark):
    """The platform's session, started by the first run and left to those after it."""

    def _start(self, settings: Settings) -> Driver:
        from pyspark.sql import SparkSession

        session = SparkSession.getActiveSession()
        return KeptDriver(session) if session else super()._start(settings)

    def _stop(self) -> None:
        """Leave the session to the next run."""


def run_on_warm_session(
    bench: Workbench,
    asset: str,
    tags: Mapping[str, str] | None = None,
    assets: Sequence[dg.AssetsDefinition] = (
        yellow_taxi_trips,
        fare_by_passenger_count,
        fare_trends,
    ),
    reader: Callable[..., dg.ConfigurableIOManager] = BigQueryYears,
    instance: dg.DagsterInstance | None = None,
) -> dg.ExecuteInProcessResult:
    """Materialize an asset in this process, whose environment has to be the workbench's.

    Args:
        bench: Has the tables, the S3 prefix and the Dagster instance.
        asset: One of the assets.
        tags: Tags of the run; they name its partitions.
        assets: The platform's, or others.
        reader: What loads the tables; made of ``tables`` and ``spark``.
        instance: The Dagster instance, if not the workbench's.
    """
    environment = RunEnvironment.configure_at_launch()
    spark = WarmSpark.configure_at_launch(environment=environment)
    bigquery = BigQueryTables.configure_at_launch(environment=environment)
    with instance or bench.instance() as used:
        return dg.materialize(
            assets,
            selection=[asset],
            resources={
                "environment": environment,
                "spark": spark,
                "bigquery": bigquery,
                "bigquery_years": reader(tables=bigquery, spark=spark),
                "s3_parquet": S3ParquetIOManager(environment=environment, spark=spark),
            },
            tags=dict(tags or {}),
            instance=used,
            raise_on_error=False,
        )


def end_warm_session() -> None:
    """End the session of this process, if there is one: a run of the platform wants its own."""
    from pyspark import SparkContext

    context, jvm = SparkContext._active_spark_context, SparkContext._jvm
    if context is not None and jvm is not None:
        scratch = jvm.java.lang.System.getProperty(SCRATCH_PROPERTY)
        context.stop()
        stop_jvm()
        shutil.rmtree(scratch)
