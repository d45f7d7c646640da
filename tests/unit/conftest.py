"""What the unit tests need: a small local Spark, without cluster, connector or S3."""

import os
import sys
from collections.abc import Iterator

import pytest
from pyspark.sql import SparkSession

from sparkpar_assets.resources.java import find_java_home
from sparkpar_assets.resources.spark_configuration import SQL_SEMANTICS
from sparkpar_assets.resources.spark_driver import stop_jvm


@pytest.fixture(scope="package")
def spark() -> Iterator[SparkSession]:
    """A local session; its JVM ends with the unit tests, since a run starts one of its own."""
    # Spark would start the python3 of the path, which may be another one.
    os.environ["PYSPARK_PYTHON"] = sys.executable
    os.environ["JAVA_HOME"] = find_java_home(os.environ.get("JAVA_HOME"))
    session = (
        SparkSession.builder.master("local[2]")
        .config("spark.sql.shuffle.partitions", "2")
        .config("spark.ui.enabled", "false")
        # Quick to start, for small data.
        .config("spark.driver.extraJavaOptions", "-XX:+UseSerialGC -XX:TieredStopAtLevel=1")
        .config("spark.driver.bindAddress", "127.0.0.1")
        .config("spark.driver.host", "127.0.0.1")
        .config(map={**SQL_SEMANTICS})
        .getOrCreate()
    )
    yield session
    session.stop()
    stop_jvm()
