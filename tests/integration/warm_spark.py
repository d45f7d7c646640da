"""A Spark session that several Dagster runs of one process share: most of a run is its start."""

import shutil
from typing import TYPE_CHECKING

from sparkpar_assets.resources.spark import SCRATCH_PROPERTY, Spark, stop_jvm
from sparkpar_assets.settings import Settings

if TYPE_CHECKING:
    from pyspark.sql import SparkSession


class WarmSpark(Spark):
    """The platform's session, started by the first run and left to those after it."""

    def _start(self, settings: Settings) -> "SparkSession":
        from pyspark.sql import SparkSession

        session = SparkSession.getActiveSession() or super()._start(settings)
        # The connector keeps what it has asked of a table for five minutes, in the JVM.
        session.conf.set("enableReadSessionCaching", "false")
        return session

    def _stop(self) -> None:
        """Leave the session to the next run."""


def end_warm_session() -> None:
    """End the session of this process, if there is one: a run of the platform wants its own."""
    from pyspark import SparkContext

    context, jvm = SparkContext._active_spark_context, SparkContext._jvm
    if context is not None and jvm is not None:
        scratch = jvm.java.lang.System.getProperty(SCRATCH_PROPERTY)
        context.stop()
        stop_jvm()
        shutil.rmtree(scratch)
